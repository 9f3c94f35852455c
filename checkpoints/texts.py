"""Texts on disk as chunks of documents, in bounded memory: .txt, .jsonl (either may be .gz) and .parquet.

The one reader of `byrote text`, of natural text, and of members and twins. At most a few MiB of a .txt are in memory at a time;
a line of .jsonl is read whole, up to its limit of 32 MiB. Nothing in a file can make this grow: archives that expand like
no text does are refused, bytes that are not UTF-8 are replaced and counted. Files of token ids: `token_files`.

A long document is cut in front of a single space between two letters or digits: byte-level BPE splits words there
anyway, so that the tokens are those of the whole document. Where there is no such place in 128 KiB the cut may part a
word, and a tokenizer that puts a mark in front of every text puts one more in front of every part. Where a cut falls
does not depend on how the file was read.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt64

from byrote.checkpoints import token_files
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.safe_read import open_regular
from byrote.checkpoints.tokenizing import open_tokenizer

ENDINGS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet", *token_files.SUFFIXES)
SEPARATOR, FIELD = "<|endoftext|>", "text"
READ_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 25
MAX_LINE_OBJECTS = 1 << 21  # lists and objects of one line of JSON, each of which takes 64 bytes and more
MAX_CELL_BYTES = 1 << 28  # of one text in a table
PART_BYTES = 1 << 17
CHUNK_BYTES, CHUNK_PARTS = 1 << 20, 1 << 13
_WILD_CHARS = 200
_BOMB_RATIO, _BOMB_BYTES = 200, 1 << 26  # text compresses 3 to 20 times
_REFUSED_FRAC = 0.3
_BATCH_ROWS = 256
_ROW_BYTES = 8  # what a row of a table counts beside its text
_BLANK = b" \t\r\n\v\f"
_TRIES = 64

Codes = tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]


class NothingToReadError(ByroteError):
    """The path is fine and holds no text."""


@dataclass
class Reading:
    """What happened while files were read.

    Attributes:
        on_bytes: called with the number of bytes of a file (as stored) that were read.
        replaced: characters put in for bytes that are not UTF-8.
        skipped: lines of the open .jsonl that hold no text; `problem` and `help` are about the first of them.
        files: (name, what was left out) of every file that was not read whole.
    """

    on_bytes: Callable[[int], None] = lambda n: None
    replaced: int = 0
    skipped: int = 0
    problem: str = ""
    help: str = ""
    files: list[tuple[str, str]] = field(default_factory=list)

    def skip(self, problem: str, help: str) -> None:
        """Count a line without text."""
        self.skipped += 1
        if not self.problem:
            self.problem, self.help = problem, help

    def close(self, path: Path, *, is_empty: bool) -> None:
        """Note what was skipped in a file.

        Raises:
            ByroteError: it gave no document, only lines that were skipped.
        """
        if self.skipped and is_empty:
            raise ByroteError(f"{path.name}: {self.problem}", help=self.help)
        if self.skipped:
            lines = "1 line contains" if self.skipped == 1 else f"{self.skipped:,} lines contain"
            self.files.append((path.name, f"{lines} no text: {self.problem}"))
        self.skipped, self.problem = 0, ""


@dataclass
class Chunk:
    """Parts of documents, in order.

    Attributes:
        parts: text, each part at most `PART_BYTES` long.
        documents: the document of each part, counted over all files.
    """

    parts: list[bytes] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)


class Packer:
    """Takes pieces of documents as they are read, gives chunks of about `CHUNK_BYTES`, of `CHUNK_PARTS` at the most.

    Blank space around documents is dropped, and so are blank documents.
    """

    def __init__(self) -> None:
        self.documents = 0
        self._open = b""
        self._new = True
        self._chunk, self._size = Chunk(), 0

    def feed(self, text: bytes, *, starts_document: bool) -> Iterator[Chunk]:
        """Add text to the open document, or to a new one."""
        if starts_document:
            yield from self._close()
        for at in range(0, len(text), PART_BYTES):
            self._open += text[at : at + PART_BYTES]
            if self._new:
                self._open = self._open.lstrip(_BLANK)
            while len(self._open) > PART_BYTES:
                cut = cut_before(self._open[:PART_BYTES])
                yield from self._emit(self._open[:cut])
                self._open = self._open[cut:]

    def flush(self) -> Iterator[Chunk]:
        """End the last document and give what is left."""
        yield from self._close()
        if self._chunk.parts:
            yield self._chunk
        self._chunk, self._size = Chunk(), 0

    def _close(self) -> Iterator[Chunk]:
        rest = self._open.rstrip(_BLANK)
        if rest:
            yield from self._emit(rest)
        self._open, self._new = b"", True

    def _emit(self, text: bytes) -> Iterator[Chunk]:
        self.documents += self._new
        self._new = False
        self._chunk.parts.append(text)
        self._chunk.documents.append(self.documents - 1)
        self._size += len(text)
        if self._size >= CHUNK_BYTES or len(self._chunk.parts) >= CHUNK_PARTS:
            yield self._chunk
            self._chunk, self._size = Chunk(), 0


def cut_before(text: bytes) -> int:
    """Where to end a part: in front of the last single space between two words; else at a character's edge."""
    for blank in (b" ", b"\n"):
        at = len(text) - 1
        for _ in range(_TRIES):
            at = text.rfind(blank, 1, at)
            if at < 0:
                break
            if text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum():
                return at
    end = len(text)
    while end > len(text) - 4 and text[end - 1] & 0xC0 == 0x80:
        end -= 1
    return end - 1 if text[end - 1] >= 0xC0 else len(text)


