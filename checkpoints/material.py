"""Token sequences that belong to a series: real text, what it was trained on repeatedly, and fresh twins. No torch.

A lab series carries its own (`data/`). For other models the user gives files: text with the model's tokenizer, one
sequence per line or as .jsonl with its repeat count, or token ids as .npy or .safetensors. Real text is read by
`byrote.probes.natural_text`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.checkpoints.vocabulary import load_tokenizer

MIN_SEQUENCE_TOKENS = 8  # of a text line; shorter ones would cut all others down to almost nothing
MIN_REPEATED_TOKENS = 4  # fewer tokens that happen to equal the first ones are no second block
N_CANDIDATES = 1024  # fresh sequences that members are ranked among
MAX_FILE_BYTES = 64 << 20  # of members or twins as text, which are held whole; a few hundred are drawn

Reference = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Material:
    """What stimuli of given tokens are drawn from; None where there is none.

    Attributes:
        natural: windows of real text, BOS first.
        members: sequences that were trained on repeatedly, BOS first.
        repeat_count: how often each member was trained on.
        twins: fresh sequences of the members' source, never trained on.
        candidates: the twins and more like them; None where only the twins are known.
        reference: the source's own loss in nats of every token of [n, width] sequences, where the source is known.
        reference_nll: "members" or "twins" -> losses under a reference model, given with them; used before
            `reference`. NaN where there is none.
        sources: what each came from, for the report.
        notes: what a reader must know of sequences that were given.
    """

    natural: Int[np.ndarray, "n width"] | None = None
    members: Int[np.ndarray, "p member_width"] | None = None
    repeat_count: Int[np.ndarray, " p"] | None = None
    twins: Int[np.ndarray, "q twin_width"] | None = None
    candidates: Int[np.ndarray, "r candidate_width"] | None = None
    reference: Reference | None = None
    reference_nll: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


NO_MATERIAL = Material()


def material_of(series: CheckpointSeries) -> Material:
    """What a series carries with it: a lab series' held-out split, members and twins."""
    folder = series.path / "data"
    if series.format != "lab" or not folder.is_dir():
        return NO_MATERIAL
    held_out, members, twins = (
        _arrays(file) if (file := folder / f"{name}.safetensors").is_file() else {}
        for name in ("held_out", "members", "twins")
    )
    return Material(
        natural=held_out.get("tokens"),
        members=members.get("tokens"),
        repeat_count=members.get("repeat_count"),
        twins=twins.get("tokens"),
        **_known_source(series, twins.get("tokens")),
        sources={
            "natural": "the lab's held-out split",
            "members": "the lab's pool",
            "twins": "the lab's twins",
        },
    )


def _known_source(series: CheckpointSeries, twins: np.ndarray | None) -> dict[str, Any]:
    """What can be said of sequences whose source is known: their loss under it, and more of them."""
    from byrote.checkpoints.lab.known import fresh_sequences, source_nll, source_of

    source = source_of(series.manifest)
    if source is None:
        return {}
    found: dict[str, Any] = {"reference": lambda tokens: source_nll(source, tokens, starts_over(tokens))}
    if twins is not None and len(twins) < N_CANDIDATES:
        more = fresh_sequences(
            source, seed=int(series.manifest["seed"]), after=len(twins), n=N_CANDIDATES - len(twins)
        )
        found["candidates"] = np.concatenate([twins, more])
    return found


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


def material_from_files(
    base: Material,
    *,
    tokenizer: Path | None,
    bos: int,
    n_ctx: int,
    members: Path | None = None,
    twins: Path | None = None,
) -> Material:
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


def _of_one_length(found: Material) -> Material:
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


def _without_overlap_unsaid(found: Material) -> Material:
    """A twin that was trained on is no null."""
    if found.members is None or found.twins is None:
        return found
    known = {row.tobytes() for row in found.members}
    both = sum(row.tobytes() in known for row in found.twins)
    if not both:
        return found
    which = "1 of the twins is a member" if both == 1 else f"{both:,} of the twins are members"
    return replace(found, notes=(*found.notes, f"{which} too: twins must never have been trained on"))


