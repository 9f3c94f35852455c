"""The cache of the pages' figures: each made once per style for all users, dropped with its run. No Streamlit.

What these functions return is shared: a page that needs another style requests another figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.findings import run_onset
from byrote.dashboard.library import run_cache
from byrote.dashboard.query_params import State
from byrote.probes import figures
from byrote.probes.attention import attention_file, stored_text
from byrote.probes.comparable import (
    BEST_HEAD,
    Comparison,
    init_disagreement,
    matched_steps,
)
from byrote.probes.degradation import compare
from byrote.probes.degrade.dose_response import DoseResponse
from byrote.probes.degrade.measures import Degradation, degradation
from byrote.probes.degrade.study import DegradeSettings, Study, by_arm, taken_apart
from byrote.probes.figures import Figure, Look
from byrote.probes.figures.canvas import FULL
from byrote.probes.figures.circuit import Wiring
from byrote.probes.figures.circuit import wiring as wiring_of
from byrote.probes.figures.memory_plane import Point
from byrote.probes.figures.memory_plane import points as points_of
from byrote.probes.figures.study_figures import degradation_figures
from byrote.probes.figures.timeline import arm_events, events_of
from byrote.probes.group_comparison import GroupComparison, compare_groups
from byrote.probes.groups import Arm, Group, groups_of
from byrote.probes.registry import REGISTRY, best_compared
from byrote.probes.results import Results
from byrote.probes.trajectory.verdict import Milestone
from byrote.probes.trajectory.verdict import milestones as milestones_of


@run_cache(16)
def wiring(run: Results, way: str) -> Wiring:
    """Edges of one kind of composition."""
    return wiring_of(run, way)


@run_cache(96)
def points(run: Results, probe: str, metric: str) -> tuple[Point, ...]:
    """The numbers of one axis of the plane."""
    return points_of(run, probe, metric)


@run_cache(64)
def pairs_of(run: Results, base: Results, align: str) -> Mapping[int, int]:
    """Step of the run -> step of the baseline it stands beside.

    Raises:
        ByroteError: nothing to align by.
    """
    return {b: a for a, b in matched_steps(base, run, align)}


@run_cache(32)
def comparison_of(run: Results, base: Results, align: str, step: int) -> Comparison:
    """The run against the baseline at one step of the run.

    Raises:
        ByroteError: the runs were not measured alike, or have no such step in common.
    """
    at = pairs_of(run, base, align).get(step)
    return compare(base, run, align=align, at="last" if at is None else at)


@run_cache(4)
def arms_of(run: Results, base: Results, runs: tuple[Results, ...]) -> tuple[Arm, ...]:
    """The arms that the baseline and the run declare, all their seeds among the runs shown; () where neither has several."""
    return tuple(one.arm for one in _groups(run, base, runs))


def _groups(run: Results, base: Results, runs: tuple[Results, ...]) -> list[Group]:
    arms = (base.facts.arm, run.facts.arm)
    mine = [one for one in runs if one.n_rows and one.facts.arm in arms]
    if None in arms or arms[0] == arms[1] or len(mine) < 3:
        return []
    return sorted(groups_of(mine), key=lambda one: arms.index(one.name))


@run_cache(4)
def group_comparison_of(
    run: Results, base: Results, runs: tuple[Results, ...], *, align: str
) -> GroupComparison:
    """The run's arm against the baseline's at the last step all their runs have.

    Raises:
        ByroteError: they were not measured alike, or have no step in common.
    """
    return compare_groups(*_groups(run, base, runs), align=align)


@run_cache(4)
def seed_curves(
    run: Results, base: Results, runs: tuple[Results, ...], *, probe: str, metric: str, look: Look = FULL
) -> Figure:
    """Every seed of the two arms over training, and their medians."""
    return figures.seed_curves(_groups(run, base, runs), probe=probe, metric=metric, look=look)


@dataclass(frozen=True)
class Doses:
    """A dose-response of everything opened, or of one arm of it, without the results it was made of.

    Attributes:
        by_size: size -> its dose-response; {} where the arms are no doses of one another.
        by_arm: size -> damage of each arm; {} where they are.
        over: the dose, "" where there is none.
        metric: PROBE/METRIC that is damaged.
        unit: of it.
        baseline: name of the undamaged arm.
        runs: names of the runs it is of.
        why: why it is not a dose-response of everything; "" where it is.
    """

    by_size: Mapping[float, DoseResponse]
    by_arm: Mapping[float, pd.DataFrame]
    over: str
    metric: str
    unit: str
    baseline: str
    runs: tuple[str, ...]
    why: str


@run_cache(4)
def doses_of(
    first: Results, *more: Results, baselines: tuple[str, ...], own: str, metric: str
) -> Doses | ByroteError:
    """Damage over the dose that these runs declare; else over that of one arm; else arm by arm; else why there is none.

    Args:
        first, more: runs that declare their arm.
        baselines: names of the undamaged arm, of which the first that is clear is taken; "" finds it.
        own: the arm taken by itself where all arms are no doses of one another.
        metric: PROBE/METRIC that is damaged; "" finds it.
    """
    try:
        groups = taken_apart(by_arm((first, *more)))
        study = _with_baseline(groups, baselines, metric)
    except ByroteError as error:
        return error
    tries, why = [study], ""
    if own != study.baseline and sum(one.name == own for one in groups) > 1:  # at several doses by itself
        alone = [one for one in groups if one.name in (own, study.baseline)]
        tries.append(Study(alone, replace(study.settings, baseline=study.baseline)))
    for one in tries:
        try:
            return _doses(one, {"by_size": one.doses, "by_arm": {}, "over": one.over or "", "why": why})
        except ByroteError as error:
            why = why or error.message
    try:
        return _doses(study, {"by_size": {}, "by_arm": study.by_arm, "over": "", "why": why})
    except ByroteError as error:
        return error


def _with_baseline(groups: list[Group], baselines: Sequence[str], metric: str) -> Study:
    """The study of these groups with the first baseline that is clear."""
    *tried, last = baselines
    for baseline in tried:
        try:
            return Study(groups, DegradeSettings(baseline=baseline, metric=metric))
        except ByroteError:
            continue
    return Study(groups, DegradeSettings(baseline=last, metric=metric))


def _doses(study: Study, found: dict[str, Any]) -> Doses:
    unit = str(study.rows(study.metric, healthy=True)["unit"].iloc[0])
    runs = tuple(run.run for one in study.groups for run in one.runs)
    return Doses(metric=study.metric, unit=unit, baseline=study.baseline, runs=runs, **found)


@run_cache(4)
def dose_figure(
    first: Results, *more: Results, baselines: tuple[str, ...], own: str, metric: str, look: Look = FULL
) -> Figure:
    """The dose-response of everything opened, or damage arm by arm."""
    found = doses_of(first, *more, baselines=baselines, own=own, metric=metric)
    if isinstance(found, ByroteError):
        raise found
    if found.by_size:
        return figures.dose_response(found.by_size, metric=found.metric, look=look)
    return figures.damage_of_arms(
        found.by_arm, metric=found.metric, baseline=found.baseline, unit=found.unit, look=look
    )


@run_cache(2)
def degradation_of(first: Results, *more: Results, baseline: str, metric: str) -> Degradation:
    """Everything about degradation that these runs say, without the results it was made of.

    Args:
        first, more: runs that declare their arm.
        baseline: name of the undamaged arm; "" finds it.
        metric: PROBE/METRIC that is damaged; "" finds it.

    Raises:
        ByroteError: no arm is clearly the baseline.
    """
    found = degradation(by_arm((first, *more)), DegradeSettings(baseline=baseline, metric=metric))
    return replace(found, groups=())


@run_cache(12)
def degradation_figure(
    first: Results, *more: Results, baseline: str, metric: str, name: str, look: Look = FULL
) -> Figure:
    """One of the figures of `degradation_figures`."""
    return degradation_figures(degradation_of(first, *more, baseline=baseline, metric=metric))[name](
        look=look
    )


@run_cache(1)
def milestones(run: Results) -> tuple[Milestone, ...]:
    """When the parts of an induction circuit appeared in a run."""
    return milestones_of(run, found=run_onset(run) if run.has("induction", "verdict") else None)


@run_cache(8)
def timeline(
    first: Results,
    *more: Results,
    pairs: tuple[tuple[str, str], ...],
    base: str | None,
    shown: str,
    log: bool,
    band: bool,
    step: int,
    look: Look = FULL,
) -> Figure:
    """The strongest head of every run over training, and when the parts of the circuit appeared in the run looked at.

    Of the baseline only its induction heads: what else appeared when is one click away, on its own overview.
    """
    runs = [first, *more]
    events = events_of(runs, shown=shown, base=base, milestones=milestones)
    return figures.timeline(
        runs, pairs, base=base, shown=shown, events=events, log=log, band=band, step=step, look=look
    )  # fmt: skip


@run_cache(1)
def arms_shown(first: Results, *more: Results) -> tuple[Group, ...]:
    """The arms of these runs where every run declares one and some arm has several seeds; () else."""
    runs = (first, *more)
    if any(run.facts.arm is None or not run.steps for run in runs):
        return ()
    try:
        found = groups_of(runs)
    except ByroteError:  # runs of one arm that differ in more than their seeds
        return ()
    return tuple(found) if any(len(one) > 1 for one in found) else ()


@run_cache(6)
def arm_timeline(
    first: Results,
    *more: Results,
    pairs: tuple[tuple[str, str], ...],
    base: str | None,
    log: bool,
    band: bool,
    step: int,
    look: Look = FULL,
) -> Figure:
    """The strongest head over training, a line per arm, and in how many seeds of each induction heads appeared."""
    runs = [first, *more]
    groups = groups_of(runs)
    events = arm_events(groups, run_onset)
    return figures.timeline(
        runs, pairs, base=base, events=events, log=log, band=band, step=step, groups=groups, look=look
    )  # fmt: skip


@run_cache(4)
def losses(first: Results, *more: Results, base: str | None, look: Look = FULL) -> Figure:
    """Loss on the first and on later blocks of repeated tokens."""
    return figures.loss_curves((first, *more), base=base, look=look)


@run_cache(4)
def training(first: Results, *more: Results, base: str | None, look: Look = FULL) -> Figure:
    """The loss that training itself logged."""
    return figures.training_loss((first, *more), base=base, look=look)


@run_cache(2)
def covered(run: Results, look: Look = FULL) -> Figure:
    """Checkpoint x probe: what was measured."""
    return figures.coverage(run, look=look)


def compared(state: State) -> State:
    """The part of the state that the comparison head by head depends on."""
    return State(state.run, state.probe, state.metric, state.step, state.head, align=state.align)


def curves(
    run: Results, base: Results | None, state: State, look: Look = FULL, *, rule: bool = True
) -> Figure:
    """The selected and pinned heads over training, and those of the baseline, the others faint behind them; with a rule at the step."""
    heads = tuple(h for h in dict.fromkeys([state.head, *state.pin]) if h)
    beside = base is not None and base.has(state.probe, state.metric) and not init_disagreement(base, run)
    at = state.step if rule else None
    return _curves(run, base if beside else None, state.probe, state.metric, heads, at, look)


@run_cache(8)
def _curves(
    run: Results,
    base: Results | None,
    probe: str,
    metric: str,
    heads: tuple[str, ...],
    step: int | None,
    look: Look,
) -> Figure:
    drawn = [run] if base is None else [base, run]
    return figures.trajectory(
        drawn, probe=probe, metric=metric, heads=list(heads), base=base.run if base else None, context=True, step=step, look=look
    )  # fmt: skip


@run_cache(6)
def offsets(run: Results, heads: tuple[str, ...], step: int, look: Look = FULL) -> Figure:
    """How far back heads look."""
    return figures.offset_profile(run, heads=list(heads), step=step, look=look)


def matrix(
    pattern: Float[np.ndarray, "query_pos key_pos"], tokens: Sequence[str], look: Look = FULL, **words: Any
) -> Figure:
    """One head's attention on one text."""
    return _matrix(pattern.astype(np.float64).tobytes(), tuple(tokens), look, **words)


