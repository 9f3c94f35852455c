"""Outliers on the path of the weights: swapped step labels, excursions that return, jumps that persist.

Every check takes a chain, the indices of steps in the order of the weights, and gives facts and the chain that is left for
the next check. Excursions: a step, or a few in a row, is further from the step before and the step after than those are
from each other. Training does not do that: along a straight path the ratio is 0.5, on a random walk 0.7, and 1 where
weights only jitter. Jumps, by two tests. Lengths: an interval is many times as long as those on both sides would be for as
many steps. Kinship: random matrices of n numbers have a cosine of 0 with standard deviation 1/sqrt(n) with anything that
did not grow from them, while a descendant of theirs resembles its start for a long time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.lint.path import (
    MIN_MATRIX_NUMBERS,
    MIN_NUMBERS,
    WeightPath,
    long_intervals,
    nan_median,
    out_of_line,
)
from byrote.checkpoints.lint.report import Fact, fact

MIN_GAIN = 1.25  # by which the path must get shorter: straight paths give 2, random walks 1.4, pure noise 1
MIN_GAIN_EACH = 1.15
MIN_GAIN_AT_END = 1.2  # the last interval is short where the learning rate has fallen
AROUND = 4  # exchanges on each side whose gain counts as usual here
MAX_SWAPS = 16

EXCURSION = 1.5
MIN_LENGTH = 1.2  # how much longer than the intervals around those into and out of a single step must be
EXCURSION_ALONE = 3.0  # where there are no intervals around
MAX_BLOCK = 16  # steps in a row
ROUNDINGS = 2.0  # distances below so many rounding errors say nothing
SAME_DIRECTION_ANGLES = 2.0  # the angle to the step before may be so many usual ones
SAME_DIRECTION_COSINE = 0.8

JUMP = 6.0  # times the usual length
JUMP_AT_END = 8.0  # where only one side can be seen
UNRELATED_SDS = 4.0  # standard deviations of the cosine between unrelated matrices
UNRELATED_FRAC = 0.8  # of the matrices must be that near to 0, and all of them together
CENTRED = 0.2  # mean over root mean square of a matrix that looks random
RELATED_COSINE = 0.5
LIKE_NORM = 1.5
SOON = 4  # times the next interval: so soon after its start no series has forgotten it

# Of single tensors: how many times as far out as its neighbours are apart, and as long as the intervals around. A few
# numbers jitter more than many.
TENSOR_EXCURSION, SMALL_TENSOR_EXCURSION = (1.75, 1.2), (6.0, 4.0)
TENSOR_JUMP = 10.0  # times the usual length
TENSOR_JUMP_SIZE = 0.5  # and relative to the tensor's norm


# --- exchanged labels: each step fits better where the other stands --------------------------------------------------


def swap_facts(path: WeightPath, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Find exchanged labels among the steps of a chain, ascending; the chain is then in the order the weights suggest."""
    facts: list[Fact] = []
    order = list(chain)
    for _ in range(MAX_SWAPS):
        d = path.distances[np.ix_(order, order)]
        found = [*_adjacent(d), *_distant(d)] if len(d) >= 4 else []
        if not found:
            break
        best = max(found, key=lambda exchange: exchange.shorter_by)
        steps = (int(path.steps[chain[best.p]]), int(path.steps[chain[best.q]]))
        order[best.p], order[best.q] = order[best.q], order[best.p]
        facts.append(fact("swapped_steps", steps, {"path_shorter": best.gain}, leave_out=steps))
    return facts, order


class _Exchange(NamedTuple):
    """Two places; the length of the edges concerned before over after; and by how much the path gets shorter."""

    p: int
    q: int
    gain: float
    shorter_by: float


