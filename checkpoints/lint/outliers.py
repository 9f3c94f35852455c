"""Steps and tensors that leave the path of the others: excursions that come back, and jumps that stay.

Both are judged against their surroundings only. An excursion is further from the steps before and after it than those
are from each other; a jump is longer than the intervals on both sides of it would be if they took as many steps.
Weights that move faster early, during warm-up, in a phase change or after a restart of the learning rate have fast
surroundings on at least one side and are neither.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from checkpoints.lint.report import Fact
from checkpoints.lint.trajectory import MIN_MATRIX_NUMBERS, MIN_NUMBERS, Trajectory, nan_median

AROUND = 3  # intervals on each side that say what is usual here
EXCURSION = (
    1.5  # how much further out than its neighbours are apart; straight paths 0.5, random walks 0.7, noise 1
)
EXCURSION_LENGTH = 2.0  # how much longer than the intervals around must the two intervals be
EXCURSION_ALONE = 3.0  # instead of both, where there are no intervals around
JUMP = 6.0  # how much longer than on either side
JUMP_AT_END = 8.0  # where only one side can be seen
JUMP_MADS = 6.0  # and how many robust standard deviations above the series' own scatter
TENSOR_EXCURSION, TENSOR_LENGTH = 6.0, 4.0
TENSOR_JUMP, TENSOR_JUMP_SIZE = 10.0, 0.5  # size: relative to the tensor's norm
ROUNDINGS = 2.0  # distances below so many rounding errors say nothing
UNRELATED_SDS = 4.0  # standard deviations of the cosine between unrelated random tensors
RELATED_COSINE = 0.5
LIKE_NORM = 1.5
_MAD_TO_SD = 1.4826


def outlier_facts(path: Trajectory, chain: list[int], *, foreign: set[tuple[int, int]]) -> list[Fact]:
    """Steps out of line, jumps, and single tensors out of line.

    Args:
        path: distances.
        chain: indices in the order of the weights, without those that only repeat another's weights.
        foreign: (index, tensor index) already known to belong elsewhere.
    """
    excursions, chain = _excursions(path, chain)
    jumps, chain = _jumps(path, chain)
    known = {fact.steps for fact in jumps}
    return [*excursions, *jumps, *_tensors(path, chain, foreign=foreign, known=known)]


def first_step_facts(path: Trajectory, chain: list[int]) -> list[Fact]:
    """A first step that is not where the others came from, or steps none of which has to do with the next."""
    if len(chain) < 3:
        return []
    related = [_related(path, i, j) for i, j in pairwise(chain)]
    cosines = [path.typical_cosine(i, j) for i, j in pairwise(chain)]
    steps = [int(path.steps[i]) for i in chain]
    if sum(r is False for r in related) > len(related) / 2:
        meaning = "The folder mixes runs, or the steps were trained from different starts."
        evidence = {"cosine_median": float(np.median(cosines))}
        return [Fact("unrelated_steps", "warning", tuple(steps), meaning, evidence)]
    if related[0] is not False or not related[1] or not cosines[1] >= RELATED_COSINE:
        return []
    evidence = {"cosine_to_next": cosines[0], "cosine_next_two": cosines[1], "next_step": steps[1]}
    soon = steps[1] - steps[0] <= 4 * (steps[2] - steps[1])
    meaning = "The series did not start from these weights: another initialisation, or another run's."
    if not soon:
        meaning = "The series did not start from these weights, or had forgotten them by the next step."
    leave_out = (steps[0],) if soon else ()
    severity = "warning" if soon else "note"
    return [Fact("step0_not_ancestor", severity, (steps[0],), meaning, evidence, leave_out=leave_out)]


def _related(path: Trajectory, i: int, j: int) -> bool | None:
    """Whether random-looking matrices of two steps have to do with each other; None where there are none.

    Unrelated random matrices of n numbers have a cosine of 0 with standard deviation 1/sqrt(n), also when one of
    them is trained: then their pooled cosine is small, and so are at least 8 of 10.
    """
    mean = np.add.reduceat(path.sample[i], path.bounds[:-1]) / path.sampled
    squares = np.add.reduceat(np.square(path.sample[i]), path.bounds[:-1]) / path.sampled
    centred = np.square(mean) < 0.04 * squares
    usable = path.moving & path.is_matrix & (path.sampled >= MIN_MATRIX_NUMBERS) & centred
    z = path.cosines(i, j) * np.sqrt(path.sampled)
    z = z[usable & np.isfinite(z)]
    if len(z) < 2:
        return None
    pooled = abs(float(z.sum())) / math.sqrt(len(z))
    return not (pooled < UNRELATED_SDS and np.mean(np.abs(z) < UNRELATED_SDS) >= 0.8)


def _excursions(path: Trajectory, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Take out steps that are further out than their neighbours are apart, the furthest first."""
    facts = []
    while len(chain) >= 3:
        lengths = _lengths(path, chain)
        across = np.array([path.distances[a, b] for a, b in zip(chain, chain[2:], strict=False)])
        out = np.minimum(lengths[:-1], lengths[1:]) / np.maximum(across, _rounding(path))
        places = _places(path, chain)
        usual = [_usual(lengths, places, k, span=2) for k in range(len(chain) - 2)]
        score = np.where(_stands_out(out, lengths, usual), out, 0)
        k = int(np.nanargmax(score))
        if not score[k] > 0:
            break
        before, here, after = chain[k : k + 3]
        facts.append(_excursion(path, before, [here], after, ratio=float(out[k])))
        chain = chain[: k + 1] + chain[k + 2 :]
    return facts, chain


