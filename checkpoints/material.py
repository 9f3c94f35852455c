"""Token sequences that belong to a series: real text, what it was trained on repeatedly, and fresh twins. No torch.

A lab series carries its own (`data/`). For other models the user gives files: lines of text with the model's tokenizer,
or token ids as .npy or .safetensors. Real text is read by `probes.natural_text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from checkpoints.errors import RoteError
from checkpoints.series import CheckpointSeries

MIN_SEQUENCE_TOKENS = 8  # of a text line; shorter ones would cut all others down to almost nothing
MIN_REPEATED_TOKENS = 4  # fewer tokens that happen to equal the first ones are no second block
N_CANDIDATES = 1024  # fresh sequences that members are ranked among

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
    """

    natural: Int[np.ndarray, "n width"] | None = None
    members: Int[np.ndarray, "p member_width"] | None = None
    repeat_count: Int[np.ndarray, " p"] | None = None
    twins: Int[np.ndarray, "q twin_width"] | None = None
    candidates: Int[np.ndarray, "r candidate_width"] | None = None
    reference: Reference | None = None
    reference_nll: Mapping[str, Float[np.ndarray, "_ _"]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


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
    from checkpoints.lab.known import fresh_sequences, source_nll, source_of

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
    members: Path | None = None,
    twins: Path | None = None,
) -> Material:
    """Add the user's members and twins to what the series carries.

    Args:
        base: what the series carries.
        tokenizer: the model's tokenizer.json; needed for text.
        bos: id put in front of every line.
        members: one sequence per line (or row, BOS first) that was trained on; `.safetensors` may hold `repeat_count`
            [n], else each counts as trained on once, and `reference_nll` [n, width], the loss in nats of each token
            under a model that never saw it.
        twins: the same, never trained on.

    Raises:
        RoteError: a file that cannot be read, or text without a tokenizer.
    """
    found = base
    for name, path in (("members", members), ("twins", twins)):
        if path is not None:
            found = _with_sequences(found, name, _sequences(path, tokenizer, bos), path.name)
    return found


def _with_sequences(base: Material, name: str, arrays: Mapping[str, np.ndarray], file_name: str) -> Material:
    """Members or twins replaced, and with them whatever was known of those they replace."""
    kept = {kind: nll for kind, nll in base.reference_nll.items() if kind != name}
    given = {name: arrays["reference_nll"]} if "reference_nll" in arrays else {}
    changes: dict[str, Any] = {
        name: arrays["tokens"],
        "reference_nll": kept | given,
        "sources": {**base.sources, name: file_name},
    }
    if name == "members":
        changes["repeat_count"] = arrays["repeat_count"]
    else:
        changes["candidates"] = None  # they were more of the twins that were replaced
    return replace(base, **changes)


def _sequences(path: Path, tokenizer: Path | None, bos: int) -> dict[str, np.ndarray]:
    """`tokens`, one sequence per row, cut to the shortest; `repeat_count`, 1 by default; `reference_nll` if given."""
    if path.suffix in (".npy", ".safetensors"):
        return _checked(_arrays(path), path)
    encode = _encoder(tokenizer, path)
    encoded = [[bos, *encode(line.strip())] for line in _lines(path) if line.strip()]
    if not encoded:
        raise RoteError(f"{path} holds no sequence", help="one sequence per line")
    width = min(len(row) for row in encoded)
    if width <= MIN_SEQUENCE_TOKENS:
        raise RoteError(
            f"the shortest line of {path.name} has {width - 1} tokens, and every sequence is cut to the shortest",
            help=f"leave out lines of fewer than {MIN_SEQUENCE_TOKENS + 1} tokens",
        )
    rows = np.asarray([row[:width] for row in encoded], dtype=np.int64)
    return {"tokens": rows, "repeat_count": np.ones(len(rows), dtype=np.int64)}


def _checked(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    rows = arrays["tokens"]
    if rows.ndim != 2 or rows.shape[1] < 2:
        shape = " x ".join(str(size) for size in rows.shape)
        raise RoteError(f"{path.name}: tokens are {shape}, not sequences", help="one row per sequence")
    found = {"repeat_count": np.ones(len(rows), dtype=np.int64), **arrays}
    for name, shape in (("repeat_count", rows.shape[:1]), ("reference_nll", rows.shape)):
        if name in found and found[name].shape != shape:
            raise RoteError(
                f"{path.name}: {name} has shape {found[name].shape}, not {shape}",
                help="repeat_count has one number per sequence, reference_nll one per token",
            )
    return found


def _encoder(tokenizer: Path | None, path: Path):
    if tokenizer is None or not tokenizer.is_file():
        raise RoteError(
            f"{path.name} is text and the model folder has no tokenizer.json",
            help="put the model's tokenizer.json beside the weights, or give token ids as .npy",
        )
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return lambda text: loaded.encode(text, add_special_tokens=False).ids


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise RoteError(f"{path} is no file", help="give a text file, or token ids as .npy or .safetensors")
    with path.open(encoding="utf-8", errors="replace") as lines:
        yield from lines


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """`tokens`, and what may come with them, of an id file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = (
            {"tokens": np.load(path, allow_pickle=False)} if path.suffix == ".npy" else dict(load_file(path))
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError, SafetensorError) as error:
        raise RoteError(
            f"{path} cannot be read ({error})", help="token ids as .npy, or .safetensors with `tokens`"
        ) from None
    if "tokens" not in found or not np.issubdtype(found["tokens"].dtype, np.integer):
        raise RoteError(
            f"{path.name} holds no integer array `tokens`", help="save token ids, one row per sequence"
        )
    kinds = {"tokens": np.int64, "repeat_count": np.int64, "reference_nll": np.float64}
    return {name: found[name].astype(kind) for name, kind in kinds.items() if name in found}
