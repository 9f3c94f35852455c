"""Trajectory: when did each head become what it is? The grid plays, the curves follow when it rests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import export, figure_cache, findings
from byrote.dashboard.components.base import doubts, show
from byrote.dashboard.components.head_grid import grid_data
from byrote.dashboard.figure_cache import pairs_of
from byrote.dashboard.page import (
    Drawing,
    Page,
    View,
    bound,
    chosen,
    follow,
    go,
    how_computed,
    nothing,
    page_link,
    panel,
    pin_button,
)
from byrote.dashboard.query_params import State, link
from byrote.interp.axes import head_label
from byrote.probes.comparable import ALIGNMENTS
from byrote.probes.figures import Figure, head_grid
from byrote.probes.findings import highest_head
from byrote.probes.results import Cube, Results
from byrote.probes.wording import estimate, literal, probe_name, step_number

GRID = "grid"
N_TOP = 10


def draw(view: View, page: Drawing) -> None:
    """The grid, its line of words, the curves and the strongest heads."""
    run, state = view.run, view.state
    if not state.probe:
        page.title(f"No probe with a value per head was measured in {run.run}")
        nothing("The grid needs one.", view.page.command)
        return
    cube = run.cube(state.probe, state.metric)
    page.title(highest_head(run, state.probe, state.metric))
    with panel("the grid"):
        data = grid_data(run, state, base=view.base, pairs=_pairs(view), events=_events(view))
        show(
            "head_grid", data, key=GRID, open=_open,
            head=follow(GRID, "head"), step=follow(GRID, "step", int), show=follow(GRID, "show"),
        )  # fmt: skip
        _go_if_opened(view)
        _below_grid(view, cube)
    left, right = st.columns([1, 1], gap="medium")
    with left, panel("the curves"):
        _curves(view, page)
    with right, panel("the strongest heads"):
        _top(view, page, cube)


def _pairs(view: View, *, say: bool = True) -> Mapping[int, int]:
    """Steps of the run and the baseline that stand beside each other; with `say`, why there are none is shown."""
    if view.base is None:
        return {}
    try:
        return pairs_of(view.run, view.base, view.state.align)
    except ByroteError as error:
        if say:
            st.caption(literal(f"The baseline cannot be aligned: {error.message}. {error.help}", limit=400))
        return {}


def _events(view: View) -> list[tuple[int, str]]:
    """The run's events, and those of the baseline at the steps of the run that they stand beside."""
    return findings.events_of_both(view.run, view.base, _pairs(view, say=False))


def _below_grid(view: View, cube: Cube) -> None:
    state = view.state
    row = _row(view.run, state)
    with st.container(horizontal=True, vertical_alignment="center"):
        if row is not None:
            page_link(view, "head", f"Open {state.head}", icon=":material/arrow_forward:")
            st.caption(literal(estimate(row, state.head), limit=400), width="content")
        if state.head:
            pin_button(state)
        if view.base is not None:
            st.segmented_control(
                "Baseline aligned by", ALIGNMENTS, required=True, label_visibility="collapsed",
                help="How baseline checkpoints are matched: by step, tokens or loss", **bound("align", state.align),
            )  # fmt: skip
        how_computed([state.probe], key="how_grid")
    if (doubt := doubts(view.run).get(state.step)) is not None:
        st.caption(literal(f"Step {step_number(state.step)}: {doubt}", limit=400))
    _reasons(view, cube)


def _reasons(view: View, cube: Cube) -> None:
    """Why cells of this step are hatched."""
    at = cube.index(view.state.step)
    missing = int((~cube.measured[at]).sum())
    if not missing:
        return
    rows = view.run.rows(view.state.probe, view.state.metric, step=view.state.step)
    rows = rows[~rows["valid"]]
    reasons = [str(reason) for reason in dict.fromkeys(rows["reason"]) if reason][:3] or [
        "no row in these results"
    ]
    st.caption(
        literal(
            f"{missing} of {cube.measured[at].size} heads not measured here: {'; '.join(reasons)}", limit=500
        )
    )


def _curves(view: View, page: Drawing) -> None:
    if len(view.run.steps) < 2:
        nothing("One checkpoint: add more to see change over training.")
        return
    page.figure(partial(figure_cache.curves, view.run, view.base, view.state), "curves", width="half")


