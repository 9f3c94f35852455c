"""Lines the way this project draws them: the raw line, its 95% band, its name at its end, its holes marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.figures.axis import StepAxis
from byrote.probes.figures.canvas import NUMBERS, Canvas, Figure, finish, switched_on
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, Style, paint
from byrote.probes.wording import estimate, markup

LABEL_GAP_PX = 17
LABEL_CHAR_PX = 7
LABEL_MAX_CHARS = 26
Trace = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line with its interval.

    Attributes:
        label: name at the line's end; plain text.
        rows: the observations drawn, one point each, in drawing order.
        x: positions on the axis, ascending.
        hover: one line per point.
        style: colour and dash.
    """

    label: str
    rows: pd.DataFrame
    x: tuple[float, ...]
    hover: tuple[str, ...]
    style: Style

    @classmethod
    def of(
        cls, rows: pd.DataFrame, x: Iterable[float], *, label: str, at: Sequence[str], style: Style
    ) -> Line:
        """The line of tidy rows, one point per row.

        Args:
            rows: observations in drawing order.
            x: where each row stands.
            label: the line's name.
            at: what each point is called in its hover text, such as `step 512`.
            style: colour and dash.
        """
        hover = tuple(
            f"{markup(label)}, {point}<br>{markup(estimate(row))}"
            for row, point in zip(rows.itertuples(index=False), at, strict=True)
        )
        return cls(label, rows, tuple(float(v) for v in x), hover, style)

    def column(self, name: str) -> list[float | None]:
        """`value`, `lo` or `hi` of each point; None where it was not measured."""
        pairs = zip(self.rows[name], self.rows["valid"], strict=True)
        return [float(v) if ok and not pd.isna(v) else None for v, ok in pairs]

    @property
    def end(self) -> tuple[float, float] | None:
        """The last measured point."""
        points = [(x, y) for x, y in zip(self.x, self.column("value"), strict=True) if y is not None]
        return points[-1] if points else None

    def traces(self, *, floor: float, axes: Mapping[str, str] | None = None) -> list[Trace]:
        """The band, the line, a cross on the floor wherever a point was not measured, a grey ring where lint flagged it.

        Args:
            floor: the y at which unmeasured points are marked.
            axes: `{"xaxis": "x2", "yaxis": "y2"}` for another panel.
        """
        color, traces = self.style.color, list[Trace]()
        values = self.column("value")
        x, y = self._band()
        if x:
            traces.append(
                {
                    "name": "95% interval", "x": x, "y": y, "mode": "lines", "line": {"width": 0, "color": self.style.band},
                    "fill": "toself", "fillcolor": self.style.band, "hoverinfo": "skip",
                }
            )  # fmt: skip
        traces.append(
            {
                "name": markup(self.label), "x": list(self.x), "y": values, "mode": "lines+markers",
                "line": {"color": color, "width": 2, "dash": self.style.dash},
                "marker": {"size": 6, "color": color, "symbol": self.style.symbol},
                "hovertext": list(self.hover), "hoverinfo": "text", "connectgaps": False,
            }
        )  # fmt: skip
        flags = self.rows["left_out"] if "left_out" in self.rows else [False] * len(values)
        flagged = [i for i, flag in enumerate(flags) if flag]
        if flagged:
            y = [float(self.rows["value"].iloc[i]) for i in flagged]
            marker = {"symbol": "circle-open", "size": 7, "color": paint("muted")}
            traces.append(self._marks("left out by lint", flagged, y=y, marker=marker))
        holes = [i for i, value in enumerate(values) if value is None and i not in set(flagged)]
        if holes:
            marker = {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": color}}
            marks = self._marks("not measured", holes, y=[floor] * len(holes), marker=marker)
            traces.append(marks | {"cliponaxis": False})
        return [{"type": "scatter", **trace, **(axes or {})} for trace in traces]

    def _marks(self, name: str, at: list[int], *, y: list[Any], marker: dict[str, Any]) -> Trace:
        hover = [self.hover[i] for i in at]
        place = {"x": [self.x[i] for i in at], "y": y}
        return {"name": name, **place, "mode": "markers", "marker": marker, "hovertext": hover, "hoverinfo": "text"}  # fmt: skip

    def _band(self) -> tuple[list[float | None], list[float | None]]:
        """The band as closed outlines, one per unbroken stretch, None between them."""
        x: list[float | None] = []
        y: list[float | None] = []
        lo, hi = self.column("lo"), self.column("hi")
        stretch: list[int] = []
        for i in range(len(self.x) + 1):
            if i < len(self.x) and lo[i] is not None and hi[i] is not None:
                stretch.append(i)
            elif stretch:
                back = stretch[::-1]
                x += [self.x[k] for k in stretch + back] + [None]
                y += [hi[k] for k in stretch] + [lo[k] for k in back] + [None]
                stretch = []
        return x[:-1], y[:-1]


def chance_trace(x: Sequence[float], chance: Sequence[float | None], **axes: str) -> list[Trace]:
    """The dotted chance line with its hover text; nothing where no chance level is known."""
    if all(c is None for c in chance):
        return []
    text = ["" if c is None else f"chance {c:.3g}" for c in chance]
    line = {"color": paint("muted"), "width": 1.5, "dash": "dot"}
    return [
        {
            "type": "scatter", "name": "chance", "x": list(x), "y": list(chance), "mode": "lines", "line": line,
            "hovertext": text, "hoverinfo": "text", **axes,
        }
    ]  # fmt: skip


def lines_figure(
    lines: Sequence[Line],
    *,
    x_axis: StepAxis | dict[str, Any],
    y_axis: dict[str, Any],
    height_px: int,
    by: tuple[str, ...],
    under: Sequence[Trace] = (),
    over: Sequence[Trace] = (),
    notes: Sequence[dict[str, Any]] = (),
    visuals: Mapping[str, bool] | None = None,
    names: Sequence[str] | None = None,
    table: Callable[[], pd.DataFrame] | None = None,
    **words: Any,
) -> Figure:
    """A figure of lines over one pair of axes, each named at its end.

    Args:
        lines: what is drawn; the table holds their rows.
        x_axis: a step axis, or the layout of another.
        y_axis: layout of the value axis, with its range.
        height_px: of the figure.
        by: names of the table's row and line columns; the rows' column is that name or `position`.
        under, over: traces behind and before the lines.
        notes: annotations besides the lines' names.
        visuals: parts that are switched off, see `canvas.VISUALS`.
        names: what the table calls each line; None calls them as the figure does.
        table: another table than the lines' rows.
        words: title, subtitle, alt and look, as `finish` takes them.
    """
    canvas = Canvas(height_px=height_px, right_px=label_margin_px(line.label for line in lines))
    layout, break_mark = (
        (x_axis.layout(), x_axis.break_mark()) if isinstance(x_axis, StepAxis) else (x_axis, [])
    )
    drawn = [trace for line in lines for trace in line.traces(floor=y_axis["range"][0])]
    labels = end_labels(lines, height_px=canvas.plot_px, y_range=y_axis["range"], log_x=layout.get("type") == "log")  # fmt: skip
    notes = [*notes, *labels, *break_mark]
    shown = [] if (visuals or {}).get("labels") is False else notes
    traces = switched_on([*under, *drawn, *over], visuals)
    fig = Figure({"data": traces, "layout": {"xaxis": layout, "yaxis": y_axis, "annotations": shown}})
    table = table or (lambda: table_of(lines, by, names=names))
    return finish(fig, canvas, table=table, by=by, **words)


def table_of(lines: Sequence[Line], by: tuple[str, ...], *, names: Sequence[str] | None = None) -> pd.DataFrame:  # fmt: skip
    """The rows of some lines as a figure's table."""
    parts = []
    for name, line in zip(names or [line.label for line in lines], lines, strict=True):
        rows = line.rows
        at = rows[by[0] if by[0] in rows else "position"].astype(int)
        parts.append(numbers_of(rows).assign(**{by[0]: at, by[1]: name}))
    columns = [*by, "where", *NUMBERS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def numbers_of(rows: pd.DataFrame) -> pd.DataFrame:
    """`where`, `value`, `lo`, `hi`, `chance`, `n` and `reason` of observations; NaN and a reason where not measured."""
    found = rows.reindex(columns=[*NUMBERS])
    valid = rows["valid"].astype(bool)
    found[["value", "lo", "hi", "chance"]] = found[["value", "lo", "hi", "chance"]].astype(float).where(valid)
    heads = rows.reindex(columns=["layer", "head"]).itertuples(index=False, name=None)
    return found.assign(where=["" if pd.isna(layer) else head_label(int(layer), int(head)) for layer, head in heads])  # fmt: skip


def label_margin_px(labels: Iterable[str]) -> int:
    """Right margin that holds the end labels."""
    longest = max((min(len(label), LABEL_MAX_CHARS) for label in labels), default=0)
    return 40 + LABEL_CHAR_PX * longest


def end_labels(
    lines: Sequence[Line],
    *,
    height_px: float,
    y_range: Sequence[float],
    log_x: bool = False,
    panel: str = "",
) -> list[dict[str, Any]]:
    """Each line's name beside its last point, pushed apart where lines end close together.

    Args:
        lines: those that get a name; a line without any measured point gets none.
        height_px: of the plot, from which pixels per unit follow.
        y_range: the drawn y range.
        log_x: whether the x axis is a log axis (annotations then want the exponent).
        panel: what the names of the axes end in.
    """
    ended = [(line, line.end) for line in lines if line.end is not None]
    px_per_unit = height_px / (y_range[1] - y_range[0])
    wanted = [(y_range[1] - end[1]) * px_per_unit for _, end in ended if end]
    placed = spread(wanted, gap=LABEL_GAP_PX, lo=0, hi=height_px)
    return [
        {
            "x": math.log10(end[0]) if log_x else end[0], "y": end[1], "xref": f"x{panel}", "yref": f"y{panel}",
            "text": markup(line.label, limit=LABEL_MAX_CHARS),
            "xanchor": "left", "yanchor": "middle", "align": "left",
            "showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": line.style.color, "standoff": 5,
            "ax": 24, "ay": place - want, "font": {"size": SMALL_FONT_SIZE_PX, "color": paint("ink")},
        }
        for (line, end), want, place in zip(ended, wanted, placed, strict=True) if end
    ]  # fmt: skip


def spread(wanted: Sequence[float], *, gap: float, lo: float, hi: float) -> list[float]:
    """Positions as near as possible to those wanted, at least `gap` apart, in the same order.

    Clusters that collide move as one to the mean of what they wanted (pool adjacent violators).

    Args:
        wanted: positions, any order.
        gap: smallest distance between two.
        lo: lowest allowed position.
        hi: highest allowed, kept only while everything fits.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[tuple[float, int]] = []  # (first position, how many)
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
