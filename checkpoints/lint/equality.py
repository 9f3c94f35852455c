"""Weights that are the same, bit for bit, at more than one step: whole steps, shards, single tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from byrote.checkpoints.fingerprint import fingerprint
from byrote.checkpoints.lint.label import genuine
from byrote.checkpoints.lint.report import Fact
from byrote.checkpoints.lint.scan import StepScan
from byrote.checkpoints.lint.trajectory import MIN_NUMBERS, Trajectory, nan_median

EARLY_STEPS = (
    32  # so many first updates may be skipped (fp16 loss scaling) or have no effect (warm-up from zero)
)
USUALLY_CHANGED_FRAC = (
    0.2  # share of a tensor's numbers that change in the intervals beside one without change
)
UNCHANGED_RUNS = 3  # a tensor that stands still this often is slow, not swapped

TAKEN = "The tensors were taken from another step: this step is a mixture of two."


@dataclass
class Equal:
    """What equality found.

    Attributes:
        facts: to report.
        shadows: indices of steps that only repeat another's weights; later checks pass over them.
        foreign: (index, tensor index) of tensors that belong to another step.
    """

    facts: list[Fact] = field(default_factory=list)
    shadows: set[int] = field(default_factory=set)
    foreign: set[tuple[int, int]] = field(default_factory=set)


def equal_facts(path: Trajectory, scans: Sequence[StepScan]) -> Equal:
    """Find all steps and tensors that hold the same bytes as those of other steps."""
    found = Equal()
    _whole_steps(path, scans, found)
    _parts(path, scans, found)
    return found


def constant_tensors(scans: Sequence[StepScan]) -> set[str]:
    """Tensors with the same bytes at every step that has them: masks, frozen weights, buffers."""
    seen: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        for name, digest in scan.hashes.items():
            seen[name].add(digest)
    return {name for name, digests in seen.items() if len(digests) == 1}


def _whole_steps(path: Trajectory, scans: Sequence[StepScan], found: Equal) -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for i, scan in enumerate(scans):
        groups[fingerprint(scan.hashes)].append(i)
    for digest, members in groups.items():
        if len(members) > 1:
            found.facts.append(_identical(path, members, digest, found=found))


def _identical(path: Trajectory, members: list[int], digest: str, *, found: Equal) -> Fact:
    steps = [int(path.steps[i]) for i in members]
    evidence = {"n_steps": len(members), "fingerprint": digest}
    if members == list(range(len(members))) and steps[-1] <= EARLY_STEPS and len(members) < len(path):
        found.shadows.update(members[1:])
        meaning = "The first updates were skipped or had no effect (loss scaling, warm-up from zero)."
        return Fact("identical_steps", "note", tuple(steps), meaning, evidence)
    keep = genuine(members, path.steps.tolist(), lambda i, j: float(path.distances[i, j]))
    found.shadows.update(i for i in members if i != keep)
    last = len(path) - 1
    kind, meaning = "identical_steps", "One step was saved, copied or uploaded under several labels."
    if members[-1] == last and members[0] < last - 1:
        kind, meaning = "equals_final", "These labels serve the final weights: nothing changes along them."
        if keep not in (None, last):
            kind, meaning = (
                "final_equals_early",
                "The last label serves an early step: training seems undone.",
            )
    evidence["fits_step"] = None if keep is None else int(path.steps[keep])
    leave_out = tuple(s for s, i in zip(steps, members, strict=True) if i != keep)
    return Fact(kind, "error", tuple(steps), meaning, evidence, leave_out=leave_out)


def _parts(path: Trajectory, scans: Sequence[StepScan], found: Equal) -> None:
    """Tensors equal at some steps whose other tensors are not."""
    chain = [i for i in range(len(path)) if i not in found.shadows]
    constant = constant_tensors(scans)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    slow: dict[str, int] = defaultdict(int)
    for t, name in enumerate(path.names):
        if name in constant:
            continue
        groups: dict[str, list[int]] = defaultdict(list)
        for i in chain:
            if name in scans[i].hashes:
                groups[scans[i].hashes[name]].append(i)
        repeated = [g for g in groups.values() if len(g) > 1]
        is_slow = sum(_is_run(g, chain) for g in repeated) >= UNCHANGED_RUNS
        for members in repeated:
            if is_slow or _natural(path, members, t, chain=chain):
                slow[name] += len(members)
            else:
                alike[tuple(members)].append(t)
    for sharing, tensors in alike.items():
        found.facts += _mixtures(path, sharing, tensors, chain=chain, scans=scans, found=found)
    if slow or constant & set(path.names):
        found.facts.append(_unchanged(path, slow, constant & set(path.names)))


def _natural(path: Trajectory, members: list[int], t: int, *, chain: list[int]) -> bool:
    """Whether a tensor may well stand still at these steps: frozen at an end, or too slow for its type."""
    first, last = chain.index(members[0]), chain.index(members[-1])
    if _is_run(members, chain):
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


def _is_run(members: list[int], chain: list[int]) -> bool:
    """Whether no other step lies between them."""
    return chain.index(members[-1]) - chain.index(members[0]) + 1 == len(members)


def _mixtures(
    path: Trajectory,
    members: tuple[int, ...],
    tensors: list[int],
    *,
    chain: list[int],
    scans: Sequence[StepScan],
    found: Equal,
) -> list[Fact]:
    """Facts about tensors shared by some steps: which of those steps they belong to, which they were put into."""
    distance = _between(path, tensors)
    here = genuine(
        [chain.index(i) for i in members],
        [int(path.steps[i]) for i in chain],
        lambda a, b: distance(chain[a], chain[b]),
    )
    source = None if here is None else chain[here]
    suspects = [i for i in members if i != source]
    found.foreign.update((i, t) for i in suspects for t in tensors)
    names = tuple(path.names[t] for t in tensors)
    n_tensors = len(scans[members[0]].tensors)
    evidence: dict[str, Any] = {
        "n_tensors": len(names),
        "n_all": n_tensors,
        "fits_step": None if source is None else int(path.steps[source]),
    }
    files = _whole_files(scans[suspects[0]], set(names), _moving(path))
    kind = "shard_from_other_step" if files else "tensors_from_other_step"
    if files:
        evidence["files"] = files
    steps = tuple(int(path.steps[i]) for i in members)
    return [Fact(kind, "error", steps, TAKEN, evidence, names, tuple(int(path.steps[i]) for i in suspects))]


def _between(path: Trajectory, tensors: list[int]) -> Callable[[int, int], float]:
    def distance(i: int, j: int) -> float:
        return float(nan_median(path.tensor_distances(i, [j])[0, tensors], axis=0))

    return distance


def _whole_files(scan: StepScan, names: set[str], moving: set[str]) -> list[str]:
    """Files, of several, all of whose moving tensors are among the names."""
    files = sorted({info.file for info in scan.tensors.values()})
    if len(files) < 2:
        return []
    held = {f: {n for n, info in scan.tensors.items() if info.file == f and n in moving} for f in files}
    return [f for f in files if held[f] and held[f] <= names]


def _moving(path: Trajectory) -> set[str]:
    return {name for name, moves in zip(path.names, path.moving, strict=True) if moves}


def _unchanged(path: Trajectory, slow: dict[str, int], constant: set[str]) -> Fact:
    names = tuple(sorted({*slow, *constant}))
    evidence = {"n_never_change": len(constant), "n_stand_still_at_times": len(slow)}
    meaning = "Frozen, without a gradient, or moving less than their number type can hold."
    return Fact("unchanged_tensors", "note", tuple(path.steps.tolist()), meaning, evidence, names)
