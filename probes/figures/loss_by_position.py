"""Loss of real text by place in the context: does more context go on helping?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.figures.axis import value_axis
from probes.figures.canvas import Canvas, finish
from probes.figures.curve import Curve, add_chance, add_curve, label_ends, label_margin_px
from probes.figures.rows import as_list, at_step, observations, typical_chance
from probes.figures.theme import run_styles
from probes.figures.words import chance_number, clean, interval, short, step_number

MAX_POINTS = 48


def loss_by_position(results_list: Any, *, step: int | None = None, base: str | None = None) -> go.Figure:
    """Mean loss of the t-th token after BOS, one line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.

    Returns:
        Place in the context on a log x axis, nats on y, 95% bands, chance dotted. Of a long context, places spread
        evenly over the log axis, as many as can be told apart.

    Raises:
        RoteError: the results hold no `loss_by_position`, or not that step.
    """
    runs = as_list(results_list)
    styles = run_styles([r.run for r in runs], base=base)
    curves, chances, steps = [], [], []
    for results in runs:
        rows, at = at_step(observations(results, probe="loss_by_position", metric="loss"), step)
        rows = spread_places(rows)
        names = [f"step {step_number(at)}, token {int(p):,}" for p in rows["position"]]
        curves.append(
            Curve.of(rows, rows["position"], label=short(results.run), at=names, style=styles[results.run])
        )
        chances += [c for c in [typical_chance(rows)] if c is not None]
        steps.append(at)
    last = max((x for c in curves for x in c.x), default=1.0)
    highest = max([*chances, *(v for c in curves for v in c.hi if v is not None)], default=1.0)
    y_axis = value_axis(0.0, 1.04 * highest, title="loss, nats")
    canvas = Canvas(height_px=360, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    if chances:
        add_chance(fig, [1.0, last], [chances[0], chances[0]])
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]), log_x=True)
    fig.update_layout(xaxis=_places_axis(last), yaxis=y_axis)
    level = f" · dotted: chance {chance_number(chances[0])}" if chances else ""
    when = f"step {step_number(steps[0])}" if len(set(steps)) == 1 else "each run's last step"
    return finish(
        fig, canvas, title=f"Loss of real text by place in the context, {when}",
        subtitle=f"band: 95% interval over sequences{level}", alt=_finding(runs, curves),
    )  # fmt: skip


def spread_places(rows: pd.DataFrame, most: int = MAX_POINTS) -> pd.DataFrame:
    """Rows in order of their place: all, or `most` of them spread evenly over a log axis, first and last among them."""
    rows = rows.sort_values("position")
    if len(rows) <= most:
        return rows
    chosen = np.unique(np.round(np.geomspace(1, len(rows), most)).astype(int))
    return rows.iloc[chosen - 1]


def _places_axis(last: float) -> dict[str, Any]:
    room = 0.03 * math.log10(max(last, 2.0))
    ticks = [2**k for k in range(int(math.log2(max(last, 1.0))) + 1)]
    return {
        "type": "log",
        "range": [-room, math.log10(max(last, 2.0)) + room],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{t:,}" for t in ticks],
        "title": {"text": "token after BOS, log scale"},
        "minorloglabels": "none",
    }


def _finding(runs: list[Any], curves: list[Curve]) -> str:
    parts = []
    for results, curve in zip(runs, curves, strict=True):
        points = [i for i, y in enumerate(curve.y) if y is not None]
        if not points:
            parts.append(f"{clean(results.run)}: not measured")
            continue
        first, last = (interval(curve.y[i], curve.lo[i], curve.hi[i]) for i in (points[0], points[-1]))
        at = f"{int(curve.x[points[-1]]):,}"
        parts.append(f"{clean(results.run)}: {first} nats on the first token, {last} on token {at}")
    return f"Loss of real text by place in the context. {'; '.join(parts)}."
