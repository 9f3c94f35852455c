"""What every figure shares: its style, size and title, its data as a table, and its text alternative."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.figures.svg_room import CHAR_PX, below, beside, wide_px
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, THEMES, paint, recolour, template
from byrote.probes.wording import clean, interval

WIDTHS = ("full", "page", "half")
LEAST_PX = 480  # that a page gives a figure
TITLE_CHARS, SUBTITLE_CHARS, LINE_PX = 50, 68, 15  # of those, in its fonts
SEE_THROUGH = "rgba(0,0,0,0)"
Trace = dict[str, Any]
NUMBERS = ("value", "lo", "hi", "chance", "n", "reason")

# What can be switched off, and the traces it is made of (by the start of their name).
VISUALS = {
    "band": ("95% interval", "lowest to highest seed"),
    "chance": ("chance",),
    "context": ("every head", "other heads"),
    "onset": ("onset of",),
    "not measured": ("not measured",),
    "left out": ("left out by lint",),
}


@dataclass(frozen=True)
class Look:
    """How a figure is to be shown; every figure function takes one as `look`.

    Attributes:
        theme: "light" or "dark".
        width: "full" for notebooks and reports. "page" for a web page as narrow as a phone: the title is broken into
            lines, the page's own ground shows, and tick labels are level, as many as fit. "half" for half of such a page.

    Raises:
        ByroteError: there is no such theme or width.
    """

    theme: str = "light"
    width: str = "full"

    def __post_init__(self) -> None:
        for name, value, known in (("theme", self.theme, THEMES), ("width", self.width, WIDTHS)):
            if value not in known:
                raise ByroteError(f"there is no {name} {value!r}", help=did_you_mean(value, known))


FULL = Look()


class Figure(go.Figure):
    """A plotly figure with its finding in words and its data as a table.

    Attributes:
        by: the column of `table` that names the rows of the wide table, and the one that names its columns. Such a
            table is tidy and has also `where` (the head), `value`, `lo`, `hi`, `chance`, `n`, and `reason` where not
            measured. () where the table has columns of its own.
    """

    by: tuple[str, ...] = ()
    _table: Callable[[], pd.DataFrame] = pd.DataFrame
    _counts: Callable[[], str] = str

    @property
    def table(self) -> pd.DataFrame:
        """The numbers drawn, made when they are read."""
        return self._table()

    @property
    def counts(self) -> str:
        """Steps, n and chance in words, for a caption; "" where the table says them by row."""
        return self._counts()

    @property
    def alt(self) -> str:
        """One or two sentences that state the finding, plain text."""
        return str((self.layout.meta or {}).get("alt", ""))

    def wide(self) -> pd.DataFrame:
        """The table as people read it: one row per step, copy or head, one column per line or panel."""
        table = self.table
        if not self.by:
            return table
        rows, columns = self.by
        words = [_in_words(row) for row in table.itertuples(index=False)]
        cells = table[[rows, columns]].assign(words=words).drop_duplicates([rows, columns])
        order = {name: list(dict.fromkeys(cells[name])) for name in self.by}
        grid = cells.pivot(index=rows, columns=columns, values="words")
        grid = grid.reindex(index=order[rows], columns=order[columns]).fillna("")
        return grid.rename_axis(columns=None).reset_index()


def _in_words(row: Any) -> str:
    """`L1H0 0.81 [0.78, 0.84]`, or why there is no number."""
    if pd.isna(row.value):
        return f"not measured: {clean(row.reason) or 'no reason was recorded'}"
    return f"{row.where} {interval(row.value, row.lo, row.hi)}".strip()


@dataclass(frozen=True)
class Canvas:
    """Height and margins in pixels. The width is left to the page.

    Attributes:
        height_px: of the whole figure.
        top_px, bottom_px, left_px, right_px: margins around the plot.
    """

    height_px: int
    top_px: int = 66
    bottom_px: int = 54
    left_px: int = 64
    right_px: int = 24

    @property
    def plot_px(self) -> int:
        """Height of the plot itself."""
        return self.height_px - self.top_px - self.bottom_px


def switched_on(traces: Iterable[dict[str, Any]], visuals: Mapping[str, bool] | None) -> list[dict[str, Any]]:
    """The traces without the parts that are switched off.

    Args:
        traces: with names.
        visuals: name in `VISUALS`, or "labels" for all writing inside the plot, to False; True changes nothing.

    Raises:
        ByroteError: an unknown name.
    """
    for name in visuals or {}:
        if name not in (*VISUALS, "labels"):
            raise ByroteError(f"figures have no part {name!r}", help=did_you_mean(name, [*VISUALS, "labels"]))
    hidden = [VISUALS[name] for name, shown in (visuals or {}).items() if not shown and name != "labels"]
    off = tuple(start for names in hidden for start in names)
    return [trace for trace in traces if not str(trace["name"]).startswith(off)]


def finish(
    fig: Figure,
    canvas: Canvas,
    *,
    title: str,
    subtitle: str,
    alt: str,
    look: Look = FULL,
    table: Callable[[], pd.DataFrame] = pd.DataFrame,
    by: tuple[str, ...] = (),
    counts: Callable[[], str] = str,
) -> Figure:
    """Give a figure its size, words, template, table and look.

    Args:
        fig: traces and axes in place.
        canvas: size.
        title: what is drawn; already escaped for plotly.
        subtitle: chance, interval and n in words; already escaped.
        alt: one sentence that states the finding, plain text.
        look: theme and width.
        table: makes the data as a table, see `Figure`.
        by: see `Figure`.
        counts: makes steps, n and chance in words, see `Figure`.

    Returns:
        The same figure, or in the dark a new one.
    """
    height, top = canvas.height_px, canvas.top_px
    if look.width != "full":
        lines, below = _lines(title, TITLE_CHARS, at=" "), _lines(subtitle, SUBTITLE_CHARS, at=" · ")
        extra = LINE_PX * (len(lines) + len(below) - 2)
        title, subtitle, height, top = "<br>".join(lines), "<br>".join(below), height + extra, top + extra
        ground = fig.layout.plot_bgcolor or SEE_THROUGH  # grids keep the ground that marks empty cells
        fig.update_layout(paper_bgcolor=SEE_THROUGH, plot_bgcolor=ground)
        _level_ticks(fig, LEAST_PX - canvas.left_px - canvas.right_px)
    below_title = {"text": subtitle, "font": {"size": SMALL_FONT_SIZE_PX, "color": paint("muted")}}
    frame = {
        "template": template(),
        "height": height,
        "margin": {"t": top, "b": canvas.bottom_px, "l": canvas.left_px, "r": canvas.right_px},
        "title": {"text": title, "y": 1 - 14 / height, "yanchor": "top", "subtitle": below_title},
        "meta": {"alt": alt, "theme": "light"},
    }
    # One by one: `update_layout` takes four times as long for nested values.
    for name, value in frame.items():
        fig.layout[name] = value
    fig._table, fig._counts, fig.by = table, counts, by
    return fig if look.theme == "light" else apply_theme(fig, look.theme)


def apply_theme(fig: go.Figure, theme: str) -> Figure:
    """The same figure in the other theme's colours.

    Args:
        fig: a figure made by `byrote.probes.figures`; not changed.
        theme: `"light"` or `"dark"`.

    Returns:
        A new figure. Only colours differ; data, sizes and text are the same.

    Raises:
        ByroteError: the theme has another name.
    """
    Look(theme)
    spec = fig.to_plotly_json()
    meta = spec["layout"].get("meta") or {}
    if meta.get("theme", "light") != theme:
        spec = recolour(spec, theme)
    spec["layout"]["meta"] = {**meta, "theme": theme}
    themed = Figure(spec)
    if isinstance(fig, Figure):
        themed._table, themed._counts, themed.by = fig._table, fig._counts, fig.by
    return themed


def _lines(text: str, most: int, *, at: str) -> list[str]:
    """Text filled into lines, broken at a separator, which stays at the line's end; plotly cuts off what does not fit."""
    lines = [""]
    for part in text.split(at):
        longer = lines[-1] + (at if lines[-1] else "") + part
        if lines[-1] and len(html.unescape(longer)) > most:
            lines[-1] += at.rstrip()
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def _level_ticks(fig: Figure, room_px: float) -> None:
    """Level labels on the x axes; of those that would touch in so wide a plot only some.

    Of evenly spaced ones every second, third ... of them; of others as many as fit, the first and the last among them.
    """
    for axis in fig.select_xaxes():
        if axis.tickvals is not None and axis.ticktext is not None and axis.range is not None:
            lo, hi = axis.range
            share = (axis.domain[1] - axis.domain[0] if axis.domain else 1.0) / ((hi - lo) or 1.0)
            at = [math.log10(value) if axis.type == "log" else value for value in axis.tickvals]
            labels = [
                (abs(x - lo) * abs(share) * room_px, text) for x, text in zip(at, axis.ticktext, strict=True)
            ]
            gaps = [b - a for a, b in itertools.pairwise(at)]
            if gaps and math.isclose(min(gaps), max(gaps), rel_tol=1e-6):
                chosen = below(labels, max(wide_px(text) for _, text in labels) + CHAR_PX)
            elif len(chosen := beside(labels)) > 1:
                chosen[0] = min(labels)  # the second one touches neither
            shown = set(chosen)
            axis.ticktext = [label[1] if label in shown else "" for label in labels]
        axis.tickangle = 0


