"""Token sequences that belong to a series: real text, what it was trained on repeatedly, and fresh twins. No torch.

A lab series carries its own (`data/`). For other models the user gives files: text with the model's tokenizer, or
token ids as .npy or .safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from checkpoints.errors import RoteError
from checkpoints.series import CheckpointSeries

WINDOW_TOKENS = 1024
MAX_TOKENS = 4_000_000  # more text than any stimulus draws from; the rest of a longer file is not read


@dataclass(frozen=True)
class Material:
    """What stimuli of given tokens are drawn from; None where there is none.

    Attributes:
        natural: windows of real text, BOS first.
        members: sequences that were trained on repeatedly, BOS first.
        repeat_count: how often each member was trained on.
        twins: fresh sequences of the members' source, never trained on.
        sources: what each came from, for the report.
    """

    natural: Int[np.ndarray, "n width"] | None = None
    members: Int[np.ndarray, "p width"] | None = None
    repeat_count: Int[np.ndarray, " p"] | None = None
    twins: Int[np.ndarray, "q width"] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


NO_MATERIAL = Material()


def material_of(series: CheckpointSeries) -> Material:
    """What a series carries with it: a lab series' held-out split, members and twins."""
    folder = series.path / "data"
    if series.format != "lab" or not folder.is_dir():
        return NO_MATERIAL
    from safetensors.numpy import load_file

    held_out, members, twins = (
        load_file(file) if (file := folder / f"{name}.safetensors").is_file() else {}
        for name in ("held_out", "members", "twins")
    )
    return Material(
        natural=held_out.get("tokens"),
        members=members.get("tokens"),
        repeat_count=members.get("repeat_count"),
        twins=twins.get("tokens"),
        sources={
            "natural": "the lab's held-out split",
            "members": "the lab's pool",
            "twins": "the lab's twins",
        },
    )


def material_from_files(
    base: Material,
    *,
    tokenizer: Path | None,
    bos: int,
    text: Path | None = None,
    members: Path | None = None,
    twins: Path | None = None,
) -> Material:
    """Add the user's files to what the series carries.

    Args:
        base: what the series carries.
        tokenizer: the model's tokenizer.json; needed for text.
        bos: id put in front of every window.
        text: a text file or folder, or token ids.
        members: one sequence per line (or row) that was trained on; `.safetensors` may hold `repeat_count`.
        twins: the same, never trained on.

    Raises:
        RoteError: a file that cannot be read, or text without a tokenizer.
    """
    found = base
    if text is not None:
        windows = _windows(_ids(text, tokenizer), bos)
        found = replace(found, natural=windows, sources={**found.sources, "natural": text.name})
    if members is not None:
        rows, counts = _sequences(members, tokenizer, bos)
        found = replace(
            found, members=rows, repeat_count=counts, sources={**found.sources, "members": members.name}
        )
    if twins is not None:
        rows, _ = _sequences(twins, tokenizer, bos)
        found = replace(found, twins=rows, sources={**found.sources, "twins": twins.name})
    return found


def _windows(ids: np.ndarray, bos: int) -> np.ndarray:
    width = WINDOW_TOKENS - 1
    count = len(ids) // width
    if not count:
        width, count = len(ids), 1
    if width < 2:
        raise RoteError("the text holds fewer than two tokens", help="give a longer text")
    body = ids[: count * width].reshape(count, width)
    return np.concatenate([np.full((count, 1), bos), body], axis=1)


def _ids(path: Path, tokenizer: Path | None) -> np.ndarray:
    """Token ids of a text file, a folder of them, or an id file; at most MAX_TOKENS."""
    if path.suffix in (".npy", ".safetensors"):
        return _arrays(path)["tokens"].reshape(-1)[:MAX_TOKENS]
    encode, ids = _encoder(tokenizer, path), []
    total = 0
    for line in _lines(path):
        ids.append(np.asarray(encode(line), dtype=np.int64))
        total += len(ids[-1])
        if total >= MAX_TOKENS:
            break
    if not total:
        raise RoteError(f"{path} holds no text", help="give a text file that is not empty")
    return np.concatenate(ids)[:MAX_TOKENS]


def _sequences(path: Path, tokenizer: Path | None, bos: int) -> tuple[np.ndarray, np.ndarray]:
    """One sequence per row, cut to the shortest; counts default to 1."""
    if path.suffix in (".npy", ".safetensors"):
        arrays = _arrays(path)
        rows = arrays["tokens"]
        if rows.ndim != 2:
            raise RoteError(f"{path.name}: tokens have {rows.ndim} axes, not 2", help="one row per sequence")
        return rows, arrays.get("repeat_count", np.ones(len(rows), dtype=np.int64))
    encode = _encoder(tokenizer, path)
    encoded = [[bos, *encode(line)] for line in _lines(path) if line.strip()]
    if not encoded:
        raise RoteError(f"{path} holds no sequence", help="one sequence per line")
    width = min(len(row) for row in encoded)
    rows = np.asarray([row[:width] for row in encoded], dtype=np.int64)
    return rows, np.ones(len(rows), dtype=np.int64)


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
    files = sorted(p for p in path.rglob("*.txt") if p.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise RoteError(
            f"{path} is no text file and holds none", help="give a .txt file, a folder of them, or .npy ids"
        )
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from lines


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npy":
            found = {"tokens": np.load(path, allow_pickle=False)}
        else:
            from safetensors.numpy import load_file

            found = load_file(path)
    except (OSError, ValueError) as error:
        raise RoteError(
            f"{path} cannot be read ({error})", help="token ids as .npy, or .safetensors with `tokens`"
        ) from None
    if "tokens" not in found or not np.issubdtype(found["tokens"].dtype, np.integer):
        raise RoteError(
            f"{path.name} holds no integer array `tokens`", help="save token ids, one row per sequence"
        )
    return {name: array.astype(np.int64) for name, array in found.items()}
