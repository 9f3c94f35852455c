"""A model's loss by place, one line per run at one step: what curves over copies and over the context share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from byrote.probes.figures.axis import value_axis
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.curve import Curve, add_chance, add_curve, label_ends, label_margin_px
from byrote.probes.figures.rows import as_list, at_step, observations, typical_chance
from byrote.probes.figures.theme import run_styles
from byrote.probes.wording import chance_number, clean, interval, short, step_number


@dataclass(frozen=True)
class Places:
    """What tells one such figure from another.

    Attributes:
        probe: whose metric `loss` is drawn.
        title: of the figure, before its step.
        y_title: of the value axis.
        place: name of a place, `copy`.
        last: a place, as the finding calls the last one.
        x_axis: layout of the place axis, from the last place.
        chosen: rows that are drawn, in order of their place.
        log_x: whether the place axis is logarithmic.
    """

    probe: str
    title: str
    y_title: str
    place: str
    last: Callable[[float], str]
    x_axis: Callable[[float], dict[str, Any]]
    chosen: Callable[[pd.DataFrame], pd.DataFrame]
    log_x: bool = False


def loss_over_places(results_list: Any, what: Places, *, step: int | None, base: str | None) -> go.Figure:
    """One line per run with its band, chance dotted.

    Args:
        results_list: one `Results` or several.
        what: which figure.
        step: training step; None is each run's last.
        base: name of the baseline run.

    Raises:
        ByroteError: the results hold no such probe, or not that step.
    """
    runs = as_list(results_list)
    styles = run_styles([r.run for r in runs], base=base)
    curves, chances, steps = [], [], []
    for results in runs:
        rows, at = at_step(observations(results, probe=what.probe, metric="loss"), step)
        rows = what.chosen(rows)
        names = [f"step {step_number(at)}, {what.place} {int(p):,}" for p in rows["position"]]
        style, label = styles[results.run], short(results.run)
        curves.append(Curve.of(rows, rows["position"], label=label, at=names, style=style))
        chances += [c for c in [typical_chance(rows)] if c is not None]
        steps.append(at)
    last = max((x for c in curves for x in c.x), default=1.0)
    highest = max([*chances, *(v for c in curves for v in c.hi if v is not None)], default=1.0)
    y_axis = value_axis(0.0, 1.04 * highest, title=what.y_title)
    canvas = Canvas(height_px=360, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    if chances:
        add_chance(fig, [1.0, last], [chances[0], chances[0]])
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]), log_x=what.log_x)
    fig.update_layout(xaxis=what.x_axis(last), yaxis=y_axis)
    level = f" · dotted: chance {chance_number(chances[0])}" if chances else ""
    when = f"step {step_number(steps[0])}" if len(set(steps)) == 1 else "each run's last step"
    return finish(
        fig, canvas, title=f"{what.title}, {when}", subtitle=f"band: 95% interval over sequences{level}",
        alt=_finding(runs, curves, what),
    )  # fmt: skip


def _finding(runs: list[Any], curves: list[Curve], what: Places) -> str:
    parts = []
    for results, curve in zip(runs, curves, strict=True):
        points = [i for i, y in enumerate(curve.y) if y is not None]
        if not points:
            parts.append(f"{clean(results.run)}: not measured")
            continue
        first, last = (interval(curve.y[i], curve.lo[i], curve.hi[i]) for i in (points[0], points[-1]))
        at = what.last(curve.x[points[-1]])
        parts.append(f"{clean(results.run)}: {first} nats on the first {what.place}, {last} on {at}")
    return f"{what.title}. {'; '.join(parts)}."
