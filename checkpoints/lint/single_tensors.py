"""Single tensors that leave the path of the same tensor at the steps around, while the rest of the model does not."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.lint.excursions import ROUNDINGS
from byrote.checkpoints.lint.pace import labels, long_intervals, places, usual_length
from byrote.checkpoints.lint.report import Fact
from byrote.checkpoints.lint.trajectory import MIN_MATRIX_NUMBERS, MIN_NUMBERS, Trajectory, nan_median

# (times as far out as its neighbours are apart, times as long as the intervals around): a few numbers jitter more.
LARGE, SMALL = (1.75, 1.2), (6.0, 4.0)
JUMP = 10.0  # times the usual length
JUMP_SIZE = 0.5  # and relative to the tensor's norm

Rows = list[tuple[float, int]]


def tensor_outliers(
    path: Trajectory, chain: list[int], *, foreign: set[tuple[int, int]], known: set[tuple[int, ...]]
) -> list[Fact]:
    """Facts about single tensors, collected by step or interval.

    Args:
        path: distances.
        chain: indices of steps that are in line as a whole, in the order of the weights.
        foreign: (index, tensor index) known to belong to another step.
        known: pairs of steps between which the whole model is known to jump.
    """
    if len(chain) < 4:
        return []
    near = np.concatenate([path.tensor_distances(i, [j]) for i, j in pairwise(chain)])
    across = np.concatenate([path.tensor_distances(i, [j]) for i, j in zip(chain, chain[2:], strict=False)])
    steps = places(path, chain)
    out: dict[int, Rows] = defaultdict(list)
    jumps: dict[int, Rows] = defaultdict(list)
    for t in np.flatnonzero(path.moving & (path.sampled >= MIN_NUMBERS)).tolist():
        rounding = ROUNDINGS * float(path.coarsest[t])
        needed = LARGE if path.sampled[t] >= MIN_MATRIX_NUMBERS else SMALL
        excursions = _excursions(near[:, t], across[:, t], steps, needed=needed, rounding=rounding)
        for k, ratio in excursions.items():
            if (chain[k + 1], t) not in foreign:
                out[chain[k + 1]].append((ratio, t))
        explained = {k + s for k in excursions for s in (0, 1)}
        explained |= {k for k, pair in enumerate(pairwise(chain)) if any((i, t) in foreign for i in pair)}
        for k, times in _jumps(near[:, t], steps).items():
            if k not in explained and labels(path, chain[k : k + 2]) not in known:
                jumps[k].append((times, t))
    return [_out_of_line(path, i, rows) for i, rows in sorted(out.items())] + [
        _jump(path, chain[k : k + 2], rows) for k, rows in sorted(jumps.items())
    ]


def _excursions(
    near: Float[np.ndarray, " n"],
    across: Float[np.ndarray, " m"],
    steps: Int[np.ndarray, " n_steps"],
    *,
    needed: tuple[float, float],
    rounding: float,
) -> dict[int, float]:
    """k -> how far out the tensor is at place k + 1 of the chain."""
    ratio = np.minimum(near[:-1], near[1:]) / np.maximum(across, rounding)
    found = {}
    for k in np.flatnonzero(ratio > needed[0]).tolist():
        usual = usual_length(near, steps, k, span=2)
        if usual is not None and min(near[k], near[k + 1]) > needed[1] * usual:
            found[k] = float(ratio[k])
    return found


def _jumps(near: Float[np.ndarray, " n"], steps: Int[np.ndarray, " n_steps"]) -> dict[int, float]:
    """Intervals, with others on both sides, in which a tensor goes far -> how many times the usual length."""
    if not (near > JUMP_SIZE).any():
        return {}
    found = long_intervals(near, steps, least=JUMP, at_end=JUMP)
    return {k: times for k, times in found.items() if near[k] > JUMP_SIZE and k < len(near) - 1}


def _out_of_line(path: Trajectory, i: int, rows: Rows) -> Fact:
    step = int(path.steps[i])
    worst, t = max(rows)
    usual_norm = float(nan_median(path.norms[:, t], axis=0))
    evidence = {
        "n_tensors": len(rows),
        "worst": path.names[t],
        "times_neighbours_distance": worst,
        "norm_ratio": float(path.norms[i, t]) / usual_norm if usual_norm > 0 else None,
    }
    meaning = (
        "These tensors were damaged, flipped, scaled or taken from elsewhere; the rest of the step was not."
    )
    names = tuple(sorted(path.names[t] for _, t in rows))
    return Fact("tensors_out_of_line", "warning", (step,), meaning, evidence, names, (step,))


def _jump(path: Trajectory, pair: list[int], rows: Rows) -> Fact:
    times, t = max(rows)
    evidence = {"n_tensors": len(rows), "worst": path.names[t], "times_usual": times}
    meaning = (
        "These tensors were re-initialised, re-ordered or first trained here; the rest went on as before."
    )
    names = tuple(sorted(path.names[t] for _, t in rows))
    return Fact("tensors_jump", "warning", labels(path, pair), meaning, evidence, names)