def _adjacent(d: Float[np.ndarray, "n n"]) -> list[_Exchange]:
    """Clear exchanges of two neighbours: only the edges to the steps outside the pair count."""
    n = len(d)
    first = np.arange(n - 1)
    left, right = first > 0, first < n - 2
    outside = np.where(left, first - 1, 0), np.where(right, first + 2, 0)
    before = np.where(left, d[outside[0], first], 0), np.where(right, d[first + 1, outside[1]], 0)
    after = np.where(left, d[outside[0], first + 1], 0), np.where(right, d[first, outside[1]], 0)
    gain_left, gain_right = _ratio(before[0], after[0]), _ratio(before[1], after[1])
    gains = np.where(left & right, np.sqrt(gain_left * gain_right), np.where(left, gain_left, gain_right))
    each = np.minimum(np.where(left, gain_left, np.inf), np.where(right, gain_right, np.inf))
    found = []
    for p in np.flatnonzero(each > MIN_GAIN_EACH).tolist():
        nearby = np.r_[gains[max(0, p - AROUND) : max(0, p - 1)], gains[p + 2 : p + 2 + AROUND]]
        usual = float(nan_median(nearby, axis=0))
        # Weights that swing to and fro gain by every exchange: only what gains more than its surroundings counts.
        gain = float(gains[p]) / max(1.0, usual) if np.isfinite(usual) else 0.0
        if gain > (MIN_GAIN if left[p] and right[p] else MIN_GAIN_AT_END):
            shorter_by = float(sum(b[p] - a[p] for b, a in zip(before, after, strict=True)))
            found.append(_Exchange(p, p + 1, gain, shorter_by))
    return found


def _distant(d: Float[np.ndarray, "n n"]) -> list[_Exchange]:
    """The clear exchange of two steps that are not neighbours which shortens the path most, if there is one."""
    n = len(d)
    edges = np.vstack([np.zeros(n), d[:-1]]) + np.vstack([d[1:], np.zeros(n)])
    # edges[p, x]: how far weights x would be from the neighbours of place p, both together
    own = np.diag(edges)
    mean = edges / np.where(np.isin(np.arange(n), (0, n - 1)), 1.0, 2.0)[:, None]
    each = _ratio(np.broadcast_to(np.diag(mean), (n, n)), mean)  # what weights x gain by going to place p
    gain = _ratio(own[:, None] + own[None, :], edges + edges.T)
    clear = (np.minimum(each, each.T) > MIN_GAIN_EACH) & (gain > MIN_GAIN)
    clear &= np.abs(np.subtract.outer(np.arange(n), np.arange(n))) > 1
    if not clear.any():
        return []
    shorter_by = np.where(clear, own[:, None] + own[None, :] - edges - edges.T, -np.inf)
    p, q = np.unravel_index(np.argmax(shorter_by), shorter_by.shape)
    return [_Exchange(int(min(p, q)), int(max(p, q)), float(gain[p, q]), float(shorter_by[p, q]))]


