"""Text a person gives, as windows of token ids for the stimulus `natural`. No torch; local files only.

.txt (documents parted by <|endoftext|>), .jsonl (field `text`), either gzipped, .parquet (column `text`), and token ids in
.npy or .safetensors; one file, or a folder of them. A file of any other name is read as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.text import token_files
from byrote.probes.text.chunk import Chunk, Packer
from byrote.probes.text.corpus import TEXT_SUFFIXES
from byrote.probes.text.reading import Reading, text_chunks
from byrote.probes.text.settings import SEPARATOR
from byrote.probes.text.units import encoder

MAX_TOKENS = 1 << 20  # the rest of a longer text is not read; a stimulus draws a few dozen windows
MIN_WINDOWS, MIN_WINDOW_TOKENS = 8, 32
PARQUET, FIELD = ".parquet", "text"
_ENDINGS = (*TEXT_SUFFIXES, PARQUET, *token_files.SUFFIXES)
_BATCH_ROWS = 256

Document = Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Windows:
    """Windows of one text.

    Attributes:
        tokens: BOS first, all of one length.
        notes: what a reader must know about how they were cut.
    """

    tokens: Int[np.ndarray, "n width"]
    notes: tuple[str, ...] = ()


def windows_of(path: Path, *, tokenizer: Path | None, bos: int, width: int, wanted: int) -> Windows:
    """Cut a text into windows.

    Windows lie within one document where enough documents are that long; else documents are joined, BOS between them;
    else windows are shorter, so that there are `MIN_WINDOWS`.

    Args:
        path: a file or a folder.
        tokenizer: the model's tokenizer.json; not needed for token ids.
        bos: put in front of every window; what documents of ids already begin with is not doubled.
        width: tokens per window, BOS included.
        wanted: windows that will be drawn.

    Raises:
        ByroteError: no text, too little of it, a file that cannot be read, or text without a tokenizer.
    """
    reading, notes = Reading(), []
    documents, total = [], 0
    for document in _documents(_files(path), path, tokenizer, reading):
        body = document[1:] if len(document) and document[0] == bos else document
        documents += [body[: MAX_TOKENS - total]] if len(body) else []
        total += min(len(body), MAX_TOKENS - total)
        if total >= MAX_TOKENS:
            notes.append(f"{path.name}: only its first {MAX_TOKENS:,} tokens were read")
            break
    if not total:
        raise ByroteError(f"{path.name} holds no text", help="give a file that is not empty")
    if reading.replaced:
        notes.append(f"{path.name}: bytes that are not UTF-8 were replaced ({reading.replaced:,})")
    tokens, cut = _cut(documents, bos=bos, width=width, wanted=wanted, name=path.name)
    left_out = [f"{file}: {what}" for file, what in reading.files]
    return Windows(tokens, (*notes, *left_out, *cut))


def _cut(
    documents: list[np.ndarray], *, bos: int, width: int, wanted: int, name: str
) -> tuple[np.ndarray, list[str]]:
    size = width - 1
    whole = [d[: len(d) // size * size].reshape(-1, size) for d in documents]
    count = sum(map(len, whole))
    joined = np.concatenate([part for d in documents for part in ([bos], d)])[1:].astype(np.int64)
    notes = []
    if count < min(max(wanted, MIN_WINDOWS), len(joined) // size):
        whole, count = [joined[: len(joined) // size * size].reshape(-1, size)], len(joined) // size
        notes.append(f"{name}: documents shorter than {width:,} tokens were joined, BOS between them")
    if count < MIN_WINDOWS:
        size = len(joined) // MIN_WINDOWS
        least = min(width, MIN_WINDOW_TOKENS)
        if size + 1 < least:
            raise ByroteError(
                f"{name} holds {len(joined):,} tokens, too few for {MIN_WINDOWS} windows of {least}",
                help=f"give a longer text: {MIN_WINDOWS * (width - 1):,} tokens make {MIN_WINDOWS} windows of the "
                "model's context",
            )
        whole = [joined[: MIN_WINDOWS * size].reshape(MIN_WINDOWS, size)]
        notes = [f"{name} is short: {MIN_WINDOWS} windows of {size + 1:,} tokens instead of {width:,}"]
    body = np.concatenate(whole)
    return np.concatenate([np.full((len(body), 1), bos), body], axis=1).astype(np.int64), notes


def _documents(files: list[Path], path: Path, tokenizer: Path | None, reading: Reading) -> Iterator[Document]:
    """Token ids, one document after another."""
    ids = [file for file in files if file.suffix in token_files.SUFFIXES]
    if ids and len(ids) < len(files):
        raise ByroteError(f"{path.name} mixes text and token ids", help="give one or the other")
    if ids:
        yield from _apart(token_files.id_blocks(ids, lambda n: None))
        return
    if tokenizer is None or not tokenizer.is_file():
        raise ByroteError(
            f"{path.name} is text and the model folder has no tokenizer.json",
            help="put the model's tokenizer.json beside the weights (save_pretrained of a fast tokenizer writes it), or give "
            "token ids as .npy or .safetensors",
        )
    encode = encoder("tokens", tokenizer)
    for file in files:  # one by one: each counts its documents from 0
        yield from _apart(encode(chunk) for chunk in _chunks(file, reading))


def _apart(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Document]:
    """Documents of blocks of (ids, document of each), put together where they go on in the next block."""
    held: list[np.ndarray] = []
    last = None
    for ids, document in blocks:
        starts = np.flatnonzero(np.diff(document, prepend=document[:1] - 1))
        for part, number in zip(np.split(ids, starts[1:]), document[starts], strict=True):
            # A document without end is handed on in parts: nobody reads more than that.
            if held and (number != last or sum(map(len, held)) >= MAX_TOKENS):
                yield np.concatenate(held)
                held = []
            held.append(part.astype(np.int64))
            last = number
    if held:
        yield np.concatenate(held)


def _chunks(file: Path, reading: Reading) -> Iterator[Chunk]:
    if file.suffix == PARQUET:
        return _parquet_chunks(file)
    _refuse_binary(file)
    return text_chunks([file], separators=(SEPARATOR,), text_field=FIELD, raw=False, reading=reading)


def _parquet_chunks(file: Path) -> Iterator[Chunk]:
    """The column `text`, or the only column of text, a row a document."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    packer = Packer()
    try:
        with pq.ParquetFile(file) as table:
            column = _text_column(file, table.schema_arrow)
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[column]):
                for text in batch.column(0).to_pylist():
                    yield from packer.feed((text or "").encode("utf-8", "replace"), starts_document=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ByroteError(f"{file.name} cannot be read ({error})", help="copy the file again") from None
    yield from packer.flush()


def _text_column(file: Path, schema) -> str:
    import pyarrow as pa

    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if FIELD in texts:
        return FIELD
    if len(texts) != 1:
        columns = ", ".join(schema.names[:8]) or "none"
        raise ByroteError(
            f"{file.name} has no column {FIELD!r} (it has {columns})", help=did_you_mean(FIELD, schema.names)
        )
    return texts[0]


def _refuse_binary(file: Path) -> None:
    with file.open("rb") as opened:
        if file.suffix != ".gz" and b"\0" in opened.read(4096):
            raise ByroteError(
                f"{file.name} is not text: it holds NUL bytes",
                help="give UTF-8 text (.txt, .jsonl, .parquet), or token ids (.npy, .safetensors)",
            )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ByroteError(f"{path} does not exist", help="check the path")
    inside = (p for p in sorted(path.rglob("*")) if not _hidden(p.relative_to(path)))
    files = [file for file in inside if file.name.endswith(_ENDINGS) and file.is_file()]
    if not files:
        raise ByroteError(
            f"{path} holds no text",
            help=f"a folder may hold {', '.join(_ENDINGS)} files; name others one by one",
        )
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
