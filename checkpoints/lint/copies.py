"""Find bit-identical weights at more than one step: whole steps, shards, single tensors; and which step they belong to."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from byrote.checkpoints.fingerprint import fingerprint
from byrote.checkpoints.lint.path import MIN_NUMBERS, WeightPath, nan_median
from byrote.checkpoints.lint.report import Fact, fact
from byrote.checkpoints.lint.scan import StepScan

EARLY_STEPS = (
    32  # so many first updates may be skipped (fp16 loss scaling) or have no effect (warm-up from zero)
)
USUALLY_CHANGED_FRAC = (
    0.2  # share of a tensor's numbers that change in the intervals beside one without change
)
UNCHANGED_RUNS = 3  # a tensor that stands still this often is slow, not swapped

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


class Copies:
    """All steps and tensors that hold the same bytes as those of other steps.

    Args:
        path: distances.
        scans: of the same steps.

    Attributes:
        facts: to report.
        shadows: indices of steps that only repeat another's weights; later checks pass over them.
        foreign: (index, tensor index) of tensors that belong to another step.
    """

    def __init__(self, path: WeightPath, scans: Sequence[StepScan]) -> None:
        self.path, self.scans = path, scans
        self.facts: list[Fact] = []
        self.shadows: set[int] = set()
        self.foreign: set[tuple[int, int]] = set()
        steps: dict[str, list[int]] = defaultdict(list)
        for i, scan in enumerate(scans):
            steps[fingerprint(scan.hashes)].append(i)
        for digest, members in steps.items():
            if len(members) > 1:
                self._identical(members, digest)
        self.chain = [i for i in range(len(path)) if i not in self.shadows]
        self._parts()

    def _identical(self, members: list[int], digest: str) -> None:
        path, last = self.path, len(self.path) - 1
        steps = path.labels(members)
        evidence: dict[str, Any] = {"n_steps": len(members), "fingerprint": digest}
        if members == list(range(len(members))) and steps[-1] <= EARLY_STEPS and members[-1] < last:
            self.shadows.update(members[1:])
            meaning = "The first updates were skipped or had no effect (loss scaling, warm-up from zero)."
            self.facts.append(fact("identical_steps", steps, evidence, severity="note", meaning=meaning))
            return
        keep = genuine(members, path.steps.tolist(), lambda i, j: float(path.distances[i, j]))
        self.shadows.update(i for i in members if i != keep)
        kind = "identical_steps"
        if members[-1] == last and members[0] < last - 1:
            kind = "equals_final" if keep in (None, last) else "final_equals_early"
        evidence["fits_step"] = None if keep is None else int(path.steps[keep])
        leave_out = path.labels([i for i in members if i != keep])
        self.facts.append(fact(kind, steps, evidence, leave_out=leave_out))

    def _parts(self) -> None:
        """Tensors equal at some steps whose other tensors are not."""
        path = self.path
        constant = constant_tensors(self.scans)
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        slow: set[str] = set()
        for t, name in enumerate(path.names):
            if name in constant:
                continue
            groups: dict[str, list[int]] = defaultdict(list)
            for i in self.chain:
                if name in self.scans[i].hashes:
                    groups[self.scans[i].hashes[name]].append(i)
            repeated = [group for group in groups.values() if len(group) > 1]
            is_slow = sum(map(self._in_a_row, repeated)) >= UNCHANGED_RUNS
            for members in repeated:
                if is_slow or self._natural(members, t):
                    slow.add(name)
                else:
                    alike[tuple(members)].append(t)
        for members_alike, tensors in alike.items():
            self._mixture(members_alike, tensors)
        constant &= set(path.names)
        if slow or constant:
            evidence = {"n_never_change": len(constant), "n_stand_still_at_times": len(slow)}
            names = tuple(sorted(slow | constant))
            self.facts.append(fact("unchanged_tensors", tuple(path.steps.tolist()), evidence, tensors=names))

    def _natural(self, members: list[int], t: int) -> bool:
        """Whether a tensor may well stand still at these steps: frozen at an end, or too slow for its type."""
        path, chain = self.path, self.chain
        first, last = chain.index(members[0]), chain.index(members[-1])
        if self._in_a_row(members):
            if first == 0 or (last == len(chain) - 1 and len(members) > 2):
                return True  # frozen at first, without a gradient at first, or frozen from some step on
            beside = [(chain[first - 1], members[0])]
            if last < len(chain) - 1:
                beside.append((members[-1], chain[last + 1]))
            changes = min(float(path.differing(i, j)[t]) for i, j in beside)
            return not changes >= max(MIN_NUMBERS, USUALLY_CHANGED_FRAC * path.sizes[t])
        between = [i for i in chain[first : last + 1] if i not in members]
        if len(members) > max(2, len(between)):
            return True  # it stands still but for those between, which are out of line themselves
        return not max(float(path.differing(members[0], i)[t]) for i in between) >= MIN_NUMBERS

    def _in_a_row(self, members: list[int]) -> bool:
        """Whether no other step lies between them."""
        return self.chain.index(members[-1]) - self.chain.index(members[0]) + 1 == len(members)

    def _mixture(self, members: tuple[int, ...], tensors: list[int]) -> None:
        """The fact about tensors shared by some steps: to which of those they belong, into which they were put."""
        path, chain = self.path, self.chain

        def distance(a: int, b: int) -> float:
            return float(nan_median(path.tensor_distances(chain[a], [chain[b]])[0, tensors], axis=0))

        here = genuine([chain.index(i) for i in members], [int(path.steps[i]) for i in chain], distance)
        source = None if here is None else chain[here]
        suspects = [i for i in members if i != source]
        self.foreign.update((i, t) for i in suspects for t in tensors)
        names = tuple(path.names[t] for t in tensors)
        evidence: dict[str, Any] = {
            "n_tensors": len(names),
            "n_all": len(self.scans[members[0]].tensors),
            "fits_step": None if source is None else int(path.steps[source]),
        }
        kind = "tensors_from_other_step"
        if files := self._whole_files(self.scans[suspects[0]], set(names)):
            kind, evidence["files"] = "shard_from_other_step", files
        self.facts.append(
            fact(kind, path.labels(members), evidence, tensors=names, leave_out=path.labels(suspects))
        )

    def _whole_files(self, scan: StepScan, names: set[str]) -> list[str]:
        """Files, of several, all of whose moving tensors are among the names."""
        moving = {name for name, moves in zip(self.path.names, self.path.moving, strict=True) if moves}
        contents: dict[str, set[str]] = defaultdict(set)
        for name, info in scan.tensors.items():
            contents[info.file] |= {name} & moving
        whole = sorted(file for file, tensors in contents.items() if tensors and tensors <= names)
        return whole if len(contents) > 1 else []


def constant_tensors(scans: Sequence[StepScan]) -> set[str]:
    """Tensors with the same bytes at every step that has them, two at least: masks, frozen weights, buffers."""
    seen: dict[str, list[str]] = defaultdict(list)
    for scan in scans:
        for name, digest in scan.hashes.items():
            seen[name].append(digest)
    return {name for name, digests in seen.items() if len(digests) > 1 and len(set(digests)) == 1}


def genuine(
    members: Sequence[int], steps: Sequence[int], distance: Callable[[int, int], float]
) -> int | None:
    """The one of several indices with equal weights whose label fits the steps around; None where nothing says which.

    Args:
        members: indices into `steps` that hold the same weights, ascending.
        steps: labels, ascending.
        distance: between the weights at two indices.
    """
    others = [k for k in range(len(steps)) if k not in set(members)]
    runs: dict[int, list[int]] = defaultdict(
        list
    )  # members with no other step between them, by the place they share
    for m in members:
        runs[bisect_left(others, m)].append(m)
    fits = []
    for place, run in runs.items():
        before, after = others[:place], others[place:]
        if before and after:
            fits.append(_fit_between(run, before[-1], after[0], steps=steps, distance=distance))
        else:
            near = before[:-3:-1] or after[:2]
            faster = 1.0 if before else EARLY
            fits.append(_fit_at_end(run, near, steps=steps, distance=distance, faster=faster))
    misfit, choice = min(fits, key=lambda fit: fit[0])
    return choice if misfit <= MAX_MISFIT else None


def _fit_between(
    run: list[int], left: int, right: int, *, steps: Sequence[int], distance: Callable[[int, int], float]
) -> tuple[float, int | None]:
    """How badly a run of neighbouring labels fits between two steps (1 is well), and which of the run fits best."""
    before, after, across = distance(left, run[0]), distance(run[0], right), distance(left, right)
    share = before / max(before + after, _TINY)
    misses = []
    for m in run:  # how far along the way from left to right each label should be, 0 to 1
        a, b = (steps[m] - steps[left]) ** GROWTH, (steps[right] - steps[m]) ** GROWTH
        misses.append(abs(a / (a + b) - share))
    return (before + after) / max(across, _TINY), _clear_best(run, misses, ratio=BETWEEN)


def _fit_at_end(
    run: list[int],
    near: Sequence[int],
    *,
    steps: Sequence[int],
    distance: Callable[[int, int], float],
    faster: float,
) -> tuple[float, int | None]:
    """The same at an end of the series, by how fast the weights move between the two steps nearest to it."""
    if len(near) < 2:
        return math.inf, None
    speed, span = distance(near[1], near[0]), abs(steps[near[0]] - steps[near[1]])
    there = max(distance(near[0], run[0]), _TINY)
    times = [there / (max(speed, _TINY) * (abs(steps[m] - steps[near[0]]) / span) ** GROWTH) for m in run]
    # Weights that settle are nearer than the pace before lets expect; they may fit all the same.
    return max(1.0, min(times) / faster), _clear_best(run, [max(t, 1 / t) for t in times], ratio=AT_END)


def _clear_best(run: list[int], misses: list[float], *, ratio: float) -> int | None:
    """The label that misses least, where the next best misses at least 1/ratio times as much."""
    ranked = sorted(zip(misses, run, strict=True))
    if len(ranked) > 1 and ranked[0][0] > ratio * ranked[1][0]:
        return None
    return ranked[0][1]
