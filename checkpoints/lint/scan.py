"""One pass over a step's weights: content hashes, norms, what is not finite, and a fixed sample of every tensor.

Files are mapped and read tensor by tensor in blocks, so that memory does not grow with the model. Distances between
any two steps are later taken from the samples: the same positions of the same tensors at every step.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Num

from checkpoints.fingerprint import tensor_hashes
from checkpoints.formats.safetensors_header import TensorEntry, read_header
from checkpoints.lint.decode import RESOLUTION, as_floats, words
from checkpoints.series import Checkpoint

MAX_SAMPLED_NUMBERS = 2**25  # over all steps: 128 MiB of float32
MAX_PER_TENSOR, MIN_PER_TENSOR = 4096, 64
_BLOCK = 2**20  # numbers decoded at once


@dataclass(frozen=True)
class Layout:
    """Names, types and shapes of one step's tensors, and which of its files each lies in."""

    entries: Mapping[str, TensorEntry]
    file_of: Mapping[str, str]


@dataclass(frozen=True)
class Sampling:
    """Which numbers of which tensors are compared: the same at every step.

    Attributes:
        names: floating tensors, in name order.
        shapes: the shape each has at most steps; a step where it differs is not compared there.
        positions: per tensor, flat positions, ascending.
        bounds: where each tensor's numbers begin in a step's sample, and the end.
        exact: whether every number of every tensor is compared.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    positions: tuple[Int[np.ndarray, " _"], ...]
    bounds: Int[np.ndarray, " n_bounds"]
    exact: bool


@dataclass
class StepScan:
    """What one pass over a step found.

    Attributes:
        hashes: content hash by tensor.
        sample: the numbers at the sampled positions; NaN throughout a tensor that cannot be compared here.
        norms: Euclidean norm of each sampled tensor, over all its numbers; NaN where it cannot be compared.
        non_finite: tensor -> (number of NaN, number of infinities), where there are any.
    """

    hashes: dict[str, str]
    sample: Float[np.ndarray, " n_sampled"]
    norms: Float[np.ndarray, " n_tensors"]
    non_finite: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_layout(checkpoint: Checkpoint) -> Layout:
    """Read the headers of a step's files.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    entries, file_of = {}, {}
    for file in checkpoint.files:
        for entry in read_header(file):
            entries[entry.name], file_of[entry.name] = entry, file.name
    return Layout(entries, file_of)


def plan_sampling(layouts: Sequence[Layout]) -> Sampling:
    """Choose positions for all floating tensors, equally many for each, within `MAX_SAMPLED_NUMBERS`."""
    shapes = _usual_shapes(layouts)
    budget = MAX_SAMPLED_NUMBERS // max(1, len(layouts)) // max(1, len(shapes))
    most = min(MAX_PER_TENSOR, max(MIN_PER_TENSOR, budget))
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()]
    positions = tuple(_positions(name, size, most) for name, size in zip(shapes, sizes, strict=True))
    bounds = np.cumsum([0, *(len(p) for p in positions)])
    return Sampling(
        tuple(shapes), tuple(shapes.values()), positions, bounds, exact=max(sizes, default=0) <= most
    )


def scan_step(checkpoint: Checkpoint, layout: Layout, sampling: Sampling) -> StepScan:
    """Hash and sample one step.

    Raises:
        CheckpointError: a file that changed, or is not what it claims to be.
    """
    scan = StepScan(
        tensor_hashes(checkpoint),
        np.full(int(sampling.bounds[-1]), np.nan, dtype=np.float32),
        np.full(len(sampling.names), np.nan),
    )
    index = {name: t for t, name in enumerate(sampling.names)}
    for file in checkpoint.files:
        held = [e for name, e in layout.entries.items() if layout.file_of[name] == file.name]
        for entry, stored in _mapped(file, held):
            _take(scan, entry, stored, sampling=sampling, t=index.get(entry.name))
    return scan


def _usual_shapes(layouts: Sequence[Layout]) -> dict[str, tuple[int, ...]]:
    """Floating tensors with at least one number, and the shape each has most often."""
    seen: dict[str, Counter[tuple[int, ...]]] = {}
    for layout in layouts:
        for name, entry in layout.entries.items():
            if entry.dtype in RESOLUTION and entry.end > entry.start:
                seen.setdefault(name, Counter())[entry.shape] += 1
    return {name: seen[name].most_common(1)[0][0] for name in sorted(seen)}


def _positions(name: str, size: int, most: int) -> Int[np.ndarray, " taken"]:
    """All positions of a small tensor, random ones (by its name) of a large one: a stride could follow a column."""
    if size <= most:
        return np.arange(size)
    generator = np.random.default_rng([zlib.crc32(name.encode()), size])
    return np.unique(generator.integers(0, size, most))


def _mapped(
    path: Path, entries: Sequence[TensorEntry]
) -> Iterator[tuple[TensorEntry, Num[np.ndarray, " n"]]]:
    """Floating tensors of a file as arrays over its mapped bytes."""
    mapped = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    for entry in entries:
        if entry.dtype in RESOLUTION and entry.end > entry.start:
            yield entry, words(mapped[entry.start : entry.end], entry.dtype)


def _take(
    scan: StepScan,
    entry: TensorEntry,
    stored: Num[np.ndarray, " n"],
    *,
    sampling: Sampling,
    t: int | None,
) -> None:
    """Add one tensor to a scan: counts over all its numbers, and the sample where it can be compared."""
    n_nan = n_inf = 0
    squares = 0.0
    for start in range(0, len(stored), _BLOCK):
        numbers = as_floats(stored[start : start + _BLOCK], entry.dtype)
        finite = np.isfinite(numbers)
        if not finite.all():
            nan = int(np.isnan(numbers).sum())
            n_nan, n_inf = n_nan + nan, n_inf + int((~finite).sum()) - nan
        else:
            with np.errstate(over="ignore"):
                squares += float(np.square(numbers, dtype=np.float64).sum())
    if n_nan or n_inf:
        scan.non_finite[entry.name] = (n_nan, n_inf)
    elif t is not None and entry.shape == sampling.shapes[t]:
        first, end = sampling.bounds[t], sampling.bounds[t + 1]
        with np.errstate(over="ignore"):
            taken = as_floats(stored[sampling.positions[t]], entry.dtype).astype(np.float32)
        if np.isfinite(taken).all():  # a float64 beyond float32 is not compared
            scan.sample[first:end] = taken
            scan.norms[t] = np.sqrt(squares)
