"""Compare: what did this change to heads, and is it damage?"""

from __future__ import annotations

import shlex
from functools import partial

import numpy as np
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import comparing, export_figures, figure_cache, findings, reproduce
from byrote.dashboard.components.base import show
from byrote.dashboard.components.head_grid import grid_data
from byrote.dashboard.page import Drawing, Page, View, how_computed, measuring, nothing, panel, problem
from byrote.dashboard.session import bound, follow, go
from byrote.probes.comparable import ALIGNMENTS, Comparison
from byrote.probes.findings import tally
from byrote.probes.results import Results
from byrote.probes.wording import counted, literal, probe_name, step_number

GRID = "compare_grid"


def draw(view: View, page: Drawing) -> None:
    """What differs in the set-up, the grids side by side, head by head, every measure, and which heads changed."""
    base = view.base
    if base is None:
        _one_run(view, page)
        return
    comparison = _compared(view, page)
    _controls(view)
    if comparison is not None:
        st.markdown(literal(comparison.sentence, limit=1500))
        _notes(comparison)
    with panel("what differs in the set-up"):
        frame = comparing.config_frame(view.run, base)
        page.table(frame, "setup", caption="Set-up: only what differs.", height="content")
    with panel("the grids"):
        _grids(view)
    if comparison is None:
        return
    left, right = st.columns([1, 1], gap="medium")
    with left, panel("head by head"):
        compared = figure_cache.compared(view.state)
        page.figure(partial(figure_cache.scatter, view.run, base, compared), "scatter", width="half")
    with right, panel("which heads changed"):
        _turnover(view, page, comparison)
    with panel("every measure"):
        _measures(view, base, page, comparison)


def _notes(comparison: Comparison) -> None:
    """What could not be compared, one click away."""
    if comparison.notes:
        with st.popover(
            f"{counted(len(comparison.notes), 'measure')} compared in part or not: why?",
            icon=":material/info:",
            type="tertiary",
            key="notes",
        ):
            st.markdown("\n".join(f"- {literal(note, limit=300)}" for note in comparison.notes[:60]))


def _compared(view: View, page: Drawing) -> Comparison | None:
    """The comparison; where it is refused, why and what mends it."""
    base = view.base
    assert base is not None
    try:
        with st.spinner("Comparing, with intervals…", show_time=False):
            comparison = comparing.comparison_of(view.run, base, view.state.align, view.state.step)
    except ByroteError as error:
        page.title(f"{view.run.run} and {base.run} cannot be compared")
        problem(error.message, error.help)
        return None
    page.title(tally(comparison))
    st.caption(literal(comparison.sentence, limit=1000))
    pair = comparison.pairs[-1]
    if pair[1] != view.state.step:
        st.caption(
            literal(
                f"Step {step_number(view.state.step)} has no counterpart; compared at {step_number(pair[1])} and {step_number(pair[0])}."
            )
        )
    return comparison


def _controls(view: View) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="compare_controls"):
        st.button(
            "Swap the two",
            icon=":material/swap_horiz:",
            on_click=go,
            kwargs={"run": view.state.base, "base": view.state.run},
            key="swap",
            type="tertiary",
        )
        st.segmented_control("Aligned by", ALIGNMENTS, required=True, **bound("align", view.state.align))


def _grids(view: View) -> None:
    run, base, state = view.run, view.base, view.state
    if base is None or not state.probe:
        return
    if base.shape != run.shape:
        nothing("The two models differ in layers or heads: no head stands beside its like.")
        return
    pairs = comparing.pairs_of(run, base, state.align)
    data = grid_data(run, state, base=base, pairs=pairs, events=findings.events(run), difference=True)
    show(
        "head_grid", data, key=GRID, head=follow(GRID, "head"), open=follow(GRID, "open", part="head"),
        step=follow(GRID, "step", int), show=lambda: None,  # always values and their difference
    )  # fmt: skip
    how_computed([state.probe], key="how_compare")


