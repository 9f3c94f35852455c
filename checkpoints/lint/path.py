"""The path of the weights: distances between steps, per tensor and for the whole model, and lengths of intervals.

Every distance is relative: divided by the tensor's usual norm. That of the whole model is the median over tensors, so it
is that of a typical tensor whatever happened to a minority of them; those are looked at one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.lint.scan import RESOLUTION, StepScan

MIN_NUMBERS = 16  # a tensor of fewer jitters too much to be judged alone
MIN_MATRIX_NUMBERS = 256
AROUND = 3  # intervals on each side that say what is usual here
JUMP_MADS = 6.0  # robust standard deviations above the chain's own scatter
_MAD_TO_SD = 1.4826


class WeightPath:
    """Where the weights are at each step, up to what the samples show.

    Args:
        scans: one per step, in step order, of one `Scanner`; their samples are taken over and not stored twice.

    Attributes:
        steps: optimiser steps, ascending.
        names: floating tensors, in name order.
        sizes: numbers in each of them, in the shape it has at most steps.
        sample: all sampled numbers of each step, tensor after tensor; NaN throughout a tensor that is not there, is not
            finite, or has another shape than usual.
        norms: Euclidean norm of each tensor over all its numbers; NaN likewise.
        coarsest: the largest relative rounding error each tensor is stored with at any step.
    """

    def __init__(self, scans: Sequence[StepScan]) -> None:
        shapes = _usual_shapes(scans)
        self.steps = np.array([scan.step for scan in scans], dtype=np.int64)
        self.names = tuple(shapes)
        self.sizes = np.array([math.prod(shape) for shape in shapes.values()], dtype=np.int64)
        self.is_matrix = np.array([len(shape) >= 2 for shape in shapes.values()], dtype=bool)
        self.coarsest = np.array([_coarsest(scans, name) for name in shapes], dtype=np.float64)
        sampled = [
            next(len(s.samples[n]) for s in scans if n in s.samples and s.tensors[n].shape == shapes[n])
            for n in shapes
        ]
        self.bounds = np.cumsum([0, *sampled])
        self.sample: Float[np.ndarray, "n_steps n_sampled"] = np.full(
            (len(scans), int(self.bounds[-1])), np.nan, dtype=np.float32
        )
        self.norms: Float[np.ndarray, "n_steps n_tensors"] = np.full((len(scans), len(shapes)), np.nan)
        for i, scan in enumerate(scans):
            for t, (name, shape) in enumerate(shapes.items()):
                if name in scan.samples and scan.tensors[name].shape == shape:
                    self.sample[i, self.bounds[t] : self.bounds[t + 1]] = scan.samples[name]
                    self.norms[i, t] = scan.norms[name]
            scan.samples.clear()

    def __len__(self) -> int:
        return len(self.steps)

    def labels(self, indices: Sequence[int]) -> tuple[int, ...]:
        """The steps at these indices, ascending, whatever order the weights are in."""
        return tuple(sorted(int(self.steps[i]) for i in indices))

    @cached_property
    def sampled(self) -> Int[np.ndarray, " n_tensors"]:
        """Numbers compared of each tensor."""
        return np.diff(self.bounds)

    @cached_property
    def scale(self) -> Float[np.ndarray, " n_tensors"]:
        """Usual norm of each tensor's sample: the median over steps where it is not zero; NaN where it always is."""
        squares = np.stack([self.per_tensor(np.square(row)) for row in self.sample])
        return nan_median(np.sqrt(np.where(squares > 0, squares, np.nan)), axis=0)

    @cached_property
    def moving(self) -> Bool[np.ndarray, " n_tensors"]:
        """Tensors that are not the same at all steps."""
        first = self.sample[0]
        moved = np.zeros(len(self.names), dtype=bool)
        for row in self.sample[1:]:
            moved |= self.per_tensor((row != first).astype(np.float32)) > 0
        return moved & np.isfinite(self.scale)

    @cached_property
    def typical(self) -> Bool[np.ndarray, " n_tensors"]:
        """Tensors the whole model's distance is the median over: moving matrices, or whatever moves."""
        matrices = self.moving & self.is_matrix & (self.sampled >= MIN_NUMBERS)
        return matrices if matrices.sum() >= 3 else self.moving

    def tensor_distances(
        self, i: int, others: Sequence[int] | Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, "k n_tensors"]:
        """Distance of each tensor at the i-th step to the same tensor at others; NaN where it cannot be compared."""
        rows = [self.per_tensor(np.square(self.sample[j] - self.sample[i])) for j in others]
        return np.sqrt(np.array(rows).reshape(len(rows), len(self.names))) / self.scale

    def cosines(self, i: int, j: int) -> Float[np.ndarray, " n_tensors"]:
        """Cosine between each tensor at two steps; NaN where one of them is zero or cannot be compared."""
        a, b = self.sample[i].astype(np.float64), self.sample[j].astype(np.float64)
        product = self.per_tensor(a * b)
        norms = np.sqrt(self.per_tensor(a * a) * self.per_tensor(b * b))
        return np.divide(product, norms, out=np.full_like(product, np.nan), where=norms > 0)

    @cached_property
    def distances(self) -> Float[np.ndarray, "n_steps n_steps"]:
        """Distance of the whole model between any two steps; NaN where nothing can be compared."""
        n = len(self)
        table = np.zeros((n, n))
        for i in range(n - 1):
            row = nan_median(self.tensor_distances(i, range(i + 1, n))[:, self.typical], axis=1)
            table[i, i + 1 :] = table[i + 1 :, i] = row
        comparable = np.isfinite(self.sample[:, self.bounds[:-1]])[:, self.typical].any(axis=1)
        np.fill_diagonal(table, np.where(comparable, 0.0, np.nan))
        return table

    def differing(self, i: int, j: int) -> Float[np.ndarray, " n_tensors"]:
        """How many numbers of each tensor differ between two steps, estimated from the sample."""
        share = self.per_tensor((self.sample[i] != self.sample[j]).astype(np.float64)) / self.sampled
        return share * self.sizes

    def typical_cosine(self, i: int, j: int) -> float:
        """Median cosine over the typical tensors."""
        return float(nan_median(self.cosines(i, j)[self.typical], axis=0))

    def norm_ratio(self, i: int, j: int) -> float:
        """Median over the typical tensors of the norm at the i-th step over that at the j-th."""
        a, b = self.norms[i, self.typical], self.norms[j, self.typical]
        return float(nan_median(np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0), axis=0))

    def per_tensor(self, values: Float[np.ndarray, " n_sampled"]) -> Float[np.ndarray, " n_tensors"]:
        """Sums over each tensor's sampled numbers."""
        if not len(self.names):
            return np.zeros(0)
        return np.add.reduceat(values, self.bounds[:-1]).astype(np.float64)