def _stands_out(
    out: Float[np.ndarray, " n"], lengths: Float[np.ndarray, " m"], usual: Sequence[float | None]
) -> Bool[np.ndarray, " n"]:
    """Whether a step is out both against its neighbours and against the length of the intervals around."""
    longer = [
        math.inf if u is None else min(lengths[k], lengths[k + 1]) / max(u, 1e-12)
        for k, u in enumerate(usual)
    ]
    needed = [EXCURSION_ALONE if u is None else EXCURSION for u in usual]
    return (out > np.array(needed)) & (np.array(longer) > EXCURSION_LENGTH)


def _excursion(path: Trajectory, before: int, out: list[int], after: int, *, ratio: float) -> Fact:
    steps = _labels(path, out)
    cosine = path.typical_cosine(before, out[0])
    scale = path.norm_ratio(out[0], before)
    nearest = _nearest(path, out[0], {*out, before, after})
    evidence = {
        "times_neighbours_distance": ratio,
        "distance_before": float(path.distances[before, out[0]]),
        "distance_after": float(path.distances[out[-1], after]),
        "distance_neighbours": float(path.distances[before, after]),
        "cosine_before": cosine,
        "cosine_neighbours": path.typical_cosine(before, after),
        "norm_ratio": scale,
        "nearest_other_step": nearest,
    }
    # What is left of the distance once the step is brought to its neighbour's norm.
    without_scale = math.sqrt(max(0.0, 2 - 2 * cosine)) if math.isfinite(cosine) else math.inf
    if without_scale < 0.5 * float(path.distances[before, out[0]]):
        meaning = "The weights were scaled, folded or saved by other code at these steps."
        return Fact("norm_out_of_line", "warning", steps, meaning, evidence, leave_out=steps)
    meaning = "The weights come from another run or from a damaged file: training does not go there and back."
    return Fact("out_of_line", "warning", steps, meaning, evidence, leave_out=steps)


def _nearest(path: Trajectory, i: int, without: set[int]) -> int | None:
    row = [(d, j) for j, d in enumerate(path.distances[i].tolist()) if j not in without and math.isfinite(d)]
    return int(path.steps[min(row)[1]]) if row else None


