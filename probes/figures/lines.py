"""Line plots: the raw line, its 95% band, its name at its end, its gaps marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import NUMBERS, Canvas, Figure, Trace, finish, note, scatter, switched_on
from byrote.probes.figures.theme import Style, paint
from byrote.probes.results.rows import row_label
from byrote.probes.wording import estimate, markup

INTERVAL = "95% interval"
LABEL_GAP_PX = 17
LABEL_CHAR_PX = 7
LABEL_MAX_CHARS = 26


@dataclass(frozen=True)
class Line:
    """One line with its interval.

    Attributes:
        label: name at the line's end; plain text.
        rows: the observations drawn, one point each, in drawing order.
        x: positions on the axis, ascending.
        hover: one line per point.
        style: colour and dash.
        name: what a table calls it; the label where empty.
        points: whether each has a marker; a curve that was worked out has none.
        band: what lies between `lo` and `hi`.
    """

    label: str
    rows: pd.DataFrame
    x: tuple[float, ...]
    hover: tuple[str, ...]
    style: Style
    name: str = ""
    points: bool = True
    band: str = INTERVAL

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

    @classmethod
    def bare(
        cls,
        points: Sequence[tuple[int, float]],
        axis: StepAxis,
        *,
        label: str,
        hover: Sequence[str],
        style: Style,
    ) -> Line:
        """A line of (step, value) without intervals.

        Args:
            points: in drawing order.
            axis: that places the steps.
            label: the line's name.
            hover: one text per point.
            style: colour and dash.
        """
        nothing = dict.fromkeys(("lo", "hi", "chance"), math.nan)
        nowhere = dict.fromkeys(("layer", "head", "src_layer", "src_head", "position"), pd.NA)
        rows = pd.DataFrame(points, columns=["step", "value"])
        rows = rows.assign(**nothing, **nowhere, n=0, valid=True, reason="", left_out=False)
        return cls(label, rows, tuple(axis.place(step) for step, _ in points), tuple(hover), style)

    def column(self, name: str) -> list[float | None]:
        """`value`, `lo` or `hi` of each point; None where it was not measured."""
        pairs = zip(self.rows[name], self.rows["valid"], strict=True)
        return [float(v) if ok and not pd.isna(v) else None for v, ok in pairs]

    @property
    def end(self) -> tuple[float, float] | None:
        """The last measured point."""
        points = [(x, y) for x, y in zip(self.x, self.column("value"), strict=True) if y is not None]
        return points[-1] if points else None

    def traces(self, *, floor: float, axes: Mapping[str, Any] | None = None) -> list[Trace]:
        """The band, the line, a cross on the floor wherever a point was not measured, a grey ring where lint flagged it.

        Args:
            floor: the y at which unmeasured points are marked.
            axes: `{"xaxis": "x2", "yaxis": "y2"}` for another panel.
        """
        color, traces = self.style.color, list[Trace]()
        values, more = self.column("value"), axes or {}
        x, y = self._band()
        if x:
            band = {"width": 0, "color": self.style.band}
            traces.append(
                scatter(self.band, x, y, line=band, fill="toself", fillcolor=self.style.band, **more)
            )
        line = {"color": color, "width": 2, "dash": self.style.dash}
        marker = {"size": 6, "color": color, "symbol": self.style.symbol} if self.points else None
        name, hover = markup(self.label), list(self.hover)
        traces.append(
            scatter(name, self.x, values, line=line, marker=marker, hover=hover, connectgaps=False, **more)
        )

        def marks(name: str, at: list[int], y: list[float], marker: dict[str, Any], **options: Any) -> Trace:
            x, hover = [self.x[i] for i in at], [self.hover[i] for i in at]
            return scatter(name, x, y, marker=marker, hover=hover, **options, **more)

        flags = self.rows["left_out"] if "left_out" in self.rows else [False] * len(values)
        flagged = [i for i, flag in enumerate(flags) if flag]
        if flagged:
            ring = {"symbol": "circle-open", "size": 7, "color": paint("muted")}
            traces.append(
                marks(
                    "left out by lint", flagged, self.rows["value"].iloc[flagged].astype(float).tolist(), ring
                )
            )
        holes = [i for i, value in enumerate(values) if value is None and i not in set(flagged)]
        if holes:
            cross = {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": color}}
            traces.append(marks("not measured", holes, [floor] * len(holes), cross, cliponaxis=False))
        return traces

    def _band(self) -> tuple[list[float | None], list[float | None]]:
        """The band as closed outlines, one per unbroken stretch, None between them."""
        x: list[float | None] = []
        y: list[float | None] = []
        points = zip(self.x, self.column("lo"), self.column("hi"), strict=True)
        for known, part in groupby(points, key=lambda point: None not in point):
            if known:
                places, lo, hi = zip(*part, strict=True)
                x += [*places, *places[::-1], None]
                y += [*hi, *lo[::-1], None]
        return x[:-1], y[:-1]


def chance_trace(x: Sequence[float], chance: Sequence[float | None], **axes: Any) -> list[Trace]:
    """The dotted chance line with its hover text; nothing where no chance level is known."""
    if all(c is None for c in chance):
        return []
    hover = ["" if c is None else f"chance {c:.3g}" for c in chance]
    line = {"color": paint("muted"), "width": 1.5, "dash": "dot"}
    return [scatter("chance", x, chance, line=line, hover=hover, **axes)]


def loss_axis(
    lines: Iterable[Line], chances: Iterable[float | None], *, title: str, room: float = 1.04
) -> dict[str, Any]:
    """A value axis from 0 to a little above the highest interval and the chance levels."""
    highest = (*chances, *(v for line in lines for v in line.column("hi")))
    return value_axis(0.0, room * max((v for v in highest if v is not None), default=1.0), title=title)


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
    table = table or (lambda: table_of(lines, by))
    return finish(fig, canvas, table=table, by=by, **words)


def table_of(lines: Sequence[Line], by: tuple[str, ...]) -> pd.DataFrame:
    """The rows of some lines as a figure's table; `lo` and `hi` are ends of 95% intervals, and of nothing else."""
    parts = []
    for line in lines:
        at = line.rows[by[0] if by[0] in line.rows else "position"].astype(int)
        rows = line.rows if line.band == INTERVAL else line.rows.assign(lo=math.nan, hi=math.nan)
        parts.append(numbers_of(rows).assign(**{by[0]: at, by[1]: line.name or line.label}))
    columns = [*by, "where", *NUMBERS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def numbers_of(rows: pd.DataFrame) -> pd.DataFrame:
    """`where`, `value`, `lo`, `hi`, `chance`, `n` and `reason` of observations; NaN and a reason where not measured."""
    found = rows.reindex(columns=[*NUMBERS])
    valid = rows["valid"].astype(bool)
    found[["value", "lo", "hi", "chance"]] = found[["value", "lo", "hi", "chance"]].astype(float).where(valid)
    heads = rows.reindex(columns=["layer", "head"]).itertuples(index=False)
    return found.assign(where=[row_label(head) for head in heads])


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
    ended = [(line, end) for line in lines if (end := line.end) is not None]
    px_per_unit = height_px / (y_range[1] - y_range[0])
    wanted = [(y_range[1] - y) * px_per_unit for _, (_, y) in ended]
    placed = spread(wanted, gap=LABEL_GAP_PX, lo=0, hi=height_px)
    arrow = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "standoff": 5, "ax": 24}
    side = {"xref": f"x{panel}", "yref": f"y{panel}", "xanchor": "left", "yanchor": "middle", "align": "left"}
    return [
        note(
            markup(line.label, limit=LABEL_MAX_CHARS),
            x=math.log10(x) if log_x else x,
            y=y,
            tone="ink",
            **side,
        )
        | {**arrow, "arrowcolor": line.style.color, "ay": place - want}
        for (line, (x, y)), want, place in zip(ended, wanted, placed, strict=True)
    ]


def spread(wanted: Sequence[float], *, gap: float, lo: float, hi: float) -> list[float]:
    """Positions as near as possible to those wanted, at least `gap` apart, in the same order.

    Clusters that collide move as one to the mean of what they wanted (pool adjacent violators).

    Args:
        wanted: positions, any order.
        gap: smallest distance between two.
        lo: lowest allowed position.
        hi: highest allowed, used only while everything fits.
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
