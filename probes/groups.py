"""Groups of runs: an arm and its training seeds. No torch.

A comparison of two runs says what differs between these two. What is said of an arm needs several runs of it that differ
in nothing but their seeds; which runs those are is declared (`byrote.probes.results.run_facts`) or named by the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results.opened import accepts_paths
from byrote.probes.results.table import Table
from byrote.probes.results.unit_files import unit_paths, unit_provenance
from byrote.probes.rules import MIN_SEEDS
from byrote.probes.wording import clean, counted, listed


@dataclass(frozen=True)
class Arm:
    """A group as a comparison names it.

    Attributes:
        name: of the arm.
        runs: names of its runs.
    """

    name: str
    runs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.runs)


@dataclass(frozen=True)
class Group:
    """Runs of one arm that differ in nothing but their seeds.

    Attributes:
        name: of the arm.
        runs: results of one run each, by seed where seeds are declared.
    """

    name: str
    runs: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        return f"Group({clean(self.name)!r}: {counted(len(self), 'run')}, {listed([run.run for run in self.runs], most=5)})"

    @property
    def arm(self) -> Arm:
        """The same without the results."""
        return Arm(self.name, tuple(run.run for run in self.runs))


def seeds_an_arm(groups: Sequence[Group | Arm]) -> str:
    """``5 seeds an arm``, or ``3 to 5 seeds an arm``."""
    fewest, most = min(map(len, groups)), max(map(len, groups))
    return counted(most, "seed") + " an arm" if fewest == most else f"{fewest} to {most} seeds an arm"


@accepts_paths("runs", several=True)
def group(name: str, runs: Table | Iterable[Table]) -> Group:
    """A group of runs under a name.

    Args:
        name: of the arm.
        runs: results of one run or several, their folders, a folder of them, or a glob such as `results/unique-*`.

    Raises:
        ByroteError: no run, one training twice, or runs whose declared settings differ in more than seeds.
    """
    runs = sorted(
        [runs] if isinstance(runs, Table) else runs,
        key=lambda run: (*(-1 if s is None else s for s in run.facts.seeds), run.run),
    )
    if not runs:
        raise ByroteError(f"the group {name!r} has no runs", help="name results folders: --group ARM=GLOB")
    differing = differing_setting([run.facts.setting | {"arm": None} for run in runs])
    if differing:
        raise ByroteError(
            f"the runs of group {name!r} differ in more than their seeds: {listed(differing)}",
            help="put them into separate groups, or correct byrote.toml beside their results",
        )
    _refuse_twins(name, runs)
    return Group(clean(name, limit=80), tuple(runs))


@accepts_paths(several=True)
def groups_of(runs: Sequence[Table]) -> list[Group]:
    """Runs grouped by the arm they declare, in the order of their first runs; different settings of one arm form separate groups.

    Args:
        runs: results of one run each.

    Raises:
        ByroteError: a run that declares no arm, or one training twice.
    """
    found: dict[str, list[Table]] = {}
    for run in runs:
        arm = run.facts.require("arm", run=run.run, what_for="a group of runs")
        found.setdefault(arm, []).append(run)
    return [group(arm, mine) for arm, mine in found.items()]


def pairs_by_seed(a: Group, b: Group) -> tuple[list[tuple[Any, Any]], str]:
    """Runs of either group that share init and unique data, pair by pair; or none, and why.

    Args:
        a, b: the groups.

    Returns:
        (pairs, "") or ([], the reason).
    """
    for side in (a, b):
        for run in side.runs:
            missing = [name for name in ("init_seed", "data_seed") if getattr(run.facts, name) is None]
            if missing:
                return [], f"{' and '.join(missing)} of {run.run} not declared"
    seeds = [{run.facts.seeds: run for run in side.runs} for side in (a, b)]
    if seeds[0].keys() != seeds[1].keys():
        return [], f"{a.name} and {b.name} have other seeds"
    model = [side.runs[0].facts.recipe.get("model") for side in (a, b)]
    data = [side.runs[0].facts.recipe.get("data") for side in (a, b)]
    if model[0] != model[1] or data[0] != data[1]:
        return (
            [],
            f"{a.name} and {b.name} have other {'models' if model[0] != model[1] else 'data'} from the same seed",
        )
    return [(seeds[0][seed], seeds[1][seed]) for seed in sorted(seeds[0])], ""


def are_enough(*groups: Group) -> bool:
    """Whether every side has the seeds that a word of direction needs."""
    return min(map(len, groups)) >= MIN_SEEDS


def differing_setting(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is declared differently, in words; what is not declared everywhere is no difference."""
    flat = [_flat(one) for one in settings]
    names = dict.fromkeys(name for one in flat for name in one)
    found = []
    for name in names:
        values = list(dict.fromkeys(str(one[name]) for one in flat if one.get(name) is not None))
        if len(values) > 1:
            found.append(f"{name} {' and '.join(values[:3])}")
    return found


def _flat(setting: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in setting.items():
        out |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return out


def _refuse_twins(name: str, runs: Sequence[Table]) -> None:
    """One training counted twice would make two seeds of one."""
    known: dict[Any, str] = {}
    for run in runs:
        marks: list[Any] = [run.path.resolve()]
        marks += [run.facts.seeds] if None not in run.facts.seeds else []
        files = unit_paths(run.path)
        weights = unit_provenance(files[-1]).get("fingerprint") if files else None
        marks += [] if weights is None else [weights]
        for mark in marks:
            if mark in known:
                what = f"seeds {mark}" if isinstance(mark, tuple) else "weights"
                raise ByroteError(
                    f"{known[mark]} and {run.run} of group {name!r} have the same {what}: one training counted twice",
                    help="leave one of them out",
                )
            known[mark] = run.run