def _jumps(path: Trajectory, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Intervals much longer than those on both sides; two of them around a few steps make those an excursion."""
    facts: list[Fact] = []
    while True:
        lengths = _lengths(path, chain)
        found = _long_intervals(lengths, _places(path, chain))
        block = next(((a, b) for a, b in pairwise(found) if _comes_back(path, chain, a, b)), None)
        if block is None:
            break
        a, b = block
        ratio = min(lengths[a], lengths[b]) / max(path.distances[chain[a], chain[b + 1]], _rounding(path))
        facts.append(_excursion(path, chain[a], chain[a + 1 : b + 1], chain[b + 1], ratio=float(ratio)))
        chain = chain[: a + 1] + chain[b + 1 :]
    for k, times in found.items():
        at_end = k == len(chain) - 2
        if not at_end or _unlike(path, chain[k], chain[k + 1]):
            facts.append(_jump(path, chain[k], chain[k + 1], times, at_end=at_end))
    return facts, chain


def _unlike(path: Trajectory, before: int, after: int) -> bool:
    """Whether two steps differ by more than a restart of the learning rate makes in one interval."""
    cosine, scale = path.typical_cosine(before, after), path.norm_ratio(after, before)
    return not (cosine >= RELATED_COSINE and 1 / LIKE_NORM < scale < LIKE_NORM)


def _comes_back(path: Trajectory, chain: list[int], a: int, b: int) -> bool:
    """Whether the steps between two long intervals are few, and those around them close to each other."""
    across = path.distances[chain[a], chain[b + 1]]
    out = min(path.distances[chain[a], chain[a + 1]], path.distances[chain[b], chain[b + 1]])
    return bool(2 * (b - a) < len(chain) and EXCURSION * across < out)


def _long_intervals(lengths: Float[np.ndarray, " n"], steps: Int[np.ndarray, " n_steps"]) -> dict[int, float]:
    """Intervals that are long for where they are -> how many times the usual length; never the first two."""
    usual = [_usual(lengths, steps, k) for k in range(len(lengths))]
    times = np.array([math.nan if not u else length / u for length, u in zip(lengths, usual, strict=True)])
    logs = np.log(np.where(times > 0, times, np.nan))
    middle = float(nan_median(logs, axis=0))
    scatter = _MAD_TO_SD * float(nan_median(np.abs(logs - middle), axis=0))
    needed = max(math.log(JUMP), middle + JUMP_MADS * scatter) if math.isfinite(scatter) else math.inf
    floor = [needed] * (len(lengths) - 1) + [max(needed, math.log(JUMP_AT_END))]
    return {k: float(times[k]) for k in range(2, len(lengths)) if logs[k] > floor[k]}


def _jump(path: Trajectory, before: int, after: int, times: float, *, at_end: bool) -> Fact:
    steps = _labels(path, (before, after))
    evidence = {
        "times_usual": times,
        "distance": float(path.distances[before, after]),
        "cosine": path.typical_cosine(before, after),
        "norm_ratio": path.norm_ratio(after, before),
    }
    meaning = (
        "Training restarted from other weights, another run goes on here, or steps in between are missing."
    )
    leave_out = (int(path.steps[after]),) if at_end else ()
    return Fact("jump", "warning", steps, meaning, evidence, leave_out=leave_out)


def _tensors(
    path: Trajectory,
    chain: list[int],
    *,
    foreign: set[tuple[int, int]],
    known: set[tuple[int, ...]],
) -> list[Fact]:
    """Single tensors out of line, collected by step, and single tensors that jump, by interval."""
    if len(chain) < 4:
        return []
    near = np.concatenate([path.tensor_distances(i, [j]) for i, j in pairwise(chain)])
    across = np.concatenate([path.tensor_distances(i, [j]) for i, j in zip(chain, chain[2:], strict=False)])
    places = _places(path, chain)
    out: dict[int, list[tuple[float, int]]] = defaultdict(list)
    jumps: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for t in np.flatnonzero(path.moving & (path.sampled >= MIN_NUMBERS)).tolist():
        floor = ROUNDINGS * path.coarsest[t]
        excursions = _tensor_excursions(near[:, t], across[:, t], places, floor=floor)
        for k, ratio in excursions.items():
            if (chain[k + 1], t) not in foreign:
                out[chain[k + 1]].append((ratio, t))
        explained = {k + s for k in excursions for s in (0, 1)}
        explained |= {k for k, pair in enumerate(pairwise(chain)) if any((i, t) in foreign for i in pair)}
        for k, times in _tensor_jumps(near[:, t], places).items():
            if k not in explained and _labels(path, chain[k : k + 2]) not in known:
                jumps[k].append((times, t))
    return [_tensor_fact(path, i, rows) for i, rows in sorted(out.items())] + [
        _tensor_jump(path, chain[k : k + 2], rows) for k, rows in sorted(jumps.items())
    ]


def _tensor_jumps(near: Float[np.ndarray, " n"], steps: Int[np.ndarray, " n_steps"]) -> dict[int, float]:
    """Intervals, with others on both sides, in which a tensor goes far -> how many times the usual length."""
    if not (near > TENSOR_JUMP_SIZE).any():
        return {}
    found = _long_intervals(near, steps)
    return {
        k: times
        for k, times in found.items()
        if times > TENSOR_JUMP and near[k] > TENSOR_JUMP_SIZE and k < len(near) - 1
    }


def _tensor_excursions(
    near: Float[np.ndarray, " n"],
    across: Float[np.ndarray, " m"],
    steps: Int[np.ndarray, " n_steps"],
    *,
    floor: float,
) -> dict[int, float]:
    """k -> how far out the tensor is at place k + 1 of the chain."""
    ratio = np.minimum(near[:-1], near[1:]) / np.maximum(across, floor)
    found = {}
    for k in np.flatnonzero(ratio > TENSOR_EXCURSION):
        usual = _usual(near, steps, int(k), span=2)
        if usual is not None and min(near[k], near[k + 1]) > TENSOR_LENGTH * usual:
            found[int(k)] = float(ratio[k])
    return found


def _tensor_fact(path: Trajectory, i: int, rows: list[tuple[float, int]]) -> Fact:
    step = int(path.steps[i])
    worst, t = max(rows)
    evidence = {"n_tensors": len(rows), "worst": path.names[t], "times_neighbours_distance": worst}
    evidence["norm_ratio"] = float(path.norms[i, t] / nan_median(path.norms[:, t], axis=0))
    meaning = (
        "These tensors were damaged, flipped, scaled or taken from elsewhere; the rest of the step was not."
    )
    names = tuple(sorted(path.names[t] for _, t in rows))
    return Fact("tensors_out_of_line", "warning", (step,), meaning, evidence, names, (step,))


def _tensor_jump(path: Trajectory, pair: list[int], rows: list[tuple[float, int]]) -> Fact:
    steps = _labels(path, pair)
    times, t = max(rows)
    evidence = {"n_tensors": len(rows), "worst": path.names[t], "times_usual": times}
    meaning = (
        "These tensors were re-initialised, re-ordered or first trained here; the rest went on as before."
    )
    names = tuple(sorted(path.names[t] for _, t in rows))
    return Fact("tensors_jump", "warning", steps, meaning, evidence, names)


def _lengths(path: Trajectory, chain: Sequence[int]) -> Float[np.ndarray, " n"]:
    return np.array([path.distances[a, b] for a, b in pairwise(chain)])


def _usual(
    lengths: Float[np.ndarray, " n"], steps: Int[np.ndarray, " n_steps"], k: int, *, span: int = 1
) -> float | None:
    """How long intervals k..k+span-1 would be at the pace around them: the faster side's; None without any around.

    An interval of another number of steps is scaled to this one's, along a straight path where that makes it longer and
    along a random walk where that makes it shorter.
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


def _labels(path: Trajectory, indices: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(int(path.steps[i]) for i in indices))


def _places(path: Trajectory, chain: Sequence[int]) -> Int[np.ndarray, " n_steps"]:
    """The step each place of a chain stands for, ascending, whatever order the weights are in."""
    return np.sort(path.steps[chain])


def _rounding(path: Trajectory) -> float:
    """A distance of the whole model that rounding alone could make."""
    coarse = path.coarsest[path.typical]
    return ROUNDINGS * float(np.median(coarse))
