"""A study of degradation: its settings, its arms taken apart by dose and size, and the tables that measures share. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.degrade.capacity import (
    Capacity,
    Extraction,
    capacity,
    extraction_counts,
    extraction_threshold,
)
from byrote.probes.degrade.dependence_matrix import DependenceMatrix, dependence_matrix
from byrote.probes.degrade.descent_over_seeds import ArmCurve, arm_curve
from byrote.probes.degrade.displacement import displacement
from byrote.probes.degrade.dose_response import DoseResponse, damage_by_arm, dose_response
from byrote.probes.degrade.effective_data import RStar, fit_r_star, with_unique_tokens
from byrote.probes.degrade.effective_size import EffectiveSize, effective_size
from byrote.probes.degrade.member_rows import PROBE, REPEATS, member_rows, sharing_members
from byrote.probes.degrade.preferential_damage import preferential_damage
from byrote.probes.degrade.runs import DOSES, SIZES, run_rows
from byrote.probes.groups import Group, group
from byrote.probes.results import Results
from byrote.probes.rules import smallest_effect
from byrote.probes.wording import clean, listed

TEST_LOSS, COPY_LOSS = "held_out_loss/loss", "repeat_loss/later_blocks"
_LEAST_COUNTS = 3  # numbers of duplicates that make a curve
_SETTING = ("parameters", "repeat_frac", "epochs", "pool", "synthetic_share", "generation")


@dataclass(frozen=True)
class DegradeSettings:
    """What `degradation` compares with what: metric, arms, baseline and doses.

    Attributes:
        over: the fact that is the dose; "" takes the first of `DOSES` that varies among the damaged runs of one size.
        metric: PROBE/METRIC that is damaged; "" is the test loss, or the loss on repeats where that was not measured.
        copy: PROBE/METRIC held against the test loss in sizes.
        baseline: name of the undamaged arm; "" is the arm called control, else the only one that repeats and synthesises nothing.
        how: how effective size is read off the ladder of `metric`: power, interpolate, linear.
        size: parameters, parameters_without_embeddings, or compute.
        floor: Bayes loss of the test text in nats.
        step: training step; None is the last that all have.
        seed: of resampling and permutations.
    """

    over: str = ""
    metric: str = ""
    copy: str = COPY_LOSS
    baseline: str = ""
    how: str = "power"
    size: str = "parameters"
    floor: float = 0.0
    step: int | None = None
    seed: int = 0


def by_arm(runs: Iterable[Results]) -> list[tuple[str, list[Results]]]:
    """Runs under the arm that each declares, whatever its dose and size.

    Args:
        runs: results of one run each.

    Raises:
        ByroteError: a run declares no arm.
    """
    found: dict[str, list[Results]] = {}
    for run in runs:
        run.facts.require("arm", run=run.run, what_for="an arm")
        found.setdefault(run.facts.arm_of_all_sizes or "", []).append(run)
    return list(found.items())


def taken_apart(named: Sequence[tuple[str, Sequence[Results]]]) -> list[Group]:
    """One group for each arm, dose and size, under the arm's name.

    Args:
        named: runs under the name of their arm.

    Raises:
        ByroteError: no run, or runs that are no group.
    """
    found: dict[tuple[Any, ...], list[Results]] = {}
    for name, runs in named:
        for run in runs:
            found.setdefault((name, *(getattr(run.facts, fact) for fact in _SETTING)), []).append(run)
    if not found:
        raise ByroteError("there is no run", help="name results folders: --group ARM=GLOB")
    return [group(key[0], runs) for key, runs in found.items()]


class Study:
    """The tables that measures share, each made once.

    Args:
        groups: one for each arm, dose and size.
        settings: what is held against what.

    Attributes:
        baseline: name of the undamaged arm.
        over: the dose; None where nothing varies.
        healthy, damaged: groups of the baseline and of the others, these with their dose in their name where an arm has several.

    Raises:
        ByroteError: an unknown baseline, dose or size.
    """

    def __init__(self, groups: list[Group], settings: DegradeSettings) -> None:
        self.settings = settings
        self.baseline = clean(settings.baseline or baseline_arm(groups), limit=80)
        names = list(dict.fromkeys(one.name for one in groups))
        if self.baseline not in names:
            raise ByroteError(f"there is no group {self.baseline!r}", help=did_you_mean(self.baseline, names))
        self.healthy = [one for one in groups if one.name == self.baseline]
        self.over = settings.over or _varying([one for one in groups if one.name != self.baseline])
        if self.over and self.over not in DOSES:
            raise ByroteError(f"there is no dose {self.over!r}", help=did_you_mean(self.over, DOSES))
        if settings.size not in SIZES:
            raise ByroteError(f"there is no size {settings.size!r}", help=did_you_mean(settings.size, SIZES))
        self.damaged = self._labelled([one for one in groups if one.name != self.baseline])
        self.groups = [*self.healthy, *self.damaged]
        self._rows: dict[tuple[str, bool], pd.DataFrame] = {}

    def _labelled(self, groups: list[Group]) -> list[Group]:
        """Names with the dose where an arm has several."""
        doses: dict[str, set[Any]] = {}
        for one in groups:
            doses.setdefault(one.name, set()).add(self._dose(one))
        return [
            replace(one, name=f"{one.name} {self.over}={self._dose(one):g}")
            if len(doses[one.name]) > 1 and self._dose(one) is not None
            else one
            for one in groups
        ]

    def _dose(self, one: Group) -> float | None:
        if not self.over or self.over == "tokens":
            return None
        value = getattr(one.runs[0].facts, self.over)
        return None if value is None else float(value)

    def need_damaged(self) -> list[Group]:
        """The damaged groups; refused where there are none."""
        if not self.damaged:
            raise ByroteError(
                f"all runs are of the baseline {self.baseline}",
                help="give a group of damaged runs: --group ARM=GLOB",
            )
        return self.damaged

    @cached_property
    def metric(self) -> str:
        """PROBE/METRIC that is damaged."""
        if self.settings.metric:
            return self.settings.metric
        measured = all(run.has("held_out_loss", "loss") for one in self.groups for run in one.runs)
        return TEST_LOSS if measured else COPY_LOSS

    def rows(self, metric: str, *, healthy: bool) -> pd.DataFrame:
        """The table of a metric.

        Args:
            metric: PROBE/METRIC.
            healthy: of the baseline's runs, or of the damaged ones.
        """
        if (metric, healthy) not in self._rows:
            probe, slash, name = metric.partition("/")
            if not (probe and slash and name):
                raise ByroteError(f"{metric!r} is not PROBE/METRIC", help=f"such as {TEST_LOSS}")
            both = run_rows([*self.healthy, *self.damaged], probe, name, step=self.settings.step)
            n = sum(map(len, self.healthy))
            self._rows[metric, True] = both.iloc[:n].reset_index(drop=True)
            self._rows[metric, False] = both.iloc[n:].reset_index(drop=True)
        return self._rows[metric, healthy]

    @cached_property
    def extractions(self) -> list[tuple[Group, Extraction]]:
        """Every arm whose members were planted at three numbers of duplicates or more, and how they are extracted."""
        found = []
        for one in self.groups:
            if all(run.has("extraction", "by_repeats") for run in one.runs):
                parts = [extraction_counts(run, self.settings.step) for run in one.runs]
                counts = pd.concat(parts, ignore_index=True)
                if counts["duplicates"].nunique() >= _LEAST_COUNTS:
                    found.append((one, extraction_threshold(counts)))
        if not found:
            raise ByroteError(
                "extraction is measured at three numbers of duplicates in no arm",
                help="measure members planted at several counts: byrote run ... -p exact_match -p extraction",
            )
        return found

    @cached_property
    def capacities(self) -> dict[float, Capacity]:
        """Memorised bits per parameter of each size."""
        rows = run_rows(self.need_damaged(), "unintended_bits", "per_parameter", step=self.settings.step)
        sizes = rows["parameters"].fillna(-1.0)
        return {
            np.nan if size == -1 else float(size): capacity(
                mine.reset_index(drop=True), seed=self.settings.seed
            )
            for size, mine in rows.groupby(sizes)
        }

    @cached_property
    def doses(self) -> dict[float, DoseResponse]:
        """Dose-response of each size."""
        self.need_damaged()
        if not self.over:
            raise ByroteError(
                "no declared setting varies among the damaged runs, so there is no dose",
                help=f"declare one of {', '.join(DOSES)} in byrote.toml beside the results",
            )
        damaged, healthy = (self.rows(self.metric, healthy=one) for one in (False, True))
        found = {}
        for size, mine in damaged.groupby(damaged["parameters"].fillna(-1.0)):
            own = healthy[healthy["parameters"].fillna(-1.0) == size]
            base = own if len(own) else None
            found[np.nan if size == -1 else float(size)] = dose_response(
                mine.reset_index(drop=True), self.over, baseline=base, seed=self.settings.seed
            )
        return found

    @cached_property
    def by_arm(self) -> dict[float, pd.DataFrame]:
        """Damage of each arm at each size, whether or not the arms are doses of one another."""
        self.need_damaged()
        damaged, healthy = (self.rows(self.metric, healthy=one) for one in (False, True))
        found = {}
        for size, mine in damaged.groupby(damaged["parameters"].fillna(-1.0)):
            base = healthy[healthy["parameters"].fillna(-1.0) == size]
            if len(base):
                found[np.nan if size == -1 else float(size)] = damage_by_arm(
                    mine.reset_index(drop=True), base.reset_index(drop=True), seed=self.settings.seed
                )
        if not found:
            raise ByroteError(
                f"no size has runs of the baseline {self.baseline} and of another arm",
                help="measure the baseline at the sizes of the damaged runs",
            )
        return found

    @cached_property
    def sizes(self) -> EffectiveSize:
        """Multipliers of the metric."""
        return self.sized(self.metric, self.settings.how, self.settings.size)

    @cached_property
    def preferential(self) -> pd.DataFrame:
        """Copying against test loss, in sizes."""
        copy = self.sized(self.settings.copy, "interpolate", self.settings.size)
        return preferential_damage(copy, self.sized(TEST_LOSS, "power", self.settings.size))

    @cached_property
    def displacements(self) -> list[tuple[Group, pd.DataFrame, str]]:
        """(damaged arm, shares by class of head against the baseline of its size, what they say)."""
        found = []
        for one in self.need_damaged():
            for base in self.healthy:
                if np.isnan(size_of(base)) or size_of(base) == size_of(one):
                    found.append((one, *displacement(base, one, step=self.settings.step)))
        return found

    @cached_property
    def descents(self) -> list[tuple[Group, ArmCurve]]:
        """Every arm with its curve and its double descent."""
        probe, _, metric = self.metric.partition("/")
        return [(one, arm_curve(one, probe, metric, seed=self.settings.seed)) for one in self.groups]

    @cached_property
    def with_members(self) -> list[Group]:
        """The arms whose members are declared and were measured."""
        return [
            one
            for one in self.groups
            if all(run.facts.members and run.has(PROBE, REPEATS) for run in one.runs)
        ]

    @cached_property
    def matrices(self) -> dict[tuple[str, str], DependenceMatrix]:
        """By arms and metric, what training on each experiment does to each.

        An arm whose runs tell experiments apart is read by itself; all others that share members with one another, together.
        """
        found: dict[tuple[str, str], DependenceMatrix] = {}
        reasons: list[ByroteError] = []
        alone = [one for one in self.with_members if self._matrix_of([one], found, [])]
        others = [one for one in self.with_members if one not in alone]
        for mine in sharing_members(others):
            self._matrix_of(mine, found, reasons)
        if not found:
            nothing = ByroteError(
                "no arm has members that were measured", help=f"measure them: byrote run ... -p {PROBE}"
            )
            raise reasons[0] if reasons else nothing
        return found

    def _matrix_of(
        self, arms: list[Group], found: dict[tuple[str, str], DependenceMatrix], reasons: list[ByroteError]
    ) -> bool:
        """Add the matrices of these arms to those that were found, or why there are none to the reasons."""
        info = arms[0].runs[0].info(PROBE)
        try:
            mine = {
                (arms_in_words(arms), metric): dependence_matrix(
                    member_rows(arms, metric, step=self.settings.step),
                    smallest=smallest_effect(info, metric),
                    better=better,
                )
                for metric, better in (("accuracy", "higher"), ("loss", "lower"))
            }
        except ByroteError as error:
            reasons.append(error)
            return False
        found.update(mine)
        return True

    @cached_property
    def r_star(self) -> RStar:
        """R* of all runs."""
        both = pd.concat([self.rows(self.metric, healthy=one) for one in (True, False)], ignore_index=True)
        return fit_r_star(with_unique_tokens(both), seed=self.settings.seed)

    def sized(self, metric: str, how: str, size: str) -> EffectiveSize:
        """Multipliers of any metric.

        Args:
            metric: PROBE/METRIC.
            how: power, interpolate, or linear.
            size: what counts as size.
        """
        self.need_damaged()
        floor = self.settings.floor if metric == TEST_LOSS else 0.0
        tables = (self.rows(metric, healthy=one) for one in (True, False))
        return effective_size(*tables, how=how, counted_by=size, floor=floor, seed=self.settings.seed)


def size_of(one: Group) -> float:
    """Parameters of an arm's runs; NaN where they are not declared."""
    size = one.runs[0].facts.parameters
    return np.nan if size is None else float(size)


