"""How far back the strongest heads look: mean attention at every offset."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from byrote.interp.axes import head_label, parse_head
from byrote.probes.figures.axis import round_ticks, value_axis
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.curve import Curve, add_chance, add_curve, label_ends, label_margin_px
from byrote.probes.figures.rows import at_step, has, observations, one_head, top_heads
from byrote.probes.figures.theme import series_style
from byrote.probes.wording import clean, interval, markup, short, step_number

N_HEADS_SHOWN = 3


def offset_profile(
    results: Any, *, heads: Iterable[str | tuple[int, int]] | None = None, step: int | None = None
) -> go.Figure:
    """Mean attention by offset q-k for a few heads of one run.

    Args:
        results: a `Results`.
        heads: heads to draw; None takes the three strongest on prefix_matching, or on peak_mass without it.
        step: training step; None is the last.

    Returns:
        Offset in tokens on x, attention fraction on y, 95% bands, uniform attention dotted.

    Raises:
        ByroteError: the results hold no `offset_profile`, or not that step or head.
    """
    rows, step = at_step(observations(results, probe="offset_profile", metric="profile"), step)
    possible = rows.loc[rows["valid"], "position"].unique()  # the last offset has no key but position 0
    rows = rows[rows["position"].isin(possible)].sort_values("position")
    chosen = [parse_head(h) for h in heads] if heads is not None else _strongest(results, step)
    curves = []
    for index, head in enumerate(chosen):
        mine = one_head(rows, head)
        at = [tokens_back(p) for p in mine["position"]]
        curves.append(
            Curve.of(mine, mine["position"], label=head_label(*head), at=at, style=series_style(index))
        )
    chance = rows[rows["valid"]].groupby("position")["chance"].median()
    highest = max([v for c in curves for v in c.hi if v is not None] + list(chance.dropna()), default=1.0)
    y_axis = value_axis(0.0, 1.05 * highest, title="mean attention fraction")
    canvas = Canvas(height_px=340, right_px=label_margin_px(c.label for c in curves))
    fig = go.Figure()
    add_chance(fig, [float(p) for p in chance.index], [None if pd.isna(c) else float(c) for c in chance])
    for curve in curves:
        add_curve(fig, curve, floor=y_axis["range"][0])
    label_ends(fig, curves, canvas=canvas, y_range=tuple(y_axis["range"]))
    last = max((x for c in curves for x in c.x), default=1.0)
    ticks = round_ticks(0.0, last, about=8)
    x_axis = {"range": [-0.01 * last, 1.01 * last], "tickmode": "array", "tickvals": ticks}
    x_axis |= {"ticktext": [f"{t:g}" for t in ticks], "title": {"text": "offset: tokens back from the query"}}
    fig.update_layout(xaxis=x_axis, yaxis=y_axis)
    return finish(
        fig, canvas, title=f"Attention by offset, {markup(short(results.run))}, step {step_number(step)}",
        subtitle="band: 95% interval over sequences · dotted: uniform attention",
        alt=_finding(curves, f"{clean(results.run)} at step {step_number(step)}"),
    )  # fmt: skip


def tokens_back(offset: Real) -> str:
    """`1 token back`, `17 tokens back`."""
    return f"{int(offset)} token{'' if offset == 1 else 's'} back"


def _strongest(results: Any, step: int) -> list[tuple[int, int]]:
    probe, metric = ("prefix_matching", "score") if has(results, probe="prefix_matching", valid=True) else (
        "offset_profile", "peak_mass")  # fmt: skip
    rows = observations(results, probe=probe, metric=metric)
    rows = rows[rows["step"] == step]
    return top_heads(rows, N_HEADS_SHOWN)


def _finding(curves: list[Curve], where: str) -> str:
    parts = []
    for curve in curves:
        peak = max(
            (i for i, y in enumerate(curve.y) if y is not None), key=lambda i: curve.y[i], default=None
        )
        if peak is not None:
            score = interval(curve.y[peak], curve.lo[peak], curve.hi[peak])
            parts.append(f"{curve.label} peaks {tokens_back(curve.x[peak])} at {score}")
    return f"Attention by offset of {where}: {'; '.join(parts) or 'no head was measured'}."