def _ratio(a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """a / b; 1 where both are 0 or where either is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, np.asarray(a, dtype=float) / b)
    return np.where(np.isnan(ratio), 1.0, ratio)


# --- excursions: steps that leave the path and come back --------------------------------------------------------------


def excursion_facts(path: WeightPath, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Take out steps that are out of line, the furthest out first."""
    facts = []
    rounding = ROUNDINGS * float(np.median(path.coarsest[path.typical]))
    while len(chain) >= 3:
        distances = path.distances[np.ix_(chain, chain)]
        singles = out_of_line(
            np.diagonal(distances, 1),
            np.diagonal(distances, 2),
            path.labels(chain),
            ratio=EXCURSION,
            length=MIN_LENGTH,
            alone=EXCURSION_ALONE,
            rounding=rounding,
        )
        found = [(ratio, before, 1) for before, ratio in singles.items()] + _blocks(distances, rounding)
        if not found:
            break
        ratio, before, n_out = max(found, key=lambda one: (one[0], -one[1]))
        after = before + n_out + 1
        facts.append(_excursion(path, chain[before : after + 1], ratio=ratio))
        chain = chain[: before + 1] + chain[after:]
    return facts, chain


def _blocks(distances: Float[np.ndarray, "n n"], rounding: float) -> list[tuple[float, int, int]]:
    """A few steps in a row that are out of line: how far, the place before, how many; at most as many as are left."""
    found = []
    lengths = np.diagonal(distances, 1)
    for n_out in range(2, min(MAX_BLOCK, (len(distances) - 2) // 2) + 1):
        across = np.diagonal(distances, n_out + 1)
        ends = np.minimum(lengths[: len(across)], lengths[n_out:])
        ratio = np.nan_to_num(ends / np.maximum(across, rounding))
        k = int(np.argmax(ratio))
        if ratio[k] > EXCURSION:
            found.append((float(ratio[k]), k, n_out))
    return found


def _excursion(path: WeightPath, row: list[int], *, ratio: float | None) -> Fact:
    """The fact that the steps between the first and the last of a row are out of line with those two."""
    before, *out, after = row
    steps = path.labels(out)
    cosine, usual = path.typical_cosine(before, out[0]), path.typical_cosine(before, after)
    near = [
        (d, j) for j, d in enumerate(path.distances[out[0]].tolist()) if j not in row and math.isfinite(d)
    ]
    evidence = {
        "times_neighbours_distance": ratio,
        "distance_before": float(path.distances[before, out[0]]),
        "distance_after": float(path.distances[out[-1], after]),
        "distance_neighbours": float(path.distances[before, after]),
        "cosine_before": cosine,
        "cosine_neighbours": usual,
        "norm_ratio": path.norm_ratio(out[0], before),
        "nearest_other_step": int(path.steps[min(near)[1]]) if near else None,
    }
    widest = max(SAME_DIRECTION_ANGLES * _angle(usual), 0.01)
    scaled = cosine >= SAME_DIRECTION_COSINE and _angle(cosine) <= widest
    return fact("norm_out_of_line" if scaled else "out_of_line", steps, evidence, leave_out=steps)


def _angle(cosine: float) -> float:
    return math.acos(max(-1.0, min(1.0, cosine))) if math.isfinite(cosine) else math.pi


# --- jumps: the weights go on from somewhere else ---------------------------------------------------------------------


def jump_facts(path: WeightPath, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Find breaks in a chain without excursions: a foreign start, another run, an interval far too long.

    Steps that have nothing to do with the others, the first among them, are taken out of the chain.
    """
    if len(chain) < 3:
        return [], chain
    facts: list[Fact] = []
    kin = [_related(path, i, j) for i, j in pairwise(chain)]
    if sum(k is False for k in kin) > len(kin) / 2:
        cosines = [path.typical_cosine(i, j) for i, j in pairwise(chain)]
        evidence = {"cosine_median": float(np.median(cosines))}
        return [fact("unrelated_steps", path.labels(chain), evidence)], chain
    while (strangers := _strangers(path, chain, kin)) is not None:
        first, end = strangers
        facts.append(_excursion(path, chain[first - 1 : end + 1], ratio=None))
        chain = chain[:first] + chain[end:]
        kin = [_related(path, i, j) for i, j in pairwise(chain)]
    if start := _first_step(path, chain, kin):
        facts.append(start)
        chain, kin = chain[1:], kin[1:]
    lengths = np.array([path.distances[i, j] for i, j in pairwise(chain)])
    found = long_intervals(lengths, path.labels(chain), least=JUMP, at_end=JUMP_AT_END)
    for k, (before, after) in enumerate(pairwise(chain)):
        at_end = k == len(chain) - 2
        cosine, scale = path.typical_cosine(before, after), path.norm_ratio(after, before)
        # A restart of the learning rate makes less of a difference in one interval.
        unlike = not (cosine >= RELATED_COSINE and 1 / LIKE_NORM < scale < LIKE_NORM)
        broken = k > 0 and kin[k] is False and kin[k - 1] and (at_end or kin[k + 1])
        if broken or (k in found and (not at_end or unlike)):
            distance = float(path.distances[before, after])
            broken_by: dict[str, float | None] = {
                "times_usual": found.get(k),
                "distance": distance,
                "cosine": cosine,
                "norm_ratio": scale,
            }
            leave_out = (int(path.steps[after]),) if at_end else ()
            facts.append(fact("jump", path.labels([before, after]), broken_by, leave_out=leave_out))
    return facts, chain


def _strangers(path: WeightPath, chain: list[int], kin: list[bool | None]) -> tuple[int, int] | None:
    """A few steps in a row that have nothing to do with those around them, which are kin: their places [first, end)."""
    breaks = [k for k, related in enumerate(kin) if related is False]
    for a, b in combinations(breaks, 2):
        few = b - a <= min(MAX_BLOCK, (len(chain) - 2) // 2)
        if few and _related(path, chain[a], chain[b + 1]):
            return a + 1, b + 1
    return None


def _first_step(path: WeightPath, chain: list[int], kin: list[bool | None]) -> Fact | None:
    """A first step from which the others did not grow, while they did from each other."""
    cosines = [path.typical_cosine(i, j) for i, j in pairwise(chain[:3])]
    if kin[0] is not False or not kin[1] or not cosines[1] >= RELATED_COSINE:
        return None
    first, second, third = (int(path.steps[i]) for i in chain[:3])
    evidence = {"next_step": second, "cosine_to_next": cosines[0], "cosine_next_two": cosines[1]}
    if second - first <= SOON * (third - second):
        return fact("step0_not_ancestor", (first,), evidence, leave_out=(first,))
    meaning = "The series did not start from these weights, or had forgotten them by the next step."
    return fact("step0_not_ancestor", (first,), evidence, severity="note", meaning=meaning)


def _related(path: WeightPath, i: int, j: int) -> bool | None:
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


# --- single tensors, while the rest of the model is in line -----------------------------------------------------------


def tensor_facts(
    path: WeightPath, chain: list[int], *, foreign: set[tuple[int, int]], known: set[tuple[int, ...]]
) -> list[Fact]:
    """Excursions and jumps of single tensors, collected by step or interval.

    Args:
        path: distances.
        chain: indices of steps that are in line as a whole.
        foreign: (index, tensor index) known to belong to another step.
        known: pairs of steps between which the whole model is known to jump.
    """
    if len(chain) < 4:
        return []
    near = np.concatenate([path.tensor_distances(i, [j]) for i, j in pairwise(chain)])
    across = np.concatenate([path.tensor_distances(i, [j]) for i, j in zip(chain, chain[2:], strict=False)])
    steps = path.labels(chain)
    out: dict[int, list[tuple[float, int]]] = defaultdict(list)  # by place: (how far, tensor)
    jumps: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for t in np.flatnonzero(path.moving & (path.sampled >= MIN_NUMBERS)).tolist():
        lengths = near[:, t]
        large = path.sampled[t] >= MIN_MATRIX_NUMBERS
        ratio, length = TENSOR_EXCURSION if large else SMALL_TENSOR_EXCURSION
        rounding = ROUNDINGS * float(path.coarsest[t])
        excursions = out_of_line(
            lengths, across[:, t], steps, ratio=ratio, length=length, alone=math.inf, rounding=rounding
        )
        for k, times in excursions.items():
            if (chain[k + 1], t) not in foreign:
                out[k + 1].append((times, t))
        if not (lengths > TENSOR_JUMP_SIZE).any():
            continue
        explained = {k + s for k in excursions for s in (0, 1)}
        explained |= {k for k, pair in enumerate(pairwise(chain)) if any((i, t) in foreign for i in pair)}
        for k, times in long_intervals(lengths, steps, least=TENSOR_JUMP, at_end=TENSOR_JUMP).items():
            inside = lengths[k] > TENSOR_JUMP_SIZE and k < len(lengths) - 1  # with others on both sides
            if inside and k not in explained and path.labels(chain[k : k + 2]) not in known:
                jumps[k].append((times, t))
    facts = []
    for i, rows in sorted((chain[place], rows) for place, rows in out.items()):
        times, t = max(rows)
        usual_norm = float(nan_median(path.norms[:, t], axis=0))
        norm_ratio = float(path.norms[i, t]) / usual_norm if usual_norm > 0 else None
        evidence = {
            "n_tensors": len(rows),
            "worst": path.names[t],
            "times_neighbours_distance": times,
            "norm_ratio": norm_ratio,
        }
        step = path.labels([i])
        facts.append(fact("tensors_out_of_line", step, evidence, tensors=_names(path, rows), leave_out=step))
    for k, rows in sorted(jumps.items()):
        times, t = max(rows)
        evidence = {"n_tensors": len(rows), "worst": path.names[t], "times_usual": times}
        pair = path.labels(chain[k : k + 2])
        facts.append(fact("tensors_jump", pair, evidence, tensors=_names(path, rows)))
    return facts


def _names(path: WeightPath, rows: list[tuple[float, int]]) -> tuple[str, ...]:
    return tuple(sorted(path.names[t] for _, t in rows))
