"""Steps that leave the path of the others and come back to it.

A step, or a few in a row, is further from the step before and the step after than those are from each other. Training
does not do that: along a straight path the ratio is 0.5, on a random walk 0.7, and 1 where weights only jitter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.lint.pace import labels, places, usual_length
from byrote.checkpoints.lint.report import Fact
from byrote.checkpoints.lint.trajectory import Trajectory

EXCURSION = 1.5
MIN_LENGTH = 1.2  # how much longer than the intervals around those into and out of a single step must be
EXCURSION_ALONE = 3.0  # where there are no intervals around
MAX_BLOCK = 16  # steps in a row
ROUNDINGS = 2.0  # distances below so many rounding errors say nothing
SAME_DIRECTION_ANGLES = 2.0  # the angle to the step before may be so many usual ones
SAME_DIRECTION_COSINE = 0.8


def excursion_facts(path: Trajectory, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Take out steps that are out of line, the furthest out first.

    Args:
        path: distances.
        chain: indices in the order of the weights.

    Returns:
        Facts, and the chain without those steps.
    """
    facts = []
    while len(chain) >= 3:
        distances = path.distances[np.ix_(chain, chain)]
        found = max(_singles(path, chain, distances), _blocks(distances, _rounding(path)))
        ratio, before, n_out = found
        if not ratio > 0:
            break
        after = before + n_out + 1
        facts.append(excursion(path, chain[before : after + 1], ratio=ratio))
        chain = chain[: before + 1] + chain[after:]
    return facts, chain


def _singles(
    path: Trajectory, chain: Sequence[int], distances: Float[np.ndarray, "n n"]
) -> tuple[float, int, int]:
    """The single step that is furthest out: (ratio, place before it, 1); ratio 0 where there is none."""
    lengths, across = np.diagonal(distances, 1), np.diagonal(distances, 2)
    out = np.minimum(lengths[:-1], lengths[1:]) / np.maximum(across, _rounding(path))
    best, steps = (0.0, 0, 1), places(path, chain)
    for k in np.flatnonzero(out > EXCURSION).tolist():
        usual = usual_length(lengths, steps, k, span=2)
        if usual is None:
            stands_out = out[k] > EXCURSION_ALONE
        else:
            stands_out = min(lengths[k], lengths[k + 1]) > MIN_LENGTH * usual
        if stands_out and out[k] > best[0]:
            best = (float(out[k]), k, 1)
    return best


def _blocks(distances: Float[np.ndarray, "n n"], rounding: float) -> tuple[float, int, int]:
    """The same for a few steps in a row, at most as many as are left around them."""
    best = (0.0, 0, 2)
    lengths = np.diagonal(distances, 1)
    for n_out in range(2, min(MAX_BLOCK, (len(distances) - 2) // 2) + 1):
        across = np.diagonal(distances, n_out + 1)
        ends = np.minimum(lengths[: len(across)], lengths[n_out:])
        ratio = np.nan_to_num(ends / np.maximum(across, rounding))
        k = int(np.argmax(ratio))
        if ratio[k] > max(EXCURSION, best[0]):
            best = (float(ratio[k]), k, n_out)
    return best


def excursion(path: Trajectory, row: list[int], *, ratio: float | None) -> Fact:
    """The fact that the steps between the first and the last of a row are out of line with those two."""
    before, *out, after = row
    steps = labels(path, out)
    cosine, usual = path.typical_cosine(before, out[0]), path.typical_cosine(before, after)
    evidence = {
        "times_neighbours_distance": ratio,
        "distance_before": float(path.distances[before, out[0]]),
        "distance_after": float(path.distances[out[-1], after]),
        "distance_neighbours": float(path.distances[before, after]),
        "cosine_before": cosine,
        "cosine_neighbours": usual,
        "norm_ratio": path.norm_ratio(out[0], before),
        "nearest_other_step": _nearest(path, out[0], without=set(row)),
    }
    kind = "out_of_line"
    meaning = "The weights come from another run or from a damaged file: training does not go there and back."
    if cosine >= SAME_DIRECTION_COSINE and _angle(cosine) <= max(SAME_DIRECTION_ANGLES * _angle(usual), 0.01):
        kind = "norm_out_of_line"
        meaning = "The weights were scaled, folded or saved by other code at these steps."
    return Fact(kind, "warning", steps, meaning, evidence, leave_out=steps)


def _angle(cosine: float) -> float:
    return math.acos(max(-1.0, min(1.0, cosine))) if math.isfinite(cosine) else math.pi


def _nearest(path: Trajectory, i: int, *, without: set[int]) -> int | None:
    row = [(d, j) for j, d in enumerate(path.distances[i].tolist()) if j not in without and math.isfinite(d)]
    return int(path.steps[min(row)[1]]) if row else None


def _rounding(path: Trajectory) -> float:
    """A distance of the whole model that rounding alone could make."""
    return ROUNDINGS * float(np.median(path.coarsest[path.typical]))
