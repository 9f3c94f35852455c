"""Circuit: which heads are wired to which, and since when?"""

from __future__ import annotations

import streamlit as st

from byrote.dashboard import circuits, findings
from byrote.dashboard.components.circuit_graph import circuit_graph
from byrote.dashboard.page import Page, how_computed, literal, nothing, panel
from byrote.dashboard.query_params import link, words_of
from byrote.dashboard.session import View, follow, go
from byrote.probes.figures.words import probe_name, step_number

TITLE = "Circuit"
ICON = ":material/account_tree:"
GRAPH = "graph"
TABLE_HEIGHT_PX = 420


def draw(view: View, page: Page) -> None:
    """The graph, which plays over the steps, and the table that says the same."""
    run, state = view.run, view.state
    if run.shape[0] == 1:
        page.title(f"{run.name} has one layer: composition needs two")
        nothing("A head can only read what an earlier layer wrote.")
        return
    found = (
        circuits.wiring(run, state.way)
        if run.has("composition", f"{state.way}_z")
        else circuits.Wiring({}, {}, ())
    )
    page.title(circuits.finding(run, found, way=state.way, step=state.step))
    _ways(view)
    if not any(found.edges.values()):
        nothing(
            found.reasons[0] if found.reasons else "Composition was not measured in this run.",
            "byrote run PATH -p composition -o results",
        )
        return
    least = state.z if state.z is not None else circuits.default_least(found, state.step)
    with panel("the graph"):
        circuit_graph(
            run, state, found, least=least, theme=view.theme, events=findings.events(run), key=GRAPH,
            on_head=follow(GRAPH, "head"), on_step=follow(GRAPH, "step", int), on_z=follow(GRAPH, "z", float),
        )  # fmt: skip
        _legend(view)
    with panel("the edges"):
        _edges(view, page, found, least)


def _ways(view: View) -> None:
    st.session_state["w_way"] = view.state.way
    st.segmented_control(
        "Composition", words_of("way"), key="w_way", required=True, format_func=lambda w: circuits.WAY_NAMES[w], label_visibility="collapsed",
        on_change=lambda: go(way=st.session_state["w_way"] or "k", z=None),
    )  # fmt: skip


def _legend(view: View) -> None:
    state = view.state
    with st.container(horizontal=True, vertical_alignment="center"):
        if state.head and view.pages:
            st.page_link(
                view.pages["head"],
                label=f"Open {state.head}",
                icon=":material/arrow_forward:",
                query_params=link(state),
            )
        what = probe_name(state.probe) if state.probe else "nothing measured"
        st.caption(
            literal(
                f"Node size and colour: {what}. Edge width: z against random rotations. Later layers read from earlier ones below."
            )
        )
        how_computed(["composition", "previous_token", "induction", "induction_circuit"], key="how_circuit")


def _edges(view: View, page: Page, found: circuits.Wiring, least: float) -> None:
    frame = circuits.edges_frame(view.run, found, way=view.state.way, step=view.state.step, least=least)
    if frame.empty:
        nothing(
            f"No edge reaches z {least:g} at step {step_number(view.state.step)}.", "Move the threshold down."
        )
        return
    targets = list(frame["to"])

    def picked() -> None:
        rows = st.session_state["table_edges"]["selection"]["rows"]
        if rows and rows[0] < len(targets):
            go(head=targets[rows[0]])

    page.table(
        frame, "edges",
        caption=f"Edges of {circuits.WAY_NAMES[view.state.way]} with z of at least {least:g} at step {step_number(view.state.step)}; "
        "z is against random rotations that keep every spectrum, a lenient null for trained weights.",
        on_select=picked, selection_mode="single-row", height="content" if len(frame) < 11 else TABLE_HEIGHT_PX,
        column_config={
            "z": st.column_config.NumberColumn("z", format="%.2f"),
            **{name: st.column_config.NumberColumn(name, format="%.3f") for name in ("excess over null", "prefix matching change when cut")},
        },
    )  # fmt: skip
