"""Inputs of a report: the runs, which of them is the baseline, and their comparisons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.comparable import Comparison
from byrote.probes.degradation import compare
from byrote.probes.degrade.study import baseline_arm
from byrote.probes.group_comparison import GroupComparison, compare_groups
from byrote.probes.groups import Group, groups_of
from byrote.probes.registry import REGISTRY, featured
from byrote.probes.results import Results
from byrote.probes.trajectory import Onset, onset
from byrote.probes.wording import all_of

MANY_RUNS = 8  # past which a report shows one run of every arm


@dataclass(frozen=True)
class Inputs:
    """The runs of one report.

    Attributes:
        results: in the order given, unique run names.
        base: name of the baseline run, or None.
        comparisons: each of the baseline against another run.
        refused: why a comparison that was wanted could not be made.
        onsets: run name to the onset of its induction heads.
        arms: comparisons of arms of several seeds, each with the baseline arm.
        groups: the arms, the baseline first; () where runs were not grouped.
        stands_for: of runs that are each shown for an arm, that of the baseline arm: drawn as the baseline, compared with none.
    """

    results: tuple[Results, ...]
    base: str | None
    comparisons: tuple[Comparison, ...]
    refused: tuple[str, ...]
    onsets: Mapping[str, Onset]
    arms: tuple[GroupComparison, ...] = ()
    groups: tuple[Group, ...] = ()
    stands_for: str | None = None

    @property
    def drawn_base(self) -> str | None:
        """The run that figures draw as the baseline."""
        return self.base or self.stands_for

    @property
    def names(self) -> list[str]:
        """Run names."""
        return [r.run for r in self.results]

    @property
    def measured(self) -> list[Results]:
        """Runs with at least one observation."""
        return [r for r in self.results if r.n_rows]

    def having(self, probe: str, metric: str | None = None, *, at_last: bool = False) -> list[Results]:
        """Runs in which a metric, or the probe's main one, was measured at least once, or has values by position at the last step."""
        metric = REGISTRY[probe].main_metric if metric is None else metric
        found = [r for r in self.results if r.has(probe, metric, valid=True)]
        if not at_last:
            return found
        return [r for r in found if r.rows(probe, metric, step=r.last_step)["position"].notna().any()]

    @cached_property
    def shown(self) -> Inputs:
        """The same, of so few runs that each can be shown: of more than `MANY_RUNS` in arms, the first seed of every arm.

        The arms are compared over all of their seeds; which run of them is shown does not depend on what it shows.
        """
        if not self.groups or len(self.results) <= MANY_RUNS:
            return self
        others = {run.run for one in self.groups for run in one.runs[1:]} - {self.base}
        in_order = (*(run for one in self.groups for run in one.runs), *self.results)
        results = {run.run: run for run in in_order if run.run not in others}
        made = tuple(one for one in self.comparisons if {one.a, one.b} <= results.keys())
        first = self.groups[0].runs[0].run if self.arms else None
        return replace(
            self, results=tuple(results.values()), comparisons=made, arms=(), groups=(), stands_for=first
        )

    @property
    def head_probes(self) -> list[str]:
        """Probes whose main metric is one value per head and was measured in some run, best known first."""
        names = dict.fromkeys((*featured(), *(n for n, i in REGISTRY.items() if i.kind == "head")))
        return [
            n for n in names if any(r.kinds[n, REGISTRY[n].main_metric] == "head" for r in self.having(n))
        ]

    def comparison_with(self, run: str) -> Comparison | None:
        """The comparison in which this run stands against the baseline."""
        return next((c for c in self.comparisons if c.b == run), None)