def _with_sequences(base: Material, name: str, given: _Given, file_name: str) -> Material:
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
    if path.suffix in (".npy", ".safetensors"):
        return _checked(_arrays(path), path, n_ctx)
    encode = _encoder(tokenizer, path)
    texts = list(_json_texts(path) if path.suffix == ".jsonl" else _line_texts(path))
    if not texts:
        raise ByroteError(f"{path} holds no sequence", help="one sequence per line")
    encoded = [np.asarray([bos, *encode(text)][:n_ctx], dtype=np.int64) for text, _ in texts]
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
        shape = " x ".join(str(size) for size in rows.shape)
        raise ByroteError(f"{path.name}: tokens are {shape}, not sequences", help="one row per sequence")
    found = {"repeat_count": np.ones(len(rows), dtype=np.int64), **arrays}
    for name, shape in (("repeat_count", rows.shape[:1]), ("reference_nll", rows.shape)):
        if name in found and found[name].shape != shape:
            raise ByroteError(
                f"{path.name}: {name} has shape {found[name].shape}, not {shape}",
                help="repeat_count has one number per sequence, reference_nll one per token",
            )
    if found["repeat_count"].min() < 0:
        raise ByroteError(f"{path.name}: repeat_count is negative", help="say how often each was trained on")
    nll = found["reference_nll"][:, :n_ctx] if "reference_nll" in found else None
    return _Given(rows[:, :n_ctx], found["repeat_count"], nll)


def _encoder(tokenizer: Path | None, path: Path) -> Callable[[str], list[int]]:
    if tokenizer is None or not tokenizer.is_file():
        raise ByroteError(
            f"{path.name} is text and the model folder has no tokenizer.json",
            help="put the model's tokenizer.json beside the weights, or give token ids as .npy",
        )
    loaded = load_tokenizer(tokenizer)
    return lambda text: loaded.encode(text, add_special_tokens=False).ids


def _line_texts(path: Path) -> Iterator[tuple[str, int]]:
    """Each line that is not blank, trained on once."""
    yield from ((line.strip(), 1) for _, line in _lines(path))


def _json_texts(path: Path) -> Iterator[tuple[str, int]]:
    """`text` and `repeat_count` of every line of a .jsonl."""
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        text, count = (
            (record.get("text"), record.get("repeat_count", 1)) if isinstance(record, dict) else ("", 1)
        )
        if not isinstance(text, str) or not text.strip():
            raise ByroteError(
                f"line {number:,} of {path.name} has no `text`",
                help='one object per line, such as {"text": "...", "repeat_count": 3}',
            )
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 1 << 62:
            raise ByroteError(
                f"line {number:,} of {path.name}: repeat_count is not a count",
                help="give a whole number, from 0",
            )
        yield text.encode("utf-8", "replace").decode().strip(), count  # half a surrogate pair is no text


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    """Lines that are not blank, numbered from 1."""
    if not path.is_file():
        raise ByroteError(f"{path} is no file", help="give a text file, or token ids as .npy or .safetensors")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ByroteError(
            f"{path.name} has {path.stat().st_size >> 20:,} MiB, and {MAX_FILE_BYTES >> 20} are read at the most",
            help="a few hundred sequences are enough: give a sample of them",
        )
    stored = path.read_bytes()
    if b"\0" in stored:
        raise ByroteError(
            f"{path.name} is not text: it holds NUL bytes",
            help="give UTF-8 text, or token ids as .npy or .safetensors",
        )
    lines = stored.decode("utf-8", errors="replace").removeprefix("\ufeff").split("\n")
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """`tokens`, and what may come with them, of an id file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = (
            {"tokens": np.load(path, allow_pickle=False)} if path.suffix == ".npy" else dict(load_file(path))
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError, SafetensorError) as error:
        raise ByroteError(
            f"{path} cannot be read ({error})", help="token ids as .npy, or .safetensors with `tokens`"
        ) from None
    if "tokens" not in found or not np.issubdtype(found["tokens"].dtype, np.integer):
        raise ByroteError(
            f"{path.name} holds no integer array `tokens`", help="save token ids, one row per sequence"
        )
    kinds = {"tokens": np.int64, "repeat_count": np.int64, "reference_nll": np.float64}
    return {name: found[name].astype(kind) for name, kind in kinds.items() if name in found}
