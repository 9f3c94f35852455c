"""Circuit: which heads are wired to which, and since when?"""

from __future__ import annotations

import streamlit as st

from byrote.dashboard import export, figure_cache, findings
from byrote.dashboard.components.base import show
from byrote.dashboard.components.circuit_graph import graph_data
from byrote.dashboard.page import (
    Drawing,
    Page,
    View,
    bound,
    follow,
    go,
    how_computed,
    nothing,
    page_link,
    panel,
)
from byrote.dashboard.query_params import words_of
from byrote.probes.figures import Figure
from byrote.probes.figures.circuit import CHANGE, WAY_NAMES, Wiring, edges_table
from byrote.probes.findings_circuit import circuit
from byrote.probes.paths import paths
from byrote.probes.wording import literal, probe_name, step_number

GRAPH = "graph"
TABLE_HEIGHT_PX = 420


def draw(view: View, page: Drawing) -> None:
    """The graph, which plays over the steps, and the table that says the same."""
    run, state = view.run, view.state
    if run.shape[0] == 1:
        page.title("Composition needs two layers, and this model has one")
        nothing("A head can only read what an earlier layer wrote.")
        return
    measured = run.has("composition", f"{state.way}_z")
    found = figure_cache.wiring(run, state.way) if measured else Wiring({}, {}, ())
    page.title(circuit(run, way=state.way, step=state.step))
    st.segmented_control(
        "Composition", words_of("way"), required=True, format_func=lambda w: WAY_NAMES[w],
        label_visibility="collapsed", **bound("way", state.way, z=None),
    )  # fmt: skip
    if not any(found.edges.values()):
        why = found.reasons[0] if found.reasons else "Composition was not measured in this run."
        nothing(why, view.page.command)
        return
    least = state.z if state.z is not None else found.default_least(state.step)
    with panel("the graph"):
        data = graph_data(run, state, found, least=least, theme=view.theme, events=findings.events(run))
        show(
            "circuit_graph", data, key=GRAPH,
            head=follow(GRAPH, "head"), step=follow(GRAPH, "step", int), z=follow(GRAPH, "z", float),
        )  # fmt: skip
        _legend(view)
        if not paths(run, state.step):
            command = export.run_command(run, "-p", "induction_circuit")
            st.caption(
                literal(
                    f"No path was ablated at this step. To measure which paths the heads need: {command}",
                    limit=1000,
                )
            )
    with panel("the edges"):
        _edges(view, page, found, least)


def _legend(view: View) -> None:
    state = view.state
    with st.container(horizontal=True, vertical_alignment="center"):
        if state.head:
            page_link(view, "head", f"Open {state.head}", icon=":material/arrow_forward:")
        what = probe_name(state.probe) if state.probe else "nothing measured"
        st.caption(
            literal(
                f"Node colour: role of the head; size: {what}. Orange edge: prefix matching falls when this path is ablated. Edge width: composition z, "
                "a guide for exploring: the pair with the highest z is not necessarily the one that matters. Later layers read from earlier ones below.",
                limit=400,
            )
        )
        how_computed([*PAGE.needs, "previous_token", "induction", "induction_circuit"], key="how_circuit")


def _edges(view: View, page: Drawing, found: Wiring, least: float) -> None:
    way, step = view.state.way, view.state.step
    frame = edges_table(view.run, found, way=way, step=step, least=least)
    if frame.empty:
        nothing(f"No edge reaches z {least:g} at step {step_number(step)}.", "Lower the threshold.")
        return
    targets = list(frame["to"])
    page.choices(
        frame, "edges", lambda row: go(head=targets[row]),
        caption=f"Ablated paths first, then {WAY_NAMES[way]} with z of at least {least:g} at step {step_number(step)}. "
        "z shows which pairs stand out among the pairs of their two layers, not what they do.",
        height="content" if len(frame) < 11 else TABLE_HEIGHT_PX,
        column_config={
            "z": st.column_config.NumberColumn("z", format="%.2f"),
            "z this high since step": st.column_config.NumberColumn(format="localized"),
            **{name: st.column_config.NumberColumn(name, format="%.3f") for name in ("excess over rotations", CHANGE)},
        },
    )  # fmt: skip


def _commands(view: View) -> list[str]:
    metric, step = f"{view.state.way}_z", str(view.state.step)
    if not view.run.has("composition", metric):
        return [export.strongest(view)]
    return [
        *(
            [export.show(view.run, "--probe", "induction_circuit", "--step", step)]
            if view.run.has("induction_circuit")
            else []
        ),
        export.show(view.run, "--probe", "composition", "--metric", metric, "--step", step, "--top", "12"),
    ]


def _notebook(view: View) -> list[str]:
    metric = f"{view.state.way}_z"
    if not view.run.has("composition", metric):
        return ["run"]
    name = WAY_NAMES[view.state.way]
    return [
        f"figures.circuit(run, way={view.state.way!r}, step={view.state.step})",
        f"edges = run.select('composition', {metric!r}, step={view.state.step})  # {name}",
        "edges[edges['valid']].nlargest(12, 'value')",
    ]


def static_figures(view: View) -> dict[str, Figure]:
    """The edges at the step, as many as the page draws by default."""
    state = view.state
    found = figure_cache.wiring(view.run, state.way)
    if not found.edges.get(state.step):
        return {}
    least = found.default_least(state.step) if state.z is None else state.z
    return {"circuit": figure_cache.circuit(view.run, state.way, state.step, least)}


PAGE = Page(
    name="circuit",
    title="Circuit",
    icon=":material/account_tree:",
    question="which earlier head induction heads need: ablated paths over training, and composition to explore",
    draw=draw,
    commands=_commands,
    notebook=_notebook,
    needs=("composition",),
    state=("way", "z"),
    component=True,
    static_figures=static_figures,
)
