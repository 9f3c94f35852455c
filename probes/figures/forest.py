"""Forest plots: values in rows under each other, dots with their intervals as bars, a reference line, the numbers in words beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from byrote.probes.figures.axis import axis_layout, value_axis
from byrote.probes.figures.canvas import Canvas, Figure, Look, Trace, add_panel, finish, note, scatter
from byrote.probes.figures.theme import paint
from byrote.probes.wording import markup

ROW_PX, TWO_LINES_PX = 26, 42
PANEL_EXTRA_PX = 66
_TITLE_PX = 20


@dataclass(frozen=True)
class Mark:
    """A value in a row.

    Attributes:
        name: of the trace it belongs to, with its like in other rows.
        value, lo, hi: with its interval; ends that are NaN have no bar, infinite ones reach the edge of the panel.
        color: as `theme.paint` gives it.
        hover: its text.
        filled: whether the dot is filled.
        symbol: of plotly.
        shift: down from the middle of the row, in rows, where several would lie on each other.
    """

    name: str
    value: float
    lo: float
    hi: float
    color: str
    hover: str
    filled: bool = True
    symbol: str = "circle"
    shift: float = 0.0


@dataclass(frozen=True)
class ForestRow:
    """A row of a panel.

    Attributes:
        label: at the left, plain text; `forest` escapes it.
        marks: the values.
        words: at the right, in words.
        tone: colour token of the words.
    """

    label: str
    marks: tuple[Mark, ...]
    words: str = ""
    tone: str = "ink"


@dataclass(frozen=True)
class Panel:
    """Rows that share an axis.

    Attributes:
        rows: from top to bottom.
        title: of the axis, with its unit.
        reference: where the vertical line stands.
        head: what stands above the rows; "" for nothing.
        names: traces in drawing order; () is the order in which they appear.
        row_px: height of a row.
    """

    rows: tuple[ForestRow, ...]
    title: str
    reference: float = 0.0
    head: str = ""
    names: tuple[str, ...] = ()
    row_px: int = ROW_PX

    @property
    def height_px(self) -> int:
        """With its axis and its head."""
        return PANEL_EXTRA_PX + self.row_px * len(self.rows) + self._head_px

    @property
    def _head_px(self) -> int:
        return _TITLE_PX if self.head else 0

    def draw(self, layout: dict[str, Any], *, top_px: int, plot_px: int) -> list[Trace]:
        """The reference line, intervals and dots; axes, and the words at the right, go into the layout.

        Args:
            layout: of the figure, with its annotations; added to.
            top_px: of the panel below the top of the plot.
            plot_px: height of the whole plot.
        """
        n, marks = len(self.rows), [mark for row in self.rows for mark in row.marks]
        ends = [end for mark in marks for end in (mark.lo, mark.hi, mark.value) if math.isfinite(end)]
        lo, hi = min(self.reference, *ends), max(self.reference, *ends)
        x = value_axis(lo, hi if hi > lo else lo + 1.0, title=self.title, room_frac=0.05)
        y = axis_layout((n - 0.5, -0.5), range(n), [row.label for row in self.rows])
        y |= {"showgrid": False, "ticks": ""}
        top_px += self._head_px
        at = (top_px / plot_px, (top_px + self.row_px * n) / plot_px)
        axes = add_panel(layout, x | {"showgrid": True}, y, at=at)
        line = {"color": paint("muted"), "width": 1}
        traces = [scatter("zero", [self.reference] * 2, [-0.5, n - 0.5], line=line, **axes)]
        placed = [(k, mark) for k, row in enumerate(self.rows) for mark in row.marks]
        for name in self.names or dict.fromkeys(mark.name for mark in marks):
            mine = [(k, mark) for k, mark in placed if mark.name == name]
            traces += [_dots(name, mine, x["range"], axes)] if mine else []
        if self.head:
            over: dict[str, Any] = {
                "yref": "paper",
                "y": 1 - at[0],
                "yanchor": "bottom",
                "xanchor": "left",
                "yshift": 3,
            }
            layout["annotations"].append(note(markup(self.head), x=0, tone="ink", **over))
        side = {"yref": axes["yaxis"], "xanchor": "left", "yanchor": "middle", "xshift": 10}
        for k, row in enumerate(self.rows):
            if row.words:
                layout["annotations"].append(note(row.words, x=1, y=k, tone=row.tone, **side))
        return traces


def forest(
    panels: Sequence[Panel],
    *,
    title: str,
    subtitle: str,
    alt: str,
    look: Look,
    table: Callable[[], pd.DataFrame],
) -> Figure:
    """Panels under each other; on a web page the words stand below the labels, since both sides leave a phone no room for a plot.

    Args:
        panels: at least one.
        title, subtitle, alt, look, table: as `canvas.finish` takes them.
    """
    rows = [row for panel in panels for row in panel.rows]
    left = max(len(row.label) for row in rows)
    panels = [
        replace(panel, rows=tuple(replace(row, label=markup(row.label)) for row in panel.rows))
        for panel in panels
    ]
    if look.width != "full" and any(row.words for row in rows):
        panels, left = [_below(panel) for panel in panels], max(left, *(len(row.words) for row in rows))
        rows = [row for panel in panels for row in panel.rows]
    canvas = Canvas(
        height_px=76 + sum(panel.height_px for panel in panels),
        bottom_px=8,
        left_px=24 + 7 * left,
        right_px=26 + 7 * max(len(row.words) for row in rows),
    )
    layout: dict[str, Any] = {"annotations": []}
    traces: list[Trace] = []
    top_px = 0
    for panel in panels:
        traces += panel.draw(layout, top_px=top_px, plot_px=canvas.plot_px)
        top_px += panel.height_px
    fig = Figure({"data": traces, "layout": layout})
    return finish(fig, canvas, title=title, subtitle=subtitle, alt=alt, look=look, table=table)


def _below(panel: Panel) -> Panel:
    """The panel with its rows' words below their labels."""
    rows = tuple(replace(row, label=f"{row.label}<br>{row.words}", words="") for row in panel.rows)
    return replace(panel, rows=rows, row_px=TWO_LINES_PX)


def _dots(
    name: str, placed: Sequence[tuple[int, Mark]], x_range: Sequence[float], axes: dict[str, Any]
) -> Trace:
    """(row, mark) of one trace, which look alike."""
    first = placed[0][1]
    fill = first.color if first.filled else paint("paper")
    marker: dict[str, Any] = {"size": 8, "color": fill, "line": {"width": 1.5, "color": first.color}}
    if first.symbol != "circle":
        marker["symbol"] = first.symbol
    ends = [_bar(one, x_range) for _, one in placed]
    bars = {
        "type": "data", "symmetric": False, "color": first.color, "thickness": 1.5, "width": 0,
        "array": [hi - one.value for (_, hi), (_, one) in zip(ends, placed, strict=True)],
        "arrayminus": [one.value - lo for (lo, _), (_, one) in zip(ends, placed, strict=True)],
    }  # fmt: skip
    x, y = [one.value for _, one in placed], [k + one.shift if one.shift else k for k, one in placed]
    return scatter(name, x, y, marker=marker, error_x=bars, hover=[one.hover for _, one in placed], **axes)


def _bar(mark: Mark, x_range: Sequence[float]) -> tuple[float, float]:
    """Ends of a bar inside the panel; the dot alone where there is no interval."""
    if math.isnan(mark.lo) or math.isnan(mark.hi):
        return mark.value, mark.value
    return max(mark.lo, x_range[0]), min(mark.hi, x_range[1])
