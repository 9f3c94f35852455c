"""Every head against itself: in another run at one step, and at the run's own beginning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.interp.axes import head_label
from byrote.probes.figures.axis import value_axis
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, finish
from byrote.probes.figures.cells import MAX_HEADS_WITH_VALUES, MAX_LAYERS_WITH_TEXT, color_axis, grid_axes
from byrote.probes.figures.differences import table_of
from byrote.probes.figures.lines import Trace
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.registry import REGISTRY
from byrote.probes.rules import UNCLEAR, change
from byrote.probes.wording import clean, markup, number, probe_name, sentence_case, short, step_number

N_LABELLED = 5


def head_scatter(
    comparison: Any, *, probe: str, metric: str = "score", head: str = "", look: Look = FULL
) -> Figure:
    """Every head in A against itself in B, with the diagonal; those farthest from it are named.

    Args:
        comparison: what `byrote.compare` returned.
        probe: a head probe's name.
        metric: one of its metrics.
        head: label of a head to name in any case.
        look: theme and width.

    Returns:
        Filled points are clear changes, hollow ones are not.
    """
    rows = comparison.rows
    mine = (rows["probe"] == probe) & (rows["metric"] == metric)
    rows = rows[mine & rows["layer"].notna() & rows["position"].isna()]
    x, y = rows["a"].to_numpy(dtype=float), rows["b"].to_numpy(dtype=float)
    lo, hi = float(min([*x, *y], default=0.0)), float(max([*x, *y], default=1.0))
    info = REGISTRY[probe]
    lo, hi = info.range if info.range and info.unit_of(metric) == info.unit else (lo, max(hi, lo + 1e-6))
    a, b = markup(short(comparison.a)), markup(short(comparison.b))
    labels = [str(label) for label in rows["head_a"]]
    clear = [change(row) != UNCLEAR for row in rows.itertuples(index=False)]
    line = {"color": paint("muted"), "width": 1, "dash": "dot"}
    traces: list[Trace] = [
        {"type": "scatter", "x": [lo, hi], "y": [lo, hi], "mode": "lines", "line": line, "hoverinfo": "skip", "name": "equal"}
    ]  # fmt: skip
    for name, keep, symbol in (("clear change", True, "circle"), (UNCLEAR, False, "circle-open")):
        at = [i for i, c in enumerate(clear) if c is keep]
        marker = {"size": 9, "color": paint("series0" if keep else "muted"), "symbol": symbol}
        hover = [f"{labels[i]}: {a} {number(x[i])}, {b} {number(y[i])}" for i in at]
        place = {"x": [float(x[i]) for i in at], "y": [float(y[i]) for i in at]}
        traces.append({"type": "scatter", **place, "mode": "markers", "name": name, "marker": marker, "hovertext": hover, "hoverinfo": "text"})  # fmt: skip
    named = set(np.argsort(-np.abs(y - x))[:N_LABELLED].tolist())
    named |= {i for i, label in enumerate(labels) if label == head}
    first = labels.index(head) if head in labels else -1
    font = {"color": paint("ink"), "size": SMALL_FONT_SIZE_PX}
    notes = [
        {"x": float(x[i]), "y": float(y[i]), "text": labels[i], "showarrow": False, "xanchor": "left", "xshift": 7, "yshift": 8, "font": font}
        for i in _apart(named, x, y, least=0.05 * (hi - lo), first=first)
    ]  # fmt: skip
    axes = [value_axis(lo, hi, title=f"{name}: {probe_name(probe)}") for name in (a, b)]
    said = "nothing in common"
    if len(rows):
        i = int(np.abs(y - x).argmax())
        said = f"{labels[i]} differs most: {number(x[i])} in {comparison.a}, {number(y[i])} in {comparison.b}"
    return finish(
        Figure({"data": traces, "layout": {"xaxis": axes[0], "yaxis": axes[1], "annotations": notes}}),
        Canvas(height_px=430, left_px=68), title=f"{sentence_case(probe_name(probe))}, head by head",
        subtitle="dotted: equal · filled: clear change · hollow: no clear change",
        alt=f"{len(rows)} heads of {clean(comparison.a)} against {clean(comparison.b)} on {probe_name(probe)}; {clean(said)}.",
        look=look, table=lambda: table_of(rows),
    )  # fmt: skip


def change_grid(
    results: Any,
    *,
    probe: str,
    metric: str = "score",
    first: int | None = None,
    step: int | None = None,
    look: Look = FULL,
) -> Figure:
    """Every head at a step minus itself at an earlier one, zero-centred on the width of the probe's range.

    Args:
        results: a `Results`.
        probe: a head probe's name.
        metric: one of its metrics.
        first: the earlier step; None is the first that was measured.
        step: the later step; None is the last that was measured.
        look: theme and width.

    Raises:
        ByroteError: the results hold no such probe or metric.
    """
    results.require(probe, metric)
    cube = results.cube(probe, metric)
    usable = [s for i, s in enumerate(cube.steps) if cube.valid[i].any()]
    first, step = (usable[0] if first is None else first), (usable[-1] if step is None else step)
    a, b = (np.where(cube.valid[cube.index(s)], cube.value[cube.index(s)], np.nan) for s in (first, step))
    differences, width = b - a, cube.limits[1] - cube.limits[0]
    n_layers, n_heads = differences.shape
    heat = _heat(a, b, written=n_heads <= MAX_HEADS_WITH_VALUES and n_layers <= MAX_LAYERS_WITH_TEXT)
    x, y = grid_axes((n_layers, n_heads))
    layout = {"xaxis": x, "yaxis": y, "plot_bgcolor": paint("void"), "coloraxis": color_axis((-width, width))}
    layer, head = np.unravel_index(int(np.nanargmax(np.abs(differences))), differences.shape)
    what = probe_name(probe) + ("" if metric in ("score", "") else f" ({probe_name(metric)})")

    def table() -> pd.DataFrame:
        rows = [(head_label(i, j), a[i, j], b[i, j], differences[i, j]) for i, j in np.ndindex(a.shape)]
        steps = [f"step {step_number(s)}" for s in (first, step)]
        return pd.DataFrame(rows, columns=["head", *steps, "difference"])

    return finish(
        Figure({"data": [heat], "layout": layout}),
        Canvas(height_px=130 + n_layers * max(14, min(46, 420 // n_layers)), left_px=58, right_px=116, bottom_px=48),
        title=f"{sentence_case(what)}, step {step_number(step)} minus step {step_number(first)}",
        subtitle="one run against itself: no interval",
        alt=f"{head_label(int(layer), int(head))} of {clean(results.run)} changes most on {what} from step {step_number(first)} "
        f"to {step_number(step)}: {number(float(differences[layer, head]), sign=True)}.",
        look=look, table=table,
    )  # fmt: skip


def _heat(
    a: Float[np.ndarray, "layer head"], b: Float[np.ndarray, "layer head"], *, written: bool
) -> dict[str, Any]:
    """The cells: the difference to colour, both values to hover, the difference to read where there is room."""
    difference = b - a
    n_layers, n_heads = a.shape
    heat = {
        "type": "heatmap", "z": [[None if np.isnan(v) else float(v) for v in row] for row in difference],
        "x": list(range(n_heads)), "y": list(range(n_layers)), "coloraxis": "coloraxis", "xgap": 2, "ygap": 2,
        "hovertext": [[f"{head_label(i, j)}: {number(a[i, j])} to {number(b[i, j])}" for j in range(n_heads)] for i in range(n_layers)],
        "hoverinfo": "text", "hoverongaps": False,
    }  # fmt: skip
    if written:
        heat["text"] = [
            [number(v, places=2, sign=True) if np.isfinite(v) else "" for v in row] for row in difference
        ]
        heat["texttemplate"] = "%{text}"
    return heat


def _apart(
    chosen: set[int],
    x: Float[np.ndarray, " heads"],
    y: Float[np.ndarray, " heads"],
    *,
    least: float,
    first: int,
) -> list[int]:
    """Those of the chosen whose names would not lie on each other; the first always."""
    kept: list[int] = []
    for i in sorted(chosen, key=lambda i: (i != first, -abs(y[i] - x[i]))):
        if all(max(abs(x[i] - x[k]) / 2.5, abs(y[i] - y[k])) >= least for k in kept):
            kept.append(i)
    return kept