@lru_cache(maxsize=6)
def _matrix(weights: bytes, tokens: tuple[str, ...], look: Look, **words: Any) -> Figure:
    pattern = np.frombuffer(weights, dtype=np.float64).reshape(len(tokens), len(tokens))
    ids = words.pop("ids", None)
    return figures.attention(
        pattern, tokens=tokens, ids=None if ids is None else np.array(ids), look=look, **words
    )


@run_cache(8)
def attention_steps(
    run: Results,
    base: Results | None,
    *,
    stimulus: str,
    index: int,
    head: str,
    query: int,
    step: int,
    files: tuple[tuple[int, Path], ...] = (),
    look: Look = FULL,
) -> Figure:
    """A head's attention to its expected target over the stored steps, beside the baseline's.

    Args:
        run, base: whose heads; without a baseline None.
        stimulus, index: which of the sequences stored at the step.
        head, query: the head, and the position that attends.
        step: the one looked at.
        files: of attention by step, where they are not those of the run's sweep.
        look: theme and width.
    """
    text = stored_text(dict(files).get(step) or attention_file(run.path, step), stimulus, index)
    runs = [run] if base is None else [base, run]
    return figures.attention_over_steps(
        runs, head=head, text=text, query=query, base=base.run if base else None, step=step, files=dict(files), look=look
    )  # fmt: skip