def note(text: str, *, x: float, y: float, tone: str = "muted", **place: Any) -> dict[str, Any]:
    """A small annotation, in paper coordinates unless `place` says otherwise; `tone` is its colour token."""
    font = {"size": SMALL_FONT_SIZE_PX, "color": paint(tone)}
    return {"text": text, "x": x, "y": y, "xref": "paper", "yref": "paper", "showarrow": False, "font": font, **place}  # fmt: skip


def scatter(
    name: str,
    x: Sequence[float | None],
    y: Sequence[float | None],
    *,
    line: dict[str, Any] | None = None,
    marker: dict[str, Any] | None = None,
    hover: str | Sequence[str] | None = None,
    **more: Any,
) -> Trace:
    """A trace of lines, of markers, or of both, as there is a style for each.

    Args:
        name: what it is, already escaped for plotly.
        x, y: one place per point; None breaks a line.
        line, marker: plotly's styles.
        hover: text per point, or of all; None says nothing where `more` has no `hoverinfo`.
        more: other entries of the trace, such as its axes.
    """
    mode = "+".join(word for word, style in (("lines", line), ("markers", marker)) if style is not None)
    styles = {"line": line, "marker": marker}
    hover_settings = {"hoverinfo": "skip"} if hover is None else {"hoverinfo": "text", "hovertext": hover}
    shown = {word: style for word, style in styles.items() if style is not None}
    return {
        "type": "scatter",
        "name": name,
        "x": list(x),
        "y": list(y),
        "mode": mode,
        **shown,
        **hover_settings,
        **more,
    }


