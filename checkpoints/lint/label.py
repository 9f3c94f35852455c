"""When several labels hold the same weights: which label fits the steps around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Distance = Callable[[int, int], float]

GROWTH = 0.75  # exponent of distance over steps: 1 for a straight path, 0.5 for a random walk
MAX_MISFIT = 2.0  # a label that fits has less
EARLY = (
    3.0  # weights move this much faster before the first steps than after them, without anything being wrong
)
BETWEEN, AT_END = (
    0.8,
    0.5,
)  # share of the next best label's misfit that the best of neighbouring labels may have
_TINY = 1e-12


def genuine(members: Sequence[int], steps: Sequence[int], distance: Distance) -> int | None:
    """The one of several indices with equal weights whose label fits; None where that cannot be told.

    Args:
        members: indices into `steps` that hold the same weights, ascending.
        steps: labels, ascending.
        distance: between the weights at two indices.
    """
    others = [k for k in range(len(steps)) if k not in set(members)]
    runs: dict[tuple[int | None, int | None], list[int]] = {}
    for m in members:
        left = max((k for k in others if k < m), default=None)
        right = min((k for k in others if k > m), default=None)
        runs.setdefault((left, right), []).append(m)
    fits = (_fit(run, ends, steps=steps, others=others, distance=distance) for ends, run in runs.items())
    misfit, choice = min(fits, key=lambda fit: fit[0])
    return choice if misfit <= MAX_MISFIT else None


def _fit(
    run: list[int],
    ends: tuple[int | None, int | None],
    *,
    steps: Sequence[int],
    others: Sequence[int],
    distance: Distance,
) -> tuple[float, int | None]:
    """How badly a run of neighbouring labels fits between its ends (1 is well), and which of the run fits best."""
    left, right = ends
    g = run[0]
    if left is not None and right is not None:
        before, after, across = distance(left, g), distance(g, right), distance(left, right)
        share = before / max(before + after, _TINY)
        wanted = [_share(steps[m] - steps[left], steps[right] - steps[m]) for m in run]
        fitting = _nearest(run, [abs(w - share) for w in wanted], ratio=BETWEEN)
        return (before + after) / max(across, _TINY), fitting
    if left is not None:
        further = max((k for k in others if k < left), default=None)
        return _one_sided(run, left, further, steps=steps, distance=distance, faster=1.0)
    if right is not None:
        further = min((k for k in others if k > right), default=None)
        return _one_sided(run, right, further, steps=steps, distance=distance, faster=EARLY)
    return float("inf"), None


def _one_sided(
    run: list[int],
    near: int,
    further: int | None,
    *,
    steps: Sequence[int],
    distance: Distance,
    faster: float,
) -> tuple[float, int | None]:
    """The same at an end of the series, by how fast the weights move between the two steps nearest to it."""
    if further is None:
        return float("inf"), None
    speed, span = distance(further, near), abs(steps[near] - steps[further])
    there = max(distance(near, run[0]), _TINY)
    times = [there / (max(speed, _TINY) * (abs(steps[m] - steps[near]) / span) ** GROWTH) for m in run]
    # Weights that settle are nearer than the pace before lets expect; they may fit all the same.
    misfit = max(1.0, min(times) / faster)
    return misfit, _nearest(run, [max(t, 1 / t) for t in times], ratio=AT_END)


def _share(before: int, after: int) -> float:
    """How far along the way from left to right a label should be, 0 to 1."""
    return before**GROWTH / (before**GROWTH + after**GROWTH)


def _nearest(run: list[int], misses: list[float], *, ratio: float) -> int | None:
    """The label that misses least, where the next best misses at least 1/ratio times as much."""
    ranked = sorted(zip(misses, run, strict=True))
    if len(ranked) > 1 and ranked[0][0] > ratio * ranked[1][0]:
        return None
    return ranked[0][1]