@run_cache(6)
def scatter(run: Results, base: Results, state: State, look: Look = FULL) -> Figure:
    """Every head in the baseline against itself in the run."""
    comparison = comparison_of(run, base, state.align, state.step)
    return figures.head_scatter(
        comparison, probe=state.probe, metric=state.metric, head=state.head, look=look
    )


def headline(comparison: Comparison) -> Comparison:
    """The comparison cut to the few measures a reader needs first."""
    rows = comparison.rows
    first = {(info.name, metric) for info in REGISTRY.values() for metric in info.headline}
    first |= {(probe, BEST_HEAD) for probe in best_compared()}
    wanted = [(p, m) in first for p, m in zip(rows["probe"], rows["metric"], strict=True)]
    return replace(comparison, rows=rows[np.array(wanted, dtype=bool) & rows["layer"].isna().to_numpy()])


@run_cache(6)
def measures(run: Results, base: Results, align: str, step: int, look: Look = FULL) -> Figure:
    """The measures a reader needs first, run minus baseline."""
    return figures.differences(headline(comparison_of(run, base, align, step)), look=look)


@run_cache(6)
def change(run: Results, probe: str, metric: str, first: int, step: int, look: Look = FULL) -> Figure:
    """A run against its own beginning."""
    return figures.change_grid(run, probe=probe, metric=metric, first=first, step=step, look=look)


@run_cache(6)
def memory_plane(first: Results, *more: Results, look: Look = FULL, **axes: Any) -> Figure:
    """Rule against memory for every run."""
    return figures.memory_plane((first, *more), look=look, **axes)


@run_cache(4)
def member_flow(run: Results, look: Look = FULL) -> Figure:
    """What became of the members."""
    return figures.member_flow(run, look=look)


@run_cache(6)
def recall_shares(run: Results, step: int, look: Look = FULL) -> Figure:
    """Recalled or copied, by place."""
    return figures.recall_shares(run, step=step, look=look)


@run_cache(6)
def circuit(run: Results, way: str, step: int, least: float, look: Look = FULL) -> Figure:
    """The circuit at one step, as a still figure."""
    return figures.circuit(run, way=way, step=step, least=least, found=wiring(run, way), look=look)
