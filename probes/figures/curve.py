"""One curve the way this project draws curves: the raw line, its 95% band, its name at its end, its holes marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from byrote.probes.figures.canvas import Canvas
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, Style, paint
from byrote.probes.wording import estimate, markup

LABEL_GAP_PX = 17
LABEL_CHAR_PX = 7
LABEL_MAX_CHARS = 26


@dataclass(frozen=True)
class Curve:
    """One line with its interval.

    Attributes:
        label: name at the line's end; plain text.
        x: positions on the axis, ascending.
        y, lo, hi: value and 95% interval; None where it was not measured.
        hover: one line per point.
        style: colour and dash.
        doubted: value at points that lint asked to leave out, None elsewhere; empty where there are none.
    """

    label: str
    x: tuple[Real, ...]
    y: tuple[Real | None, ...]
    lo: tuple[Real | None, ...]
    hi: tuple[Real | None, ...]
    hover: tuple[str, ...]
    style: Style
    doubted: tuple[Real | None, ...] = ()

    @classmethod
    def of(
        cls, rows: pd.DataFrame, x: Iterable[Real], *, label: str, at: Sequence[str], style: Style
    ) -> Curve:
        """The curve of tidy rows, one point per row.

        Args:
            rows: observations in drawing order.
            x: where each row stands.
            label: the line's name.
            at: what each point is called in its hover text, such as `step 512`.
            style: colour and dash.
        """
        records = list(rows.itertuples(index=False))
        values = [[float(getattr(r, c)) if r.valid else None for r in records] for c in ("value", "lo", "hi")]
        hover = tuple(
            f"{markup(label)}, {point}<br>{markup(estimate(r))}" for r, point in zip(records, at, strict=True)
        )
        doubted = tuple(float(r.value) if getattr(r, "left_out", False) else None for r in records)
        return cls(
            label, tuple(float(v) for v in x), *(tuple(column) for column in values), hover, style, doubted
        )

    @property
    def end(self) -> tuple[Real, Real] | None:
        """The last measured point."""
        points = [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None]
        return points[-1] if points else None


def add_curve(fig: go.Figure, curve: Curve, *, floor: Real, axes: dict[str, str] | None = None) -> None:
    """Draw the band, the line, a cross on the floor wherever a point was not measured, a grey ring where lint doubts it.

    Args:
        fig: drawn onto.
        curve: what to draw.
        floor: the y at which unmeasured points are marked.
        axes: `{"xaxis": "x2", "yaxis": "y2"}` for another panel.
    """
    axes = axes or {}
    x, y = _band(curve)
    if x:
        fig.add_scatter(
            x=x, y=y, name="95% interval", mode="lines", line={"width": 0, "color": curve.style.band},
            fill="toself", fillcolor=curve.style.band, hoverinfo="skip", **axes,
        )  # fmt: skip
    fig.add_scatter(
        x=list(curve.x), y=list(curve.y), name=markup(curve.label), mode="lines+markers",
        line={"color": curve.style.color, "width": 2, "dash": curve.style.dash},
        marker={"size": 6, "color": curve.style.color, "symbol": curve.style.symbol},
        hovertext=list(curve.hover), hoverinfo="text", connectgaps=False, **axes,
    )  # fmt: skip
    doubted = [i for i, value in enumerate(curve.doubted) if value is not None]
    if doubted:
        fig.add_scatter(
            x=[curve.x[i] for i in doubted], y=[curve.doubted[i] for i in doubted], name="left out by lint",
            mode="markers", marker={"symbol": "circle-open", "size": 7, "color": paint("muted")},
            hovertext=[curve.hover[i] for i in doubted], hoverinfo="text", **axes,
        )  # fmt: skip
    holes = [i for i, value in enumerate(curve.y) if value is None and i not in set(doubted)]
    if holes:
        fig.add_scatter(
            x=[curve.x[i] for i in holes], y=[floor] * len(holes), name="not measured", mode="markers",
            marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": curve.style.color}},
            hovertext=[curve.hover[i] for i in holes], hoverinfo="text", cliponaxis=False, **axes,
        )  # fmt: skip


def add_chance(fig: go.Figure, x: Sequence[Real], chance: Sequence[Real | None], **axes: str) -> None:
    """The dotted chance line, with its hover text."""
    if any(c is not None for c in chance):
        text = ["" if c is None else f"chance {c:.3g}" for c in chance]
        fig.add_scatter(
            x=list(x), y=list(chance), name="chance", mode="lines",
            line={"color": paint("muted"), "width": 1.5, "dash": "dot"}, hovertext=text, hoverinfo="text", **axes,
        )  # fmt: skip


def label_margin_px(labels: Iterable[str]) -> int:
    """Right margin that holds the end labels."""
    longest = max((min(len(label), LABEL_MAX_CHARS) for label in labels), default=0)
    return 40 + LABEL_CHAR_PX * longest


def label_ends(
    fig: go.Figure,
    curves: Sequence[Curve],
    *,
    canvas: Canvas,
    y_range: tuple[Real, Real],
    log_x: bool = False,
) -> None:
    """Write each curve's name beside its last point, pushed apart where lines end close together.

    Args:
        fig: drawn onto; its height must become `canvas.height_px`.
        curves: those that get a name; a curve without any measured point gets none.
        canvas: size, from which pixels per unit follow.
        y_range: the drawn y range.
        log_x: whether the x axis is a log axis (annotations then want the exponent).
    """
    ended = [(curve, curve.end) for curve in curves if curve.end is not None]
    per_unit = canvas.plot_px / (y_range[1] - y_range[0])
    wanted = [(y_range[1] - y) * per_unit for _, (_, y) in ended]
    placed = spread(wanted, gap=LABEL_GAP_PX, lo=0, hi=canvas.plot_px)
    for (curve, (x, y)), want, place in zip(ended, wanted, placed, strict=True):
        fig.add_annotation(_end_label(curve, (math.log10(x) if log_x else x, y), shift_px=place - want))


def spread(wanted: Sequence[Real], *, gap: Real, lo: Real, hi: Real) -> list[Real]:
    """Positions as near as possible to those wanted, at least `gap` apart, in the same order.

    Clusters that collide move as one to the mean of what they wanted (pool adjacent violators).

    Args:
        wanted: positions, any order.
        gap: smallest distance between two.
        lo: lowest allowed position.
        hi: highest allowed, kept only while everything fits.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[Real, int]] = []  # (first position, how many)
    for i in order:
        start, size = wanted[i], 1
        while blocks and blocks[-1][0] + blocks[-1][1] * gap > start:
            before, count = blocks.pop()
            start = (before * count + (start - count * gap) * size) / (count + size)
            size += count
        blocks.append((start, size))
    placed = [start + k * gap for start, size in blocks for k in range(size)]
    for k in range(len(placed)):
        placed[k] = max(placed[k], lo + k * gap)
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], hi - (len(placed) - 1 - k) * gap)
    result = [0.0] * len(wanted)
    for i, place in zip(order, placed, strict=True):
        result[i] = place
    return result


def _band(curve: Curve) -> tuple[list[Real | None], list[Real | None]]:
    """The band as closed outlines, one per unbroken stretch, None between them."""
    x: list[Real | None] = []
    y: list[Real | None] = []
    stretch: list[int] = []
    for i in range(len(curve.x) + 1):
        if i < len(curve.x) and curve.lo[i] is not None and curve.hi[i] is not None:
            stretch.append(i)
        elif stretch:
            back = stretch[::-1]
            x += [curve.x[k] for k in stretch + back] + [None]
            y += [curve.hi[k] for k in stretch] + [curve.lo[k] for k in back] + [None]
            stretch = []
    return x[:-1], y[:-1]


def _end_label(curve: Curve, point: tuple[Real, Real], *, shift_px: Real) -> dict[str, Any]:
    return {
        "x": point[0], "y": point[1], "xref": "x", "yref": "y", "text": markup(curve.label, limit=LABEL_MAX_CHARS),
        "xanchor": "left", "yanchor": "middle", "align": "left",
        "showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": curve.style.color, "standoff": 5,
        "ax": 24, "ay": shift_px, "font": {"size": SMALL_FONT_SIZE_PX, "color": paint("ink")},
    }  # fmt: skip
