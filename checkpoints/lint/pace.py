"""How long the intervals of a chain of steps are, and how long they would be at the pace around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.lint.trajectory import Trajectory, nan_median

AROUND = 3  # intervals on each side that say what is usual here
JUMP_MADS = 6.0  # robust standard deviations above the chain's own scatter
_MAD_TO_SD = 1.4826


def labels(path: Trajectory, indices: Sequence[int]) -> tuple[int, ...]:
    """The steps at these indices, ascending."""
    return tuple(sorted(int(path.steps[i]) for i in indices))


def places(path: Trajectory, chain: Sequence[int]) -> Int[np.ndarray, " n_steps"]:
    """The step each place of a chain stands for, ascending, whatever order the weights are in."""
    return np.sort(path.steps[list(chain)])


def usual_length(
    lengths: Float[np.ndarray, " n"], steps: Int[np.ndarray, " n_steps"], k: int, *, span: int = 1
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
            times = here / max(1, int(steps[j + 1] - steps[j]))
            scaled.append(lengths[j] * max(times, math.sqrt(times)))
        usual = float(nan_median(np.array(scaled), axis=0)) if scaled else math.nan
        if math.isfinite(usual):
            sides.append(usual)
    return max(sides, default=None)


def long_intervals(
    lengths: Float[np.ndarray, " n"], steps: Int[np.ndarray, " n_steps"], *, least: float, at_end: float
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