def find_files(path: Path, *, any_name: bool = False) -> list[Path]:
    """The file of a path, or all files of a folder that hold text or token ids, in reading order; hidden ones are left out.

    Args:
        path: a file or a folder.
        any_name: a file with another ending than `ENDINGS` is text.

    Raises:
        NothingToReadError: a folder without such files.
        ByroteError: there is nothing at the path, or a file with another ending.
    """
    endings = ", ".join(ENDINGS)
    if path.is_dir():
        inside = sorted(path.rglob("*"))
        seen = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        files = [file for file in seen if file.name.endswith(ENDINGS) and file.is_file()]
        if not files:
            raise NothingToReadError(f"{path} holds no text", help=f"a folder may hold {endings} files")
        return files
    if not path.exists():
        raise ByroteError(f"{path} does not exist", help="check the path")
    if not path.is_file() or not (any_name or path.name.endswith(ENDINGS)):
        raise ByroteError(f"{path} is not a corpus file", help=f"the name must end in one of {endings}")
    return [path]


def hold_ids(files: Sequence[Path], name: str) -> bool:
    """Whether files hold token ids, not text.

    Raises:
        ByroteError: some hold one and some the other.
    """
    ids = [file.suffix in token_files.SUFFIXES for file in files]
    if any(ids) and not all(ids):
        raise ByroteError(
            f"{name} mixes text and token ids", help="give one or the other, or measure them separately"
        )
    return all(ids)


@contextmanager
def token_encoder(tokenizer: Path | None) -> Iterator[Callable[[Chunk], Codes]]:
    """A function from a chunk to (token ids, document of each id), for a block.

    Raises:
        TokenizerError: the tokenizer cannot be read, or fails on a chunk.
    """
    with open_tokenizer(tokenizer) as opened:

        def encode(chunk: Chunk) -> Codes:
            found = opened.encode(chunk.parts)
            ids = np.concatenate(found).astype(np.uint64)
            return ids, np.repeat(np.asarray(chunk.documents), [len(part) for part in found])

        yield encode


def separator_pattern(separators: Sequence[str]) -> tuple[re.Pattern[bytes], int]:
    """Separators as one pattern, and the most bytes it can match; `*` is up to 200 bytes of one line."""
    wild = rb"[^\n]{0,%d}?" % _WILD_CHARS
    patterns = [wild.join(re.escape(part.encode()) for part in text.split("*")) for text in separators]
    longest = max(len(text.encode()) + _WILD_CHARS * text.count("*") for text in separators)
    return re.compile(b"|".join(patterns)), longest