def arms_in_words(groups: Sequence[Group]) -> str:
    """The arms of some groups, with the size of their runs where it is declared."""
    names, size = listed(list(dict.fromkeys(one.name for one in groups))), size_of(groups[0])
    return names if np.isnan(size) else f"{names}, N = {size:,.0f}"


def baseline_arm(groups: Sequence[Group]) -> str:
    """The undamaged arm: the one called control, else the only one that repeats and synthesises nothing.

    Raises:
        ByroteError: it is not clear which one that is.
    """
    names = list(dict.fromkeys(one.name for one in groups))
    if len(names) == 1 or "control" in names:
        return "control" if "control" in names else names[0]
    facts = ("repeat_frac", "synthetic_share", "generation")
    plain = [
        name
        for name in names
        if all(
            not getattr(run.facts, fact)
            for one in groups
            if one.name == name
            for run in one.runs
            for fact in facts
        )
        and any(run.facts.repeat_frac is not None for one in groups if one.name == name for run in one.runs)
    ]
    if len(plain) != 1:
        found = (
            f"{len(plain)} of them have neither repeated nor synthetic data"
            if plain
            else "none declares that it repeats nothing"
        )
        raise ByroteError(
            f"which of the arms {', '.join(names[:6])} is the baseline is not clear: {found}",
            help="name it: --baseline ARM",
        )
    return plain[0]


def _varying(groups: list[Group]) -> str | None:
    for fact in DOSES[:-1]:
        by_size: dict[Any, set[Any]] = {}
        for one in groups:
            facts = one.runs[0].facts
            by_size.setdefault(facts.parameters, set()).add(getattr(facts, fact))
        if any(len(values - {None}) > 1 for values in by_size.values()):
            return fact
    return None
