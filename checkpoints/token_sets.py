"""Token sequences that belong to a series: real text, what it was trained on repeatedly, and fresh twins. No torch.

A lab series carries its own (`data/`). For other models the user gives files: real text as `texts` reads it, cut into
windows; members and twins as one sequence per line, or .jsonl with its repeat count; or token ids as .npy or .safetensors.
Text needs the model's tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.checkpoints.texts import (
    FIELD,
    MAX_LINE_BYTES,
    Codes,
    Reading,
    find_files,
    hold_ids,
    json_texts,
    lines,
    refuse_binary,
    text_chunks,
    token_encoder,
)
from byrote.checkpoints.token_files import id_array, id_blocks
from byrote.checkpoints.tokenizing import open_tokenizer

MIN_SEQUENCE_TOKENS = 8  # of a text line; shorter ones would cut all others down to almost nothing
MIN_REPEATED_TOKENS = 4  # fewer tokens that happen to equal the first ones are no second block
N_CANDIDATES = 1024  # fresh sequences that members are ranked among
MAX_FILE_BYTES = 64 << 20  # of members or twins as text, which are read whole; a few hundred are drawn
MAX_TOKENS = (
    1 << 20
)  # of natural text; the rest of a longer one is not read: a stimulus draws a few dozen windows
MIN_WINDOWS, MIN_WINDOW_TOKENS = 8, 32
_NUMBERS = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"}

Reference = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TokenSets:
    """What stimuli of given tokens are drawn from; None where there is none.

    Attributes:
        natural: windows of real text, BOS first.
        natural_document: the document of each; None where each is one of its own.
        contexts: (windows, document of each) in the order that an earlier sweep showed them in.
        members: sequences that were trained on repeatedly, BOS first.
        repeat_count: how often each member was trained on.
        twins: fresh sequences of the members' source, never trained on.
        candidates: the twins and more like them; None where only the twins are known.
        words: pairs of ids that belong together, where the source is known to have any.
        labelled: draws the held-out split again with its labels (`lab.labels.Labelled`), where a lab series' manifest names a source that has them.
        reference: the source's own loss in nats of every token of [n, width] sequences, where the source is known.
        reference_nll: "members" or "twins" -> losses under a reference model, given with them; used before
            `reference`. NaN where there is none.
        sources: where each is from, for the report.
        notes: remarks for the reader on the user's own sequences.
    """

    natural: Int[np.ndarray, "n width"] | None = None
    natural_document: Int[np.ndarray, " n"] | None = None
    contexts: tuple[Int[np.ndarray, "k context_width"], Int[np.ndarray, " k"]] | None = None
    members: Int[np.ndarray, "p member_width"] | None = None
    repeat_count: Int[np.ndarray, " p"] | None = None
    twins: Int[np.ndarray, "q twin_width"] | None = None
    candidates: Int[np.ndarray, "r candidate_width"] | None = None
    words: Int[np.ndarray, "n_words 2"] | None = None
    labelled: Callable[[], Any] | None = None
    reference: Reference | None = None
    reference_nll: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NO_TOKEN_SETS = TokenSets()


def token_sets_of(series: CheckpointSeries) -> TokenSets:
    """What a series includes: a lab series' held-out split, members and twins.

    Raises:
        ByroteError: a file is not what the lab wrote, by the hashes in the manifest.
        OSError: one that the manifest lists is not there.
    """
    folder = series.path / "data"
    if series.format != "lab" or not folder.is_dir():
        return NO_TOKEN_SETS
    from byrote.checkpoints.lab.as_written import hash_in, read_as_written
    from byrote.checkpoints.lab.counterpart import pool_of_counterpart
    from byrote.checkpoints.lab.labels import labels_of

    found = []
    for name in ("held_out", "members", "twins"):
        file, expected = folder / f"{name}.safetensors", hash_in(series.manifest, f"data/{name}.safetensors")
        if expected is not None:
            read_as_written(file, expected)
        found.append(_arrays(file) if file.is_file() else {})
    held_out, members, twins = found
    members = members or pool_of_counterpart(series.manifest, width=twins["tokens"].shape[1] if twins else 0)
    return TokenSets(
        natural=held_out.get("tokens"),
        members=members.get("tokens"),
        repeat_count=members.get("repeat_count"),
        twins=twins.get("tokens"),
        **_known_source(series, twins.get("tokens")),
        labelled=labels_of(series.manifest, held_out.get("tokens")),
        sources={
            "natural": "the lab's held-out split",
            "members": "the lab's pool"
            if members.get("repeat_count", np.ones(1)).any()
            else "the pool of its repeated run",
            "twins": "the lab's twins",
        },
    )


def _known_source(series: CheckpointSeries, twins: np.ndarray | None) -> dict[str, Any]:
    """What can be said of sequences whose source is known: their loss under it, and more of them."""
    from byrote.checkpoints.lab.source import fresh_sequences, source_nll
    from byrote.checkpoints.lab.sources import SourceConfig, source_of

    source = source_of(series.manifest)
    if source is None or (twins is not None and twins.shape[1:] != (source.n_ctx,)):
        return {}  # a manifest that does not describe this data says nothing
    found: dict[str, Any] = {"words": source.words}
    if isinstance(source, SourceConfig):  # from the second block on the numbers of version 0.1 name none
        found["reference"] = lambda tokens: source_nll(source, tokens, starts_over(tokens))
    elif not source.no_floor:
        found["reference"] = source.floor_nll
    if twins is not None and len(twins) < N_CANDIDATES:
        more = fresh_sequences(
            source, seed=_seed_of(series.manifest), after=len(twins), n=N_CANDIDATES - len(twins)
        )
        found["candidates"] = np.concatenate([twins, more])
    return found


def _seed_of(manifest: Mapping[str, Any]) -> int:
    seed = manifest.get("seed")
    if type(seed) is not int or seed < 0:
        raise ByroteError("the series' manifest names no seed", help="restore it, or pass --twins FILE")
    return seed


def starts_over(tokens: Int[np.ndarray, "n width"]) -> Int[np.ndarray, " n"]:
    """Where each sequence begins to repeat itself to its end: from there on it can be copied, not only known.

    Args:
        tokens: BOS first, then a block that may come again and again, cut off anywhere.

    Returns:
        Index of the first token of the second block; `width` where the sequence does not repeat itself for its last
        `MIN_REPEATED_TOKENS` tokens or more.
    """
    n, width = tokens.shape
    start = np.full(n, width, dtype=np.int64)
    body = tokens[:, 1:]
    for period in range(1, width - MIN_REPEATED_TOKENS):
        head = slice(period, period + MIN_REPEATED_TOKENS)
        rows = np.flatnonzero(
            (start == width) & (body[:, head] == body[:, :MIN_REPEATED_TOKENS]).all(1)
        )  # most are settled by their first tokens
        start[rows[(body[rows, period:] == body[rows, :-period]).all(1)]] = 1 + period
    return start


def token_sets_from_files(
    base: TokenSets,
    *,
    tokenizer: Path | None,
    bos: int,
    n_ctx: int,
    members: Path | None = None,
    twins: Path | None = None,
) -> TokenSets:
    """Add the user's members and twins to what the series carries.

    Args:
        base: what the series carries.
        tokenizer: the model's tokenizer.json; needed for text.
        bos: id put in front of every line.
        n_ctx: the model's context; what is longer is cut to it.
        members: one sequence per line (or row, BOS first) that was trained on. `.jsonl` has it in `text`, and may have
            `repeat_count`; `.safetensors` may hold `repeat_count` [n], and `reference_nll` [n, width], the loss in nats
            of each token under a model that never saw it. Without counts each counts as trained on once.
        twins: the same, never trained on.

    Returns:
        Members, twins and candidates of one length, that of the shortest: later tokens have more before them and are
        predicted better, so that a difference in length alone would look like memory.

    Raises:
        ByroteError: a file that cannot be read, or text without a tokenizer.
    """
    found = base
    for name, path in (("members", members), ("twins", twins)):
        if path is not None:
            given = _sequences(path, tokenizer, bos, n_ctx)
            found = _with_sequences(found, name, given, path.name)
    return _without_overlap_unsaid(_of_one_length(found))


def _of_one_length(found: TokenSets) -> TokenSets:
    names = ("members", "twins", "candidates")
    widths = {name: rows.shape[1] for name in names if (rows := getattr(found, name)) is not None}
    least = min(widths.values(), default=0)
    if len(set(widths.values())) < 2:
        return found
    cut = {name: getattr(found, name)[:, :least] for name in widths}
    nll = {name: losses[:, :least] for name, losses in found.reference_nll.items()}
    lengths = ", ".join(f"{name} had {width - 1:,}" for name, width in widths.items())
    note = f"members and twins were cut to {least - 1:,} tokens after BOS, to be of one length ({lengths})"
    return replace(found, **cut, reference_nll=nll, notes=(*found.notes, note))


def _without_overlap_unsaid(found: TokenSets) -> TokenSets:
    """A twin that was trained on is no null."""
    if found.members is None or found.twins is None:
        return found
    known = {row.tobytes() for row in found.members}
    both = sum(row.tobytes() in known for row in found.twins)
    if not both:
        return found
    which = "1 of the twins is a member" if both == 1 else f"{both:,} of the twins are members"
    return replace(found, notes=(*found.notes, f"{which} too: twins must never have been trained on"))


def _with_sequences(base: TokenSets, name: str, given: _Given, file_name: str) -> TokenSets:
    """Members or twins replaced, and with them whatever was known of those they replace."""
    kept = {kind: nll for kind, nll in base.reference_nll.items() if kind != name}
    own = {name: given.reference_nll} if given.reference_nll is not None else {}
    changes: dict[str, Any] = {
        name: given.tokens,
        "reference_nll": kept | own,
        "sources": {**base.sources, name: file_name},
        "notes": (*base.notes, *(f"{name}: {note}" for note in given.notes)),
    }
    if name == "members":
        changes["repeat_count"] = given.repeat_count
    else:
        changes["candidates"] = None  # they were more of the twins that were replaced
    return replace(base, **changes)


@dataclass(frozen=True)
class _Given:
    """Sequences of one file, cut to the shortest."""

    tokens: Int[np.ndarray, "n width"]
    repeat_count: Int[np.ndarray, " n"]
    reference_nll: Float[np.ndarray, "n width"] | None = None
    notes: tuple[str, ...] = ()


def _sequences(path: Path, tokenizer: Path | None, bos: int, n_ctx: int) -> _Given:
    if not path.is_file():
        raise ByroteError(f"{path} is not a file", help="give a text file, or token ids: .npy, .safetensors")
    if hold_ids([path], path.name):
        return _checked(_arrays(path), path, n_ctx)
    needed = _needed(tokenizer, path)
    texts = list(_texts(path))
    if not texts:
        raise ByroteError(f"{path} holds no sequence", help="one sequence per line")
    with open_tokenizer(needed) as opened:
        ids = opened.encode([text for text, _ in texts])
    encoded = [np.asarray([bos, *row[:n_ctx]][:n_ctx], dtype=np.int64) for row in ids]
    least, most = (find(map(len, encoded)) for find in (min, max))
    if least <= MIN_SEQUENCE_TOKENS:
        raise ByroteError(
            f"the shortest line of {path.name} has {least - 1} tokens, and every sequence is cut to the shortest",
            help=f"leave out lines of fewer than {MIN_SEQUENCE_TOKENS + 1} tokens",
        )
    notes = (
        (f"{len(texts):,} sequences of {path.name} were cut to {least - 1:,} tokens, the length of the shortest "
         f"(the longest has {most - 1:,}{' or more' if most == n_ctx else ''})",)
        if most > least
        else ()
    )  # fmt: skip
    rows = np.stack([row[:least] for row in encoded])
    return _Given(rows, np.asarray([count for _, count in texts], dtype=np.int64), notes=notes)


def _checked(arrays: dict[str, np.ndarray], path: Path, n_ctx: int) -> _Given:
    rows = arrays["tokens"]
    if rows.ndim != 2 or rows.shape[1] < 2 or not len(rows):
        sizes = " x ".join(str(size) for size in rows.shape)
        raise ByroteError(f"{path.name}: tokens are {sizes}, not sequences", help="one row per sequence")
    found = {"repeat_count": np.ones(len(rows), dtype=np.int64), **arrays}
    if found["repeat_count"].min() < 0:
        raise ByroteError(f"{path.name}: repeat_count is negative", help="give how often each was trained on")
    nll = found["reference_nll"][:, :n_ctx] if "reference_nll" in found else None
    return _Given(rows[:, :n_ctx], found["repeat_count"], nll)


def _needed(tokenizer: Path | None, path: Path) -> Path:
    if tokenizer is None or not tokenizer.is_file():
        raise ByroteError(
            f"{path.name} is text and the model folder has no tokenizer.json",
            help="put the model's tokenizer.json beside the weights (save_pretrained of a fast tokenizer writes it), or give "
            "token ids as .npy or .safetensors",
        )
    return tokenizer


def _texts(path: Path) -> Iterator[tuple[str, int]]:
    """(text, times trained on) of every line that is not blank; .jsonl has them in `text` and `repeat_count`.

    Raises:
        ByroteError: the first line that is none: a member left out would be one never trained on.
    """

    def refuse(problem: str, help: str) -> None:
        raise ByroteError(f"{path.name}: {problem}", help=help)

    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        for number, line in enumerate(_bounded_lines(path), start=1):
            if line is None:
                refuse(f"line {number:,} is longer than {MAX_LINE_BYTES >> 20} MiB", "split it")
            text = (line or b"").decode("utf-8", "replace")
            text = (text.removeprefix("\ufeff") if number == 1 else text).strip()
            if text:
                yield text, 1
        return
    for number, stored, record in json_texts(_bounded_lines(path), FIELD, refuse):
        text, count = stored.decode().strip(), record.get("repeat_count", 1)
        if not text:
            refuse(f"line {number:,} has no text in a field {FIELD!r}", "leave it out")
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 1 << 62:
            refuse(f"line {number:,}: repeat_count is not a count", "give a whole number, from 0")
        yield text, count


def _bounded_lines(path: Path) -> Iterator[bytes | None]:
    """Lines, as `lines` gives them; no more than `MAX_FILE_BYTES` of them."""
    total, size = 0, path.stat().st_size
    for line in lines(path, Reading()):
        total += MAX_LINE_BYTES if line is None else len(line) + 1
        if max(total - 1, size) > MAX_FILE_BYTES:
            raise ByroteError(
                f"{path.name} has {max(total, size) >> 20:,} MiB; at most {MAX_FILE_BYTES >> 20} are read",
                help="a few hundred sequences are enough: give a sample of them",
            )
        if line is not None:
            refuse_binary(path, line)
        yield line


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """`tokens`, and what may come with them, of an id file; sizes are those of its header.

    Raises:
        ByroteError: too many, of another shape or kind, or not finite.
    """
    found = {"tokens": id_array(path)}
    if path.suffix != ".safetensors":
        return found
    from safetensors import safe_open

    from byrote.checkpoints.formats.safetensors_header import read_header

    tokens = found["tokens"]
    wanted = {"repeat_count": (tokens.shape[:1], np.int64), "reference_nll": (tokens.shape, np.float64)}
    for entry in read_header(path):
        if entry.name not in wanted:
            continue
        shape, kind = wanted[entry.name]
        if entry.shape != shape:
            raise ByroteError(
                f"{path.name}: {entry.name} has shape {entry.shape}, not {shape}",
                help="repeat_count has one number per sequence, reference_nll one per token",
            )
        if entry.dtype not in _NUMBERS:
            raise ByroteError(f"{path.name}: {entry.name} is {entry.dtype}", help="save float32 or integers")
        with safe_open(path, "np") as stored:
            values = stored.get_tensor(entry.name)
        if kind is np.int64 and not (np.isfinite(values) & (np.abs(values.astype(np.float64)) < 2**62)).all():
            raise ByroteError(f"{path.name}: repeat_count is not a count", help="give whole numbers, from 0")
        found[entry.name] = values.astype(kind)
    return found


@dataclass(frozen=True)
class Windows:
    """Windows of one text.

    Attributes:
        tokens: BOS first, all of one length.
        document: the document that each begins in, from 0.
        notes: remarks for the reader on how they were cut.
    """

    tokens: Int[np.ndarray, "n width"]
    document: Int[np.ndarray, " n"]
    notes: tuple[str, ...] = ()


def natural_windows(path: Path, *, tokenizer: Path | None, bos: int, width: int, wanted: int) -> Windows:
    """Cut a real text into windows.

    Windows lie within one document where enough documents are that long; else documents are joined, BOS between them;
    else windows are shorter, so that there are `MIN_WINDOWS`.

    Args:
        path: a file or a folder. A file of a name that `texts.ENDINGS` does not list is text.
        tokenizer: the model's tokenizer.json; not needed for token ids.
        bos: put in front of every window; what documents of ids already begin with is not doubled.
        width: tokens per window, BOS included.
        wanted: windows that will be drawn.

    Raises:
        ByroteError: no text, too little of it, a file that cannot be read, or text without a tokenizer.
    """
    reading, notes = Reading(), []
    documents, total = [], 0
    files = find_files(path, any_name=True)
    if hold_ids(files, path.name):
        blocks = id_blocks(files)
    else:
        blocks = _encoded(files, _needed(tokenizer, path), reading)
    for document in _documents(blocks):
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
    tokens, document, cut = _cut(documents, bos=bos, width=width, wanted=wanted, name=path.name)
    left_out = [f"{file}: {what}" for file, what in reading.files]
    return Windows(tokens, document, (*notes, *left_out, *cut))


def _encoded(files: Sequence[Path], tokenizer: Path, reading: Reading) -> Iterator[Codes]:
    """Texts as blocks of (ids, document of each)."""
    with token_encoder(tokenizer) as encode:
        for chunk in text_chunks(files, reading=reading):
            yield encode(chunk)


def _cut(
    documents: list[np.ndarray], *, bos: int, width: int, wanted: int, name: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    size = width - 1
    whole = [d[: len(d) // size * size].reshape(-1, size) for d in documents]
    count = sum(map(len, whole))
    document = np.repeat(np.arange(len(documents)), [len(d) for d in whole])
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
        whole, count = [joined[: MIN_WINDOWS * size].reshape(MIN_WINDOWS, size)], MIN_WINDOWS
        notes = [f"{name} is short: {MIN_WINDOWS} windows of {size + 1:,} tokens instead of {width:,}"]
    body = np.concatenate(whole)
    if notes:  # joined: the document that each window begins in
        begins = np.cumsum([0, *(len(d) + 1 for d in documents[:-1])])
        document = np.searchsorted(begins, np.arange(len(body)) * size, side="right") - 1
    return np.concatenate([np.full((len(body), 1), bos), body], axis=1).astype(np.int64), document, notes


def _documents(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Int[np.ndarray, " n"]]:
    """Documents of blocks of (ids, document of each), put together where they go on in the next block."""
    parts: list[np.ndarray] = []
    last = None
    for ids, document in blocks:
        starts = np.flatnonzero(np.diff(document, prepend=document[:1] - 1))
        for part, number in zip(np.split(ids, starts[1:]), document[starts], strict=True):
            # A document without end is handed on in parts: nobody reads more than that.
            if parts and (number != last or sum(map(len, parts)) >= MAX_TOKENS):
                yield np.concatenate(parts)
                parts = []
            parts.append(part.astype(np.int64))
            last = number
    if parts:
        yield np.concatenate(parts)