def text_chunks(
    files: Sequence[Path],
    *,
    reading: Reading,
    separators: Sequence[str] = (SEPARATOR,),
    text_field: str = FIELD,
    raw: bool = False,
) -> Iterator[Chunk]:
    """Chunks of all documents of some files; a document never spans two files.

    Args:
        files: .jsonl and .parquet by their names; any other is text. Either text may be gzipped.
        reading: counts what went wrong.
        separators: between documents of .txt, as for `separator_pattern`.
        text_field: of .jsonl, and the column of .parquet.
        raw: keep bytes that are not UTF-8, for units of bytes.

    Raises:
        ByroteError: a file that is not text, is damaged, or has no such field or column of text.
    """
    packer = Packer()
    for path in files:
        before = packer.documents
        pieces: Iterator[tuple[bytes, bool]]
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            texts = json_texts(lines(path, reading), text_field, reading.skip)
            pieces = ((text, True) for _, text, _ in texts)
        elif path.suffix == ".parquet":
            pieces = ((text, True) for text in _parquet_texts(path, text_field, reading))
        else:
            pieces = _split(_blocks(path, reading, raw=raw), separators)
        for text, starts in pieces:
            yield from packer.feed(text, starts_document=starts)
        yield from packer.feed(b"", starts_document=True)
        reading.close(path, is_empty=packer.documents == before)
    yield from packer.flush()


def lines(path: Path, reading: Reading) -> Iterator[bytes | None]:
    """The lines of a file; None for one over the limit, which is never read whole."""
    waiting: list[bytes] = []
    size = 0
    for block in _stored(path, reading):
        *whole, rest = block.split(b"\n")
        for part in whole:
            yield None if size + len(part) > MAX_LINE_BYTES else b"".join([*waiting, part])
            waiting, size = [], 0
        size += len(rest)
        waiting = [] if size > MAX_LINE_BYTES else [*waiting, rest]
    if size:
        yield b"".join(waiting) if size <= MAX_LINE_BYTES else None


def refuse_binary(path: Path, text: bytes) -> None:
    """Refuse what no text holds.

    Raises:
        ByroteError: there are NUL bytes.
    """
    if b"\0" in text:
        raise ByroteError(
            f"{path.name} is not text: it holds NUL bytes",
            help="give UTF-8 text (iconv -f utf-16 -t utf-8 converts), token ids (.npy, .safetensors), or measure bytes "
            "(byrote text --units bytes)",
        )


def _split(blocks: Iterator[bytes], separators: Sequence[str]) -> Iterator[tuple[bytes, bool]]:
    """(text, whether a document starts with it); where the next block could change what matches, it waits for it."""
    pattern, longest = separator_pattern(separators)
    waiting, starts = b"", True
    for block in chain(blocks, (None,)):
        text, done = waiting + (block or b""), 0
        certain = len(text) if block is None else len(text) - longest + 1
        for found in pattern.finditer(text):
            if found.start() >= certain:
                break
            yield text[done : found.start()], starts
            done, starts = found.end(), True
        keep = max(done, certain)
        yield text[done:keep], starts
        starts, waiting = False, text[keep:]


