"""Places where the weights go on from somewhere else: a foreign start, another run, an interval far too long.

Two tests. Lengths: an interval is many times as long as those on both sides would be for as many steps. Kinship: random
matrices of n numbers have a cosine of 0 with standard deviation 1/sqrt(n) with anything that did not grow from them,
while a descendant of theirs keeps a part of its start for a long time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from byrote.checkpoints.lint.excursions import MAX_BLOCK, excursion
from byrote.checkpoints.lint.pace import labels, long_intervals, places
from byrote.checkpoints.lint.report import Fact
from byrote.checkpoints.lint.trajectory import MIN_MATRIX_NUMBERS, Trajectory

JUMP = 6.0  # times the usual length
JUMP_AT_END = 8.0  # where only one side can be seen
UNRELATED_SDS = 4.0  # standard deviations of the cosine between unrelated matrices
UNRELATED_FRAC = 0.8  # of the matrices must be that near to 0, and all of them together
CENTRED = 0.2  # mean over root mean square of a matrix that looks random
RELATED_COSINE = 0.5
LIKE_NORM = 1.5
SOON = 4  # times the next interval: so soon after its start no series has forgotten it

RESTART = "Training restarted from other weights, another run goes on here, or steps in between are missing."


def jump_facts(path: Trajectory, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Find breaks in a chain without excursions.

    Args:
        path: distances.
        chain: indices in the order of the weights.

    Returns:
        Facts, and the chain without steps, the first among them, that have nothing to do with the others.
    """
    if len(chain) < 3:
        return [], chain
    facts: list[Fact] = []
    kin = [_related(path, i, j) for i, j in pairwise(chain)]
    if sum(k is False for k in kin) > len(kin) / 2:
        return [_unrelated(path, chain)], chain
    while (strangers := _strangers(path, chain, kin)) is not None:
        first, end = strangers
        facts.append(excursion(path, chain[first - 1 : end + 1], ratio=None))
        chain = chain[:first] + chain[end:]
        kin = [_related(path, i, j) for i, j in pairwise(chain)]
    start = _first_step(path, chain, kin)
    facts += start
    if start:
        chain, kin = chain[1:], kin[1:]
    lengths = np.array([path.distances[i, j] for i, j in pairwise(chain)])
    found = long_intervals(lengths, places(path, chain), least=JUMP, at_end=JUMP_AT_END)
    for k, (before, after) in enumerate(pairwise(chain)):
        at_end = k == len(chain) - 2
        broken = k > 0 and kin[k] is False and kin[k - 1] and (at_end or kin[k + 1])
        if broken or (k in found and (not at_end or _unlike(path, before, after))):
            facts.append(_jump(path, before, after, found.get(k), at_end=at_end))
    return facts, chain


def _strangers(path: Trajectory, chain: list[int], kin: list[bool | None]) -> tuple[int, int] | None:
    """A few steps in a row that have nothing to do with those around them, which are kin: their places [first, end)."""
    breaks = [k for k, related in enumerate(kin) if related is False]
    for a, b in combinations(breaks, 2):
        few = b - a <= min(MAX_BLOCK, (len(chain) - 2) // 2)
        if few and _related(path, chain[a], chain[b + 1]):
            return a + 1, b + 1
    return None


def _first_step(path: Trajectory, chain: list[int], kin: list[bool | None]) -> list[Fact]:
    """A first step from which the others did not grow, while they did from each other."""
    cosines = [path.typical_cosine(i, j) for i, j in pairwise(chain[:3])]
    if kin[0] is not False or not kin[1] or not cosines[1] >= RELATED_COSINE:
        return []
    first, second, third = (int(path.steps[i]) for i in chain[:3])
    evidence = {"next_step": second, "cosine_to_next": cosines[0], "cosine_next_two": cosines[1]}
    if second - first <= SOON * (third - second):
        meaning = "The series did not start from these weights: another initialisation, or another run's."
        return [Fact("step0_not_ancestor", "warning", (first,), meaning, evidence, leave_out=(first,))]
    meaning = "The series did not start from these weights, or had forgotten them by the next step."
    return [Fact("step0_not_ancestor", "note", (first,), meaning, evidence)]


def _unrelated(path: Trajectory, chain: list[int]) -> Fact:
    cosines = [path.typical_cosine(i, j) for i, j in pairwise(chain)]
    meaning = "The folder mixes runs, or the steps were trained from different starts."
    evidence = {"cosine_median": float(np.median(cosines))}
    return Fact("unrelated_steps", "warning", labels(path, chain), meaning, evidence)


def _related(path: Trajectory, i: int, j: int) -> bool | None:
    """Whether the random-looking matrices of two steps have to do with each other; None where there are too few."""
    first = path.bounds[:-1]
    mean = np.add.reduceat(path.sample[i], first) / path.sampled
    square = np.add.reduceat(np.square(path.sample[i]), first) / path.sampled
    usable = path.moving & path.is_matrix & (path.sampled >= MIN_MATRIX_NUMBERS)
    usable &= np.square(mean) < CENTRED**2 * square
    z = (path.cosines(i, j) * np.sqrt(path.sampled))[usable]
    z = z[np.isfinite(z)]
    if len(z) < 2:
        return None
    pooled = abs(float(z.sum())) / math.sqrt(len(z))
    return bool(pooled >= UNRELATED_SDS or np.mean(np.abs(z) < UNRELATED_SDS) < UNRELATED_FRAC)


def _unlike(path: Trajectory, before: int, after: int) -> bool:
    """Whether two steps differ by more than a restart of the learning rate makes in one interval."""
    cosine, scale = path.typical_cosine(before, after), path.norm_ratio(after, before)
    return not (cosine >= RELATED_COSINE and 1 / LIKE_NORM < scale < LIKE_NORM)


def _jump(path: Trajectory, before: int, after: int, times: float | None, *, at_end: bool) -> Fact:
    pair: Sequence[int] = (before, after)
    evidence = {
        "times_usual": times,
        "distance": float(path.distances[before, after]),
        "cosine": path.typical_cosine(before, after),
        "norm_ratio": path.norm_ratio(after, before),
    }
    leave_out = (int(path.steps[after]),) if at_end else ()
    return Fact("jump", "warning", labels(path, pair), RESTART, evidence, leave_out=leave_out)
