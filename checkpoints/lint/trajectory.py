"""Distances between steps: of one tensor, and of the whole model as the median over tensors.

Every distance is relative: divided by the tensor's usual norm. The median over tensors is that of a typical tensor,
whatever happened to a minority of them; those are looked at one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.lint.decode import RESOLUTION
from byrote.checkpoints.lint.scan import StepScan

MIN_NUMBERS = 16  # a tensor of fewer jitters too much to be judged alone
MIN_MATRIX_NUMBERS = 256


class Trajectory:
    """Where the weights are at each step, up to what the samples show.

    Args:
        scans: one per step, in step order, of one `Scanner`; their samples are taken over and not kept twice.

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
        taken = [
            next(len(s.samples[n]) for s in scans if n in s.samples and s.tensors[n].shape == shapes[n])
            for n in shapes
        ]
        self.bounds = np.cumsum([0, *taken])
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

    @cached_property
    def sampled(self) -> Int[np.ndarray, " n_tensors"]:
        """Numbers compared of each tensor."""
        return np.diff(self.bounds)

    @cached_property
    def scale(self) -> Float[np.ndarray, " n_tensors"]:
        """Usual norm of each tensor's sample: the median over steps where it is not zero; NaN where it always is."""
        squares = np.stack([self._per_tensor(np.square(row)) for row in self.sample])
        norms = np.sqrt(np.where(squares > 0, squares, np.nan))
        return nan_median(norms, axis=0)

    @cached_property
    def moving(self) -> Bool[np.ndarray, " n_tensors"]:
        """Tensors that are not the same at all steps."""
        first = self.sample[0]
        moved = np.zeros(len(self.names), dtype=bool)
        for row in self.sample[1:]:
            moved |= self._per_tensor((row != first).astype(np.float32)) > 0
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
        rows = [self._per_tensor(np.square(self.sample[j] - self.sample[i])) for j in others]
        return np.sqrt(np.array(rows).reshape(len(rows), len(self.names))) / self.scale

    def cosines(self, i: int, j: int) -> Float[np.ndarray, " n_tensors"]:
        """Cosine between each tensor at two steps; NaN where one of them is zero or cannot be compared."""
        a, b = self.sample[i].astype(np.float64), self.sample[j].astype(np.float64)
        product = self._per_tensor(a * b)
        norms = np.sqrt(self._per_tensor(a * a) * self._per_tensor(b * b))
        return np.divide(product, norms, out=np.full_like(product, np.nan), where=norms > 0)

    @cached_property
    def distances(self) -> Float[np.ndarray, "n_steps n_steps"]:
        """Distance of the whole model between any two steps; NaN where nothing can be compared."""
        n = len(self)
        table = np.zeros((n, n))
        for i in range(n - 1):
            row = nan_median(self.tensor_distances(i, range(i + 1, n))[:, self.typical], axis=1)
            table[i, i + 1 :] = table[i + 1 :, i] = row
        comparable = self._per_tensor_finite()[:, self.typical].any(axis=1)
        np.fill_diagonal(table, np.where(comparable, 0.0, np.nan))
        return table

    def differing(self, i: int, j: int) -> Float[np.ndarray, " n_tensors"]:
        """How many numbers of each tensor differ between two steps, estimated from the sample."""
        share = self._per_tensor((self.sample[i] != self.sample[j]).astype(np.float64)) / self.sampled
        return share * self.sizes

    def typical_cosine(self, i: int, j: int) -> float:
        """Median cosine over the typical tensors."""
        return float(nan_median(self.cosines(i, j)[self.typical], axis=0))

    def norm_ratio(self, i: int, j: int) -> float:
        """Median over the typical tensors of the norm at the i-th step over that at the j-th."""
        a, b = self.norms[i, self.typical], self.norms[j, self.typical]
        return float(nan_median(np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0), axis=0))

    def _per_tensor(self, values: Float[np.ndarray, " n_sampled"]) -> Float[np.ndarray, " n_tensors"]:
        if not len(self.names):
            return np.zeros(0)
        return np.add.reduceat(values, self.bounds[:-1]).astype(np.float64)

    def _per_tensor_finite(self) -> Bool[np.ndarray, "n_steps n_tensors"]:
        return np.isfinite(self.sample[:, self.bounds[:-1]])


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
