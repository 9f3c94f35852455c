"""The figures of the pages, made once for all users: kept with the run, and let go with it. No Streamlit.

What these functions return is shared: a page that wants another look makes another figure.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from byrote.dashboard import comparing
from byrote.dashboard.figures import (
    attention_matrix,
    coverage,
    first_to_now,
    fitted,
    head_curves,
    narrow,
    roomy,
)
from byrote.dashboard.milestones import INDUCTION, milestones
from byrote.dashboard.query_params import State
from byrote.dashboard.run_cache import run_cache
from byrote.dashboard.saved import SavedRun
from byrote.dashboard.timeline import steps_of, with_rule
from byrote.dashboard.timeline import timeline as over_time
from byrote.probes.figures import apply_theme, differences, loss_curves, offset_profile


@run_cache(8)
def timeline(
    first: SavedRun,
    *more: SavedRun,
    pairs: tuple[tuple[str, str], ...],
    base: str | None,
    shown: str,
    log: bool,
    band: bool,
) -> go.Figure:
    """The strongest head of every run over training, and when the parts of the circuit came in the run looked at.

    Of the baseline only its induction heads are told: what else came when is one click away, on its own overview.
    """
    runs = [first, *more]
    looked_at = sorted((run for run in runs if run.name in (shown, base)), key=lambda run: run.name != shown)
    told = [
        (run.name, one)
        for run in looked_at
        for one in milestones(run)
        if run.name == shown or one.what == INDUCTION
    ]
    return roomy(over_time(runs, pairs, base=base, shown=shown, came=told, log=log, band=band))


@run_cache(8)
def timeline_at(first: SavedRun, *more: SavedRun, step: int, log: bool, **look: Any) -> go.Figure:
    """The same with a rule at the step looked at."""
    fig = timeline(first, *more, log=log, **look)
    return with_rule(fig, steps_of([first, *more], log=log), step)


@run_cache(4)
def losses(first: SavedRun, *more: SavedRun, base: str | None) -> go.Figure:
    """Loss on the first and on later blocks of repeated tokens."""
    pairs = (("repeat_loss", "first_block"), ("repeat_loss", "later_blocks"))
    return narrow(loss_curves([run.part(*pairs) for run in (first, *more)], base=base))


@run_cache(1)
def covered(run: SavedRun) -> go.Figure:
    """Checkpoint x probe: what was measured."""
    return narrow(coverage(run))


def compared(state: State) -> State:
    """The part of the state that the comparison head by head depends on."""
    return State(state.run, state.probe, state.metric, state.step, state.head, align=state.align)


def curves(run: SavedRun, base: SavedRun | None, state: State) -> go.Figure:
    """The selected and pinned heads over training."""
    looked_at = State(state.run, state.probe, state.metric, state.step, state.head, pin=state.pin)
    return _curves(run, base, looked_at)


@run_cache(8)
def _curves(run: SavedRun, base: SavedRun | None, state: State) -> go.Figure:
    return narrow(head_curves(run, state, base=base))


@run_cache(6)
def offsets(run: SavedRun, heads: tuple[str, ...], step: int) -> go.Figure:
    """How far back heads look."""
    part = run.part(("offset_profile", "profile"))
    return narrow(offset_profile(part, heads=list(heads), step=step))


def matrix(
    pattern: Float[np.ndarray, "query_pos key_pos"],
    tokens: Sequence[str],
    *,
    head: str,
    held: int | None,
    what: str,
) -> go.Figure:
    """One head's attention on one text."""
    return _matrix(pattern.astype(np.float64).tobytes(), tuple(tokens), head, held, what)


@lru_cache(maxsize=6)
def _matrix(weights: bytes, tokens: tuple[str, ...], head: str, held: int | None, what: str) -> go.Figure:
    pattern = np.frombuffer(weights, dtype=np.float64).reshape(len(tokens), len(tokens))
    return attention_matrix(pattern, tokens, head=head, held=held, what=what)


@run_cache(6)
def scatter(run: SavedRun, base: SavedRun, state: State) -> go.Figure:
    """Every head in the baseline against itself in the run."""
    comparison = comparing.comparison_of(run, base, state.align, state.step)
    return comparing.scatter(comparison, probe=state.probe, metric=state.metric, head=state.head)


@run_cache(6)
def measures(run: SavedRun, base: SavedRun, align: str, step: int) -> go.Figure:
    """The measures a reader asks for first, run minus baseline."""
    return differences(comparing.headline(comparing.comparison_of(run, base, align, step)))


@run_cache(6)
def change(run: SavedRun, probe: str, metric: str, first: int, step: int) -> go.Figure:
    """A run against its own beginning."""
    return first_to_now(run, run.cube(probe, metric), probe=probe, metric=metric, first=first, step=step)


def in_theme(fig: go.Figure, theme: str) -> go.Figure:
    """The figure as a page shows it, made once per theme and for as long as the figure lives."""
    key = (id(fig), theme)
    themed, of = _THEMED.get(key, (None, None))
    if themed is None or of is None or of() is not fig:
        themed = fitted(apply_theme(fig, theme))
        for trace in themed.data:  # cells without text do not ask the browser to lay any out
            if trace.type == "heatmap" and trace.text is not None and not any(any(row) for row in trace.text):
                trace.text = trace.texttemplate = None
        see_through = "rgba(0,0,0,0)"  # but for the ground that marks cells without a value
        themed.update_layout(
            paper_bgcolor=see_through, plot_bgcolor=themed.layout.plot_bgcolor or see_through
        )
        _THEMED[key] = (themed, weakref.ref(fig, lambda _: _THEMED.pop(key, None)))
    return themed


_THEMED: dict[tuple[int, str], tuple[go.Figure, weakref.ref[go.Figure]]] = {}