def heatmap(
    cells: Sequence[Sequence[float | None]], *, hover: Sequence[Sequence[str]] | None, **more: Any
) -> Trace:
    """A trace of cells on the shared colour axis, at whole numbers from 0; None is an empty cell.

    Args:
        cells: [row][column].
        hover: [row][column]; None shows what stands at the axes, and the value.
        more: other entries of the trace.
    """
    hover_settings = {"hoverinfo": "x+y+z"} if hover is None else {"hoverinfo": "text", "hovertext": hover}
    return {
        "type": "heatmap",
        "z": cells,
        "coloraxis": "coloraxis",
        "hoverongaps": False,
        **hover_settings,
        **more,
    }


def add_panel(
    layout: dict[str, Any], x: dict[str, Any], y: dict[str, Any], *, at: tuple[float, float]
) -> dict[str, Any]:
    """Add one more pair of axes to a layout of panels under each other.

    Args:
        layout: what is added to.
        x, y: the axes.
        at: top and bottom, as shares of the plot from its top.

    Returns:
        The names of the axes as traces want them.
    """
    n = sum(key.startswith("xaxis") for key in layout) + 1
    end = "" if n == 1 else str(n)
    domain = [max(0.0, 1 - at[1]), min(1.0, 1 - at[0])]
    layout[f"xaxis{end}"] = x | {"anchor": f"y{end}"}
    layout[f"yaxis{end}"] = y | {"anchor": f"x{end}", "domain": domain}
    return {"xaxis": f"x{end}", "yaxis": f"y{end}"}


def empty(*, title: str, reason: str, look: Look = FULL) -> Figure:
    """A figure that says why there is nothing to draw."""
    hidden = {"visible": False}
    notes = [note(f"not measured: {reason}", x=0.5, y=0.5)]
    fig = Figure({"layout": {"xaxis": hidden, "yaxis": hidden, "annotations": notes}})
    return finish(
        fig, Canvas(height_px=160), title=title, subtitle="", alt=f"Nothing to draw: {reason}.", look=look
    )
