"""Still figures of what a page draws with its own components: the grid and the circuit at the step looked at. No Streamlit."""

from __future__ import annotations

import plotly.graph_objects as go

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import circuits, comparing
from byrote.dashboard.circuits import Edge, Wiring
from byrote.dashboard.page import View
from byrote.dashboard.run_cache import run_cache
from byrote.dashboard.saved import SavedRun
from byrote.interp.axes import head_label
from byrote.probes.figures import difference_grid, head_grid
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.theme import paint
from byrote.probes.wording import clean, markup, number, short, step_number

MAX_EDGES = 60


def grids(view: View) -> dict[str, go.Figure]:
    """The grid at the step, and the baseline's at the step that stands beside it."""
    state, found = view.state, {}
    if not state.probe:
        return {}
    pair = (state.probe, state.metric)
    steps = {"grid": (view.run, state.step)}
    if view.base is not None and view.base.has(*pair):
        other = _pairs(view).get(state.step)
        if other is not None:
            steps["baseline_grid"] = (view.base, other)
    for name, (run, step) in steps.items():
        if step in run.measured_steps:
            rows = run.rows(*pair)
            if (rows["step"] == step).any():
                found[name] = head_grid(run.part(pair), probe=pair[0], metric=pair[1], step=step)
    return found


def grids_and_difference(view: View) -> dict[str, go.Figure]:
    """The same, and the run minus the baseline."""
    state, found = view.state, grids(view)
    if view.base is None or not state.probe:
        return found
    try:
        comparison = comparing.comparison_of(view.run, view.base, state.align, state.step)
        return found | {
            "difference_grid": difference_grid(comparison, probe=state.probe, metric=state.metric)
        }
    except ByroteError:
        return found  # the page says why the two cannot be compared


def _pairs(view: View) -> dict[int, int]:
    assert view.base is not None
    try:
        return dict(comparing.pairs_of(view.run, view.base, view.state.align))
    except ByroteError:
        return {}


def circuit(view: View) -> dict[str, go.Figure]:
    """The edges at the step, as many as the page draws by default."""
    state = view.state
    found = circuits.wiring(view.run, state.way)
    edges = found.edges.get(state.step, [])
    if not edges:
        return {}
    least = circuits.default_least(found, state.step) if state.z is None else state.z
    return {"circuit": circuit_figure(view.run, state.way, state.step, least)}


@run_cache(6)
def circuit_figure(run: SavedRun, way: str, step: int, least: float) -> go.Figure:
    """Heads in rows by layer, the strongest edges between them, those of the induction circuit in the second colour."""
    found: Wiring = circuits.wiring(run, way)
    edges = [edge for edge in found.edges.get(step, []) if edge.z >= least][:MAX_EDGES]
    n_layers, n_heads = run.shape
    fig = go.Figure()
    for on_path, colour in ((False, "series0"), (True, "series1")):
        for edge in (e for e in edges if e.on_path is on_path):
            fig.add_scatter(
                x=[edge.source[1], edge.target[1]], y=[edge.source[0], edge.target[0]], mode="lines", name=_arrow(edge),
                line={"color": paint(colour), "width": round(min(5.0, 1 + edge.z / 4), 2)}, hoverinfo="name",
            )  # fmt: skip
    heads = sorted({end for edge in edges for end in (edge.source, edge.target)})
    fig.add_scatter(
        x=[h for _, h in heads], y=[l for l, _ in heads], mode="markers", name="heads",
        marker={"size": 10, "color": paint("ink"), "symbol": "circle"}, hovertext=[head_label(*h) for h in heads], hoverinfo="text",
    )  # fmt: skip
    for l, h in heads:
        fig.add_annotation(
            x=h,
            y=l,
            text=head_label(l, h),
            showarrow=False,
            yshift=14,
            font={"size": 12, "color": paint("ink")},
        )
    fig.update_layout(
        xaxis={
            "range": [-0.8, n_heads - 0.2],
            "title": {"text": "head"},
            "showgrid": False,
            "zeroline": False,
        },
        yaxis={
            "range": [-0.6, n_layers - 0.2],
            "title": {"text": "layer"},
            "showgrid": False,
            "zeroline": False,
        },
    )
    for axis, n in ((fig.layout.xaxis, n_heads), (fig.layout.yaxis, n_layers)):
        ticks = list(range(0, n, -(-n // 16)))
        axis.update(tickmode="array", tickvals=ticks, ticktext=[str(t) for t in ticks])
    best = edges[0] if edges else None
    said = (
        "No edge is that strong" if best is None else f"The strongest is {_arrow(best)}, z {number(best.z)}"
    )
    name = circuits.WAY_NAMES[way]
    return finish(
        fig, Canvas(height_px=max(320, 150 + 26 * n_layers)),
        title=f"{name} in {markup(short(run.name))}, step {step_number(step)}",
        subtitle=f"{len(edges)} edges with z of at least {least:g} · orange: previous token to induction",
        alt=f"{name} between heads of {clean(run.name)} at step {step_number(step)}: {len(edges)} edges with z of at least {least:g}. {said}.",
    )  # fmt: skip


def _arrow(edge: Edge) -> str:
    return f"{head_label(*edge.source)} → {head_label(*edge.target)}"