def _blocks(path: Path, reading: Reading, *, raw: bool) -> Iterator[bytes]:
    """A file's text in blocks: UTF-8 made valid, or as it is."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    first, before = True, b""
    for block in _stored(path, reading):
        if raw:
            yield block
            continue
        refuse_binary(path, block)
        text = decoder.decode(block)
        stored = before + block
        bad = text.count("\ufffd") - stored.count("\ufffd".encode())  # what was there is no damage
        before = stored[-2:]
        reading.replaced += max(0, bad)
        if bad > _REFUSED_FRAC * len(text) and len(block) > 64:
            raise ByroteError(f"{path.name} is not UTF-8 text", help="convert it, or measure bytes")
        yield (text.removeprefix("\ufeff") if first else text).encode()
        first = first and not text
    cut_short = decoder.decode(b"", final=True)
    reading.replaced += len(cut_short)
    yield cut_short.encode()


def _stored(path: Path, reading: Reading) -> Iterator[bytes]:
    """A file's bytes, unpacked where it is gzipped."""
    with open_regular(path, follow_links=True) as file:
        source: Any = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        at = total = 0
        while True:
            try:
                block = source.read(READ_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ByroteError(
                    f"{path.name} cannot be unpacked ({error})", help="copy the file again"
                ) from None
            total += len(block)
            if path.suffix == ".gz" and total > max(_BOMB_BYTES, _BOMB_RATIO * file.tell()):
                raise ByroteError(
                    f"{path.name} expands more than {_BOMB_RATIO} times: this is not text",
                    help="unpack it and inspect it first",
                )
            reading.on_bytes(file.tell() - at)
            at = file.tell()
            if not block:
                return
            yield block


def json_texts(
    found: Iterable[bytes | None], text_field: str, refuse: Callable[[str, str], None]
) -> Iterator[tuple[int, bytes, Mapping[str, Any]]]:
    """(number of the line, its text, the whole object) of lines of JSON; blank lines are left out.

    Args:
        found: as `lines` gives them.
        text_field: of the objects.
        refuse: called with what is wrong with a line and what to do about it; it may raise.
    """
    for number, line in enumerate(found, start=1):
        where = f"line {number:,}"
        if line is None:
            refuse(f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB", "split it")
            continue
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        nested = line.count(b"[") + line.count(b"{") if len(line) > MAX_LINE_OBJECTS else 0
        try:
            record = json.loads(line.decode("utf-8", "replace")) if nested <= MAX_LINE_OBJECTS else None
        except (ValueError, RecursionError):
            refuse(f"{where} is not JSON", "one JSON object per line")
            continue
        if isinstance(record, dict) and isinstance(text := record.get(text_field), str):
            yield number, text.encode("utf-8", "replace"), record
        elif isinstance(record, dict):
            help = did_you_mean(text_field, record) if record else "name the field that holds it"
            refuse(f"{where} has no text in a field {text_field!r}", help)
        else:
            refuse(f"{where} is not a JSON object", "one JSON object per line")


def _parquet_texts(path: Path, text_field: str, reading: Reading) -> Iterator[bytes]:
    """The column of that name, or the only column of text, a row a document."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path, follow_links=True) as stored:
            size = os.fstat(stored.fileno()).st_size
            with pq.ParquetFile(stored) as table:
                facts = table.metadata
                column = _text_column(path, table.schema_arrow, text_field)
            most = max(_BOMB_BYTES, _BOMB_RATIO * size)
            if facts.num_rows * _ROW_BYTES > most:
                raise _no_table_of_text(path, f"claims {facts.num_rows:,} rows in {size:,} bytes")
            # As a dictionary: a text that is stored once is in memory once, however many rows name it.
            stored.seek(0)
            with pq.ParquetFile(
                stored, metadata=facts, read_dictionary=[column], buffer_size=READ_BYTES
            ) as table:
                total = 0
                for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[column]):
                    cells = batch.column(0)
                    longest, size_of_all = _lengths(cells)
                    total += size_of_all + _ROW_BYTES * len(cells)
                    if longest > MAX_CELL_BYTES:
                        raise _no_table_of_text(path, f"has a text of {longest >> 20:,} MiB")
                    if total > most:
                        raise _no_table_of_text(path, f"expands more than {_BOMB_RATIO} times")
                    at_once = size_of_all <= _BOMB_BYTES
                    texts = cells.dictionary_decode().to_pylist() if at_once else (c.as_py() for c in cells)
                    for text in texts:
                        yield (text or "").encode("utf-8", "replace")
    except ByroteError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ByroteError(f"{path.name} cannot be read ({reason})", help="copy the file again") from None
    reading.on_bytes(path.stat().st_size)


def _lengths(column: Any) -> tuple[int, int]:
    """Bytes of the longest text of a column stored as a dictionary, and of the texts of all rows together."""
    import pyarrow.compute as pc

    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    found = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return int(found.max(initial=0)), int(found.sum())


def _no_table_of_text(path: Path, why: str) -> ByroteError:
    return ByroteError(f"{path.name} {why}: this is not text", help="unpack it and inspect it first")


def _text_column(path: Path, schema: Any, text_field: str) -> str:
    import pyarrow as pa

    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if text_field in texts:
        return text_field
    if len(texts) != 1:
        columns = ", ".join(schema.names[:8]) or "none"
        raise ByroteError(
            f"{path.name} has no column {text_field!r} (it has {columns})",
            help=did_you_mean(text_field, schema.names),
        )
    return texts[0]