def _turnover(view: View, page: Drawing, comparison: Comparison) -> None:
    st.subheader("Heads lost, gained, kept", anchor=False)
    assert view.base is not None
    frame = comparing.turnover_frame(
        view.run,
        view.base,
        comparing.pairs_of(view.run, view.base, view.state.align),
        step=comparison.pairs[-1][1],
    )
    if frame.empty:
        nothing("The induction verdict was not measured in both runs.", measuring("induction"))
    else:
        page.table(frame, "turnover", caption="Induction heads at this step.", height="content")
        st.caption(literal(comparing.mass_words(view.run, view.base, comparison.pairs[-1]), limit=400))
    for name, found in ((comparison.a, comparison.onset_a), (comparison.b, comparison.onset_b)):
        st.markdown(f"**{literal(name)}**: {literal(found.text, limit=400)}")
    how_computed(["induction"], key="how_turnover")


def _measures(view: View, base: Results, page: Drawing, comparison: Comparison) -> None:
    st.subheader("Every measure", anchor=False)
    page.table(
        comparing.differences_frame(comparison, head=view.state.head), "differences",
        caption=f"{comparison.b} minus {comparison.a}, paired on the same sequences; intervals cover the choice of sequences, not the training seed. "
        "An interval that holds 0 is no clear change, nor is a difference below 0.05 (scores, nats).",
        column_config={"q": st.column_config.TextColumn("q", help="p-value corrected over the heads of a metric")},
    )  # fmt: skip
    page.figure(
        partial(figure_cache.measures, view.run, base, view.state.align, view.state.step), "differences"
    )
    how_computed(list(dict.fromkeys(comparison.rows["probe"])), key="how_measures")


def _one_run(view: View, page: Drawing) -> None:
    """Nothing to compare with: the run against its own beginning."""
    run, state = view.run, view.state
    others = len(view.library.runs) > 1
    page.title(f"{run.run} against its own first checkpoint")
    st.caption(
        "Choose a baseline in the sidebar to compare two runs."
        if others
        else "One run: measure a control with the same command and it appears here, byrote run runs/control -o results"
    )
    if not state.probe:
        return
    cube = run.cube(state.probe, state.metric)
    usable = [s for s in cube.steps if cube.valid[cube.index(s)].any()]
    if len(usable) < 2 or not np.isfinite(cube.value[cube.index(state.step)]).any():
        nothing(f"{probe_name(state.probe)} was measured at {len(usable)} checkpoint; change needs two.")
        return
    with panel("the change"):
        drawn = partial(figure_cache.change, run, state.probe, state.metric, usable[0], state.step)
        page.figure(drawn, "change")
        how_computed([state.probe], key="how_change")


def _commands(view: View) -> list[str]:
    if view.base is None:
        return [reproduce.strongest(view)]
    words = ["byrote", "compare", str(view.base.path), str(view.run.path), "--align", view.state.align]
    return [shlex.join([*words, "--at", _base_step(view)]), reproduce.report(view)]


def _notebook(view: View) -> list[str]:
    state = view.state
    if view.base is None:
        if not state.probe:
            return ["run"]
        name = f"run[{state.probe!r}, {state.metric!r}]"
        return [f"scores = {name}", f"scores.at({state.step}).rows", "scores.at(scores.steps[0]).rows"]
    at = _base_step(view)
    return [
        "from byrote.probes.degradation import compare",
        f"comparison = compare(base, run, align={state.align!r}, at={at if at.isdigit() else repr(at)})",
        "figures.differences(comparison)",
        "comparison.rows",
    ]


def _base_step(view: View) -> str:
    """The step of the baseline that stands beside the one looked at; the last pair where there is none."""
    assert view.base is not None
    try:
        pairs = comparing.pairs_of(view.run, view.base, view.state.align)
    except ByroteError:
        return "last"
    return str(pairs.get(view.state.step, "last"))


PAGE = Page(
    name="compare",
    title="Compare",
    icon=":material/compare_arrows:",
    question="what a run changed against its baseline, and how surely",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    state=("align",),
    figures=("scatter", "differences"),
    component=True,
    stills=export_figures.grids_and_difference,
)
