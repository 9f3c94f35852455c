"""Cached findings of a run for the pages; the sentences are those of `probes/findings`. No Streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from byrote.dashboard.library import run_cache
from byrote.probes.findings import marks, runs
from byrote.probes.results import Results
from byrote.probes.results.curve import curves_of
from byrote.probes.rules import HALF_RISEN
from byrote.probes.trajectory import Curve, Onset, crossings, onset
from byrote.probes.trajectory.appearance import appeared
from byrote.probes.wording import bracket, clean


@run_cache(2)
def happened(first: Results, *more: Results) -> str:
    """What happened in these runs: the overview's title."""
    opened = (first, *more)
    return runs(opened, {run.run: run_onset(run) for run in opened})


@run_cache(1)
def run_onset(run: Results) -> Onset:
    """When induction heads appear in a run."""
    return onset(run)


def head_curve(run: Results, probe: str, metric: str, head: tuple[int, int]) -> Curve | None:
    """One head over the steps, with its intervals and not its sequences; None where it was never measured."""
    return curves_of(run.run, run.rows(probe, metric, head=head, valid=True), {}, run.info(probe)).get(head)


@run_cache(512)
def half_risen(run: Results, probe: str, metric: str, head: tuple[int, int]) -> str:
    """Between which measured steps a head had made half of its rise, tested against all heads; "–" where none is sure."""
    mine = head_curve(run, probe, metric, head)
    if mine is None:
        return "–"
    n_layers, n_heads = run.shape
    crossed = crossings(replace(mine, among=n_layers * n_heads), fracs=(HALF_RISEN,))
    if not crossed:
        return "–"
    return bracket(*crossed[0].bracket)


@run_cache(512)
def above_null_since(run: Results, probe: str, metric: str, head: tuple[int, int]) -> str:
    """Between which measured steps a head first stood significantly above its null, and did so at the next too; "–" where it does not."""
    mine = head_curve(run, probe, metric, head)
    if mine is None:
        return "–"
    n_layers, n_heads = run.shape
    found = appeared(replace(mine, among=n_layers * n_heads), run.info(probe))
    return "–" if found is None else bracket(*found)


@run_cache(1)
def events(run: Results) -> list[tuple[int, str]]:
    """Steps worth jumping to: where induction heads appear, and where the last of them is lost."""
    return marks(run, run_onset(run))


def events_of_both(run: Results, base: Results | None, pairs: Mapping[int, int]) -> list[tuple[int, str]]:
    """The run's events, and those of the baseline at the steps of the run that they stand beside.

    Args:
        run, base: whose events; None for no baseline.
        pairs: step of the run -> step of the baseline it stands beside.
    """
    if base is None:
        return events(run)
    beside = {theirs: mine for mine, theirs in pairs.items()}
    name = clean(base.run, limit=40)
    theirs = [(beside[step], f"{name}: {text}") for step, text in events(base) if step in beside]
    return sorted([*events(run), *theirs])


def spread(steps: Sequence[int], most: int, chosen: Sequence[int]) -> list[int]:
    """Some of these steps, ascending: those chosen, and others spread evenly, the first and the last among them.

    Args:
        steps: ascending.
        most: that are spread evenly.
        chosen: among the steps; all steps are taken where there are no more than both together.
    """
    if len(steps) <= most + len(chosen):
        return list(steps)
    return sorted({steps[i] for i in np.linspace(0, len(steps) - 1, most).astype(int)} | set(chosen))