def _top(view: View, page: Drawing, cube: Cube) -> None:
    state = view.state
    frame = top_frame(view.run, cube, (state.probe, state.metric), step=state.step)
    if frame.empty:
        nothing(f"No head was measured at step {step_number(state.step)}.")
        return
    heads = list(frame["head"])
    page.choices(
        frame, "top", lambda row: go(head=heads[row]),
        caption=f"Strongest heads on {probe_name(state.probe)} at step {step_number(state.step)}; choose one to follow it.",
        column_config={
            "head": st.column_config.TextColumn("head", width=50),
            "appeared": st.column_config.TextColumn("appeared", width=76, help="The measured steps between which the head was first significantly above its null, and at the next one as well; – if it never was"),
            "half risen": st.column_config.TextColumn("half risen", width=76, help="The measured steps between which the head reached half of its rise, by its 95% intervals; – if no rise is certain"),
            "curve": st.column_config.LineChartColumn("curve", width=50, y_min=cube.limits[0], y_max=cube.limits[1]),
            **{name: st.column_config.NumberColumn(name, format="%.3f", width=50) for name in ("score", "low", "high", "change")},
        },
    )  # fmt: skip


def top_frame(run: Results, cube: Cube, cube_of: tuple[str, str], *, step: int) -> pd.DataFrame:
    """The strongest heads at a step: score with its interval, change since the checkpoint before, since when it stands
    above its null, when half of the rise had happened, and the whole curve.

    Args:
        run: whose heads.
        cube: their values.
        cube_of: the probe and metric.
        step: of the ranking.
    """
    at = cube.index(step)
    rows = []
    for layer, head in cube.ranked(step)[:N_TOP]:
        before = cube.value[at - 1, layer, head] if at else np.nan
        curve = np.where(cube.valid[:, layer, head], cube.value[:, layer, head], np.nan)
        change = float(cube.value[at, layer, head] - before) if np.isfinite(before) else None
        rows.append(
            {
                "head": head_label(layer, head),
                "curve": [None if np.isnan(v) else float(v) for v in curve],
                "score": float(cube.value[at, layer, head]),
                "low": float(cube.lo[at, layer, head]),
                "high": float(cube.hi[at, layer, head]),
                "appeared": findings.above_null_since(run, *cube_of, (layer, head)),
                "half risen": findings.half_risen(run, *cube_of, (layer, head)),
                "change": None if change is None else round(change, 3) + 0.0,
            }
        )
    return pd.DataFrame(rows)


def _row(run: Results, state: State) -> Any:
    """The row of the head looked at, None where there is none."""
    if state.layer_head is None:
        return None
    layer, head = state.layer_head
    rows = run.rows(
        state.probe, state.metric, step=state.step
    )  # of every head: the next one chosen is among them
    mine = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    return next(mine.itertuples(index=False), None)


def _open() -> None:
    if (head := chosen(GRID, "open")) is not None:
        go(head=str(head))
        st.session_state["open_head"] = True


def _go_if_opened(view: View) -> None:
    """A head opened in the grid: its page, with the same address."""
    if st.session_state.pop("open_head", False) and "head" in view.pages:
        st.switch_page(view.pages["head"], query_params=link(view.state))


def _notebook(view: View) -> list[str]:
    state = view.state
    if not state.probe:
        return ["run"]
    runs, base = export.runs_and_base(view)
    metric = export.metric(state)
    return [
        f"figures.head_grid(run, {metric}, step={state.step})",
        f"figures.trajectory({runs}, {metric}, heads={[state.head, *state.pin]!r}{base})",
        f"run[{state.probe!r}, {state.metric!r}].at({state.step}).top({N_TOP})",
    ]


def grids(view: View) -> dict[str, Figure]:
    """The grid at the step, and the baseline's at the step that stands beside it."""
    state, found = view.state, {}
    if not state.probe:
        return {}
    pair = (state.probe, state.metric)
    steps = {"grid": (view.run, state.step)}
    if view.base is not None and view.base.has(*pair):
        other = _pairs(view, say=False).get(state.step)
        if other is not None:
            steps["baseline_grid"] = (view.base, other)
    for name, (run, step) in steps.items():
        if step in run.steps:
            rows = run.rows(*pair)
            if (rows["step"] == step).any():
                found[name] = head_grid(run, probe=pair[0], metric=pair[1], step=step)
    return found


PAGE = Page(
    name="trajectory",
    title="Trajectory",
    icon=":material/play_circle:",
    question="when each head became what it is: the whole series plays in the browser, the baseline beside it",
    draw=draw,
    commands=lambda view: [export.strongest(view, top=N_TOP)],
    notebook=_notebook,
    needs=("prefix_matching",),
    state=("show", "align"),
    figures=("curves",),
    component=True,
    static_figures=grids,
)