def nan_median(values: Float[np.ndarray, "*shape"], *, axis: int) -> Float[np.ndarray, "*rest"]:
    """Median of what is not NaN; NaN, without a warning, where nothing is left."""
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), np.nan)
    ordered = np.sort(values, axis=axis)  # NaN goes last
    count = np.isfinite(ordered).sum(axis=axis, keepdims=True)
    low, high = np.maximum((count - 1) // 2, 0), np.maximum(count // 2, 0)
    low, high = (np.minimum(k, values.shape[axis] - 1) for k in (low, high))
    middle = (np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis)) / 2
    return np.where(count > 0, middle, np.nan).squeeze(axis)


def usual_length(
    lengths: Float[np.ndarray, " n"], steps: Sequence[int], k: int, *, span: int = 1
) -> float | None:
    """How long intervals k..k+span-1 would be at the pace around them: the faster side's; None without any around.

    Another number of steps is scaled to theirs as on a straight path where that makes the length longer, and as on a
    random walk where that makes it shorter: what is called long then is so on either.
    """
    here = int(np.diff(steps[k : k + span + 1]).max())
    sides = []
    for side in (range(max(0, k - AROUND), k), range(k + span, min(len(lengths), k + span + AROUND))):
        scaled = []
        for j in side:
            times = here / max(1, steps[j + 1] - steps[j])
            scaled.append(lengths[j] * max(times, math.sqrt(times)))
        usual = float(nan_median(np.array(scaled), axis=0)) if scaled else math.nan
        if math.isfinite(usual):
            sides.append(usual)
    return max(sides, default=None)


def long_intervals(
    lengths: Float[np.ndarray, " n"], steps: Sequence[int], *, least: float, at_end: float
) -> dict[int, float]:
    """Intervals that are long for where they are -> how many times the usual length; never the first two.

    Args:
        lengths: of the intervals between `steps`.
        steps: ascending, one more than lengths.
        least: times the usual length an interval must have, and `JUMP_MADS` above the median of all such ratios.
        at_end: the same for the last interval, which has others on one side only.
    """
    usual = [usual_length(lengths, steps, k) for k in range(len(lengths))]
    times = np.array([math.nan if not u else length / u for length, u in zip(lengths, usual, strict=True)])
    logs = np.log(np.where(times > 0, times, np.nan))
    middle = float(nan_median(logs, axis=0))
    scatter = _MAD_TO_SD * float(nan_median(np.abs(logs - middle), axis=0))
    needed = max(math.log(least), middle + JUMP_MADS * scatter) if math.isfinite(scatter) else math.inf
    floor = [needed] * (len(lengths) - 1) + [max(needed, math.log(at_end))]
    return {k: float(times[k]) for k in range(2, len(lengths)) if logs[k] > floor[k]}


def out_of_line(
    lengths: Float[np.ndarray, " n"],
    across: Float[np.ndarray, " m"],
    steps: Sequence[int],
    *,
    ratio: float,
    length: float,
    alone: float,
    rounding: float,
) -> dict[int, float]:
    """Single steps further from both neighbours than those are from each other -> how many times, by the place before.

    Args:
        lengths: of the intervals between `steps`.
        across: of two intervals together, from each step to the second after it, one fewer.
        steps: ascending, one more than lengths.
        ratio: how many times as far a step must be from its nearer neighbour as the two are from each other.
        length: times the usual length both of its intervals must have.
        alone: the ratio that is needed where no intervals around say what is usual.
        rounding: distances below say nothing.
    """
    out = np.minimum(lengths[:-1], lengths[1:]) / np.maximum(across, rounding)
    found = {}
    for k in np.flatnonzero(out > ratio).tolist():
        usual = usual_length(lengths, steps, k, span=2)
        shorter = min(lengths[k], lengths[k + 1])
        if out[k] > alone if usual is None else shorter > length * usual:
            found[k] = float(out[k])
    return found


def _usual_shapes(scans: Sequence[StepScan]) -> dict[str, tuple[int, ...]]:
    """Tensors with a sample at some step, and the shape each has there most often."""
    seen: dict[str, Counter[tuple[int, ...]]] = {}
    for scan in scans:
        for name in scan.samples:
            seen.setdefault(name, Counter())[scan.tensors[name].shape] += 1
    return {name: seen[name].most_common(1)[0][0] for name in sorted(seen)}


def _coarsest(scans: Sequence[StepScan], name: str) -> float:
    stored = [scan.tensors[name].dtype for scan in scans if name in scan.tensors]
    return max(RESOLUTION.get(dtype, 1.0) for dtype in stored)
