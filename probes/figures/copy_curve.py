"""Loss on the first, second, ... copy of one paragraph: does another copy still help?"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from probes.figures.axis import value_axis
from probes.figures.canvas import Canvas, finish
from probes.figures.curve import Curve, add_chance, add_curve, label_ends, label_margin_px
from probes.figures.rows import as_list, at_step, observations, typical_chance
from probes.figures.theme import run_styles
from probes.figures.words import chance_number, clean, interval, short, step_number


def copy_curve(results_list: Any, *, step: int | None = None, base: str | None = None) -> go.Figure:
    """Mean loss on the X-th copy, one line per run.

    Args:
        results_list: one `Results` or several.
        step: training step; None is each run's last.
        base: name of the baseline run.

    Returns:
        Copy index on x, nats on y, 95% bands, chance dotted.

    Raises:
        RoteError: the results hold no `copy_curve`, or not that step.
    """
    runs = as_list(results_list)
    styles = run_styles([r.run for r in runs], base=base)
    curves, chances, steps = [], [], []
    for results in runs:
        rows, at = at_step(observations(results, probe="copy_curve", metric="loss"), step)
        rows = rows.sort_values("position")
        names = [f"step {step_number(at)}, copy {int(p)}" for p in rows["position"]]
        curves.append(
            Curve.of(rows, rows["position"], label=short(results.run), at=names, style=styles[results.run])
        )
        chances += [c for c in [typical_chance(rows)] if c is not None]
        steps.append(at)
    last = max((x for c in curves for x in c.x), default=1.0)
    highest = max([*chances, *(v for c in curves for v in c.hi if v is not None)], default=1.0)
    y_axis = value_axis(0.0, 1.04 * highest, title="loss on this copy, nats")
    canvas = Canvas(height_px=360, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    if chances:
        add_chance(fig, [1.0, last], [chances[0], chances[0]])
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]))
    every = max(1, round(last / 12))
    ticks = list(range(1, int(last) + 1, every))
    x_axis = {
        "range": [1 - 0.03 * max(1.0, last - 1), last + 0.02 * max(1.0, last - 1)],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [str(t) for t in ticks],
    }
    fig.update_layout(
        xaxis=x_axis | {"title": {"text": "copy of the paragraph in one context"}}, yaxis=y_axis
    )
    level = f" · dotted: chance {chance_number(chances[0])}" if chances else ""
    when = f"step {step_number(steps[0])}" if len(set(steps)) == 1 else "each run's last step"
    return finish(
        fig, canvas, title=f"Loss from copy to copy, {when}", subtitle=f"band: 95% interval over sequences{level}",
        alt=_finding(runs, curves),
    )  # fmt: skip


def _finding(runs: list[Any], curves: list[Curve]) -> str:
    parts = []
    for results, curve in zip(runs, curves, strict=True):
        points = [i for i, y in enumerate(curve.y) if y is not None]
        if not points:
            parts.append(f"{clean(results.run)}: not measured")
            continue
        first, last = (interval(curve.y[i], curve.lo[i], curve.hi[i]) for i in (points[0], points[-1]))
        parts.append(f"{clean(results.run)}: {first} nats on the first copy, {last} on the last")
    return f"Loss per copy. {'; '.join(parts)}."