def report_inputs(
    results: Sequence[Results],
    *,
    base: str | None = None,
    comparison: Comparison | Sequence[Comparison] | None = None,
    groups: Sequence[Group] | None = None,
) -> Inputs:
    """Check the runs and make the comparisons that are missing.

    Args:
        results: at least one run.
        base: baseline; None takes the comparison's, or none.
        comparison: made before; None compares every other run with the baseline.
        groups: arms of several seeds, the baseline first; None groups the runs by the arm they declare, where one arm has
            several. `base` may then be an arm, and is one where groups are given; of neither, the arm that is not damaged.

    Raises:
        ByroteError: no run, two of one name, or a baseline that is not among them.
    """
    names = [r.run for r in results]
    if not names:
        raise ByroteError(
            "a report needs at least one results folder", help="name one: byrote report results/RUN"
        )
    for name in sorted({name for name in names if names.count(name) > 1}):
        raise ByroteError(f"two results are both called {name!r}", help="give each run its own name")
    made = [comparison] if isinstance(comparison, Comparison) else list(comparison or ())
    base = base if base is not None else (made[0].a if made else None)
    refused: list[str] = []
    arms = list(groups) if groups is not None else _declared_arms(results, refused)
    named = base if base in [one.name for one in arms] else None
    named = _arm_called(base, arms) if named is None and base not in names else named
    base_arm = named or (arms[0].name if groups else None)
    if base is None and not made:
        base_arm = base_arm or _undamaged(arms)
    base = None if named else base
    if base is not None and base not in names:
        raise ByroteError(
            f"the baseline {base!r} is not among the runs of this report",
            help=did_you_mean(base, [*names, *(one.name for one in arms)]),
        )
    arms = sorted(arms, key=lambda one: (one.name != base_arm, *((0,) if groups else _dose_of(one, arms))))
    baseline = None if made else next((r for r in results if r.run == base), None)
    for other in results:
        if baseline is not None and other is not baseline:
            try:
                made.append(compare(baseline, other))
            except ByroteError as error:
                refused.append(str(error))
    compared = []
    for arm in arms[1:] if base_arm else ():
        try:
            compared.append(compare_groups(arms[0], arm))
        except ByroteError as error:
            refused.append(str(error))
    onsets = {r.run: onset(r) for r in results if r.n_rows}
    return Inputs(tuple(results), base, tuple(made), tuple(refused), onsets, tuple(compared), tuple(arms))


def _dose_of(arm: Group, arms: Sequence[Group]) -> tuple[int, list[float]]:
    """What an arm is sorted by: where its kind, the first word of its name, first stands, and the numbers in its name."""
    kinds = list(dict.fromkeys(one.name.split()[0] for one in arms))
    return kinds.index(arm.name.split()[0]), [float(n) for n in re.findall(r"\d+(?:\.\d+)?", arm.name)]


def _undamaged(arms: Sequence[Group]) -> str | None:
    """The arm that the others are compared with where none is named; None where it is not clear which one that is."""
    try:
        return baseline_arm(arms) if len(arms) > 1 else None
    except ByroteError:
        return None


def _arm_called(name: str | None, arms: Sequence[Group]) -> str | None:
    """The arm whose name begins with a word: ``control`` is ``control f=0.5 P=16`` where no other arm begins so."""
    called = [one.name for one in arms if name is not None and one.name.split()[:1] == [name]]
    return called[0] if len(called) == 1 else None


def _declared_arms(results: Sequence[Results], refused: list[str]) -> list[Group]:
    """Runs by the arm they declare, where any arm has several; why they could not be grouped goes into `refused`."""
    declared = [r for r in results if r.n_rows and r.facts.arm is not None]
    if len({r.facts.arm for r in declared}) == len(declared):
        return []
    try:
        return groups_of(declared)
    except ByroteError as error:
        refused.append(str(error))
        return []


def seeds_of(results: Sequence[Results]) -> str:
    """`Sequence seed 0; training seeds 0 and 1.`, for captions; what is not recorded is said."""
    if all(r.imported for r in results):
        return "Imported, no samples."
    sequence = [r.sequence_seed for r in results]
    trained = [r.training_seed for r in results]
    return f"{_named('Sequence', sequence)}; {_named('training', trained)}."


def _named(what: str, seeds: Sequence[object]) -> str:
    known = list(dict.fromkeys("not recorded" if seed is None else str(seed) for seed in seeds))
    return f"{what} seed{'s' if len(known) > 1 else ''} {all_of(known)}"
