"""Static rendering without JavaScript: plotly figures of this project as inline SVG.

Only what `byrote.probes.figures` uses is drawn (scatter lines, markers and fills, heatmaps, annotations, one colour bar);
anything else is refused, so that the still picture can never quietly differ from the live one. Theme colours become
CSS variables, so one SVG serves light, dark and print.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb, sample_colorscale

from byrote.probes.figures.svg_paths import dashes, joined, path_of, short_number
from byrote.probes.figures.svg_room import (
    below,
    beside,
    drawn_px,
    plain_text,
    wide_px,
    with_a_plot,
)
from byrote.probes.figures.theme import TOKENS
from byrote.probes.wording import clean

WIDTH_PX = 980
MAX_TITLED_CELLS = 96
N_COLOUR_LEVELS = 48  # cells share colours, so that a large grid is a few dozen paths
DARK_ABOVE = 0.179  # relative luminance of a ground on which black and white stand out equally (WCAG 2.2)
_DASHES = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in TOKENS.items()}
_RGBA = re.compile(r"rgba\((\d+), (\d+), (\d+), ([0-9.]+)\)")
_ANCHORS = {"left": "start", "center": "middle", "right": "end"}
_TITLE_GAP_PX = 13  # between the axis and the base of a vertical title, with the gap of the labels; also what a title itself takes


@dataclass(frozen=True)
class Scale:
    """A linear or log axis.

    Attributes:
        lo, hi: the drawn range; exponents of ten where `log`. May run downwards.
        start, end: pixels of `lo` and `hi`.
        log: values are placed by their logarithm.
    """

    lo: float
    hi: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        at = math.log10(value) if self.log else value
        return self.start + (at - self.lo) / (self.hi - self.lo) * (self.end - self.start)

    @property
    def length(self) -> float:
        """Pixels from end to end."""
        return abs(self.end - self.start)


@lru_cache(maxsize=1)
def still_style() -> str:
    """The style of the parts of a still figure, which the page or the file around it holds once."""
    return resources.files("byrote.probes.figures").joinpath("still.css").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def theme_variables() -> str:
    """The theme's colours as CSS variables, dark where the reader's system is."""
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in TOKENS.items()) for i in (0, 1))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def figure_svg(
    fig: go.Figure | dict[str, Any],
    *,
    name: str,
    width_px: int = WIDTH_PX,
    titles: bool = True,
    fit: bool = False,
    said_in: str = "",
) -> str:
    """Draw a figure in its light colours, as CSS variables.

    Args:
        fig: made by `byrote.probes.figures`, or its JSON.
        name: unique in the page; prefixes the ids inside.
        width_px: drawn width.
        titles: give small grids a hover title per cell.
        said_in: id of what says the same beside it; "" writes the alternative text out.
        fit: leave out tick labels, lines of cells and words beside rows that have no room, for a width the figure was not
            laid out for.

    Returns:
        One `<svg>` element, its alternative text that of the figure.

    Raises:
        ValueError: the figure uses a trace type that is not drawn here.
    """
    spec = fig if isinstance(fig, dict) else fig.to_plotly_json()
    width_px, height_px = drawn_px(spec["layout"], width_px)
    layout = {**spec["layout"], "height": height_px}
    layout = with_a_plot(layout, width_px) if fit else layout
    for trace in spec["data"]:
        if trace["type"] not in ("scatter", "heatmap"):
            raise ValueError(f"no still drawing for a {trace['type']} trace")
    frame = _Frame(layout, name, width_px, fit)
    grids = [trace["z"] for trace in spec["data"] if trace["type"] == "heatmap"]
    titled = titles and len(grids) == 1 and sum(map(len, grids[0])) <= MAX_TITLED_CELLS
    parts = frame.background(
        {trace.get("xaxis", "x") for trace in spec["data"] if trace["type"] == "scatter"}
    )
    for trace in spec["data"]:
        x_axis, y_axis = frame.axes(trace.get("xaxis", "x"), trace.get("yaxis", "y"))
        if trace["type"] == "heatmap":
            parts += _heatmap(trace, x_axis, y_axis, layout["coloraxis"], titles=titled, fit=fit)
        else:
            parts += _scatter(trace, x_axis, y_axis, clip=frame.clip(trace.get("xaxis", "x")))
    parts += [part for axis in frame.panels() for part in frame.panel_axes(axis)]
    parts += [part for note in layout.get("annotations", ()) for part in frame.annotation(note)]
    parts = joined([*parts, *frame.colour_bar()])
    alt = html.escape(clean(layout["meta"]["alt"], limit=2000))
    named = f'aria-labelledby="{said_in}"' if said_in else f'aria-label="{alt}"'
    size = f'width="{width_px}" height="{frame.height}" viewBox="0 0 {width_px} {frame.height}"'
    return f'<svg class="still" role="img" {named} {size}>{"".join(parts)}</svg>'


def places(
    fig: go.Figure | dict[str, Any], values: Iterable[float], *, width_px: int = WIDTH_PX
) -> tuple[list[float], float, float]:
    """Where values of the first x axis stand in the drawing that `figure_svg` makes.

    Args:
        fig, width_px: as given to `figure_svg`.
        values: on the x axis, as its traces have them.

    Returns:
        (pixels from the left, one per value; top of the panel; its bottom).
    """
    spec = fig if isinstance(fig, dict) else fig.to_plotly_json()
    x, y = _Frame(spec["layout"], "", width_px).axes("x", "y")
    return [x(value) for value in values], y.end, y.start


@dataclass
class _Frame:
    """Where everything goes: panels, scales and the space around them."""

    layout: dict[str, Any]
    name: str
    width: int
    fit: bool = False

    def __post_init__(self) -> None:
        margin = self.layout["margin"]
        self.height = int(self.layout["height"])
        self.left, self.right = margin["l"], self.width - margin["r"]
        self.top, self.bottom = margin["t"], self.height - margin["b"]

    def axis(self, ref: str) -> dict[str, Any]:
        """The layout of an axis named as traces name it: `x`, `y2`."""
        return self.layout.get(f"{ref[0]}axis{ref[1:]}", {})

    def panels(self) -> list[tuple[str, str]]:
        """(x, y) axis names of every visible panel."""
        names = [key.removeprefix("xaxis") for key in self.layout if re.fullmatch(r"xaxis\d*", key)]
        names.sort(key=lambda n: int(n or 1))
        return [(f"x{n}", f"y{n}") for n in names if self.axis(f"x{n}").get("visible", True)]

    def axes(self, x: str, y: str) -> tuple[Scale, Scale]:
        """Scales of a panel, in pixels."""
        x_axis, y_axis = self.axis(x), self.axis(y)
        x0, x1 = x_axis.get("domain", (0, 1))
        y0, y1 = y_axis.get("domain", (0, 1))
        (left, right), (low, top) = x_axis["range"], y_axis["range"]
        wide, high, log = self.right - self.left, self.bottom - self.top, x_axis.get("type") == "log"
        return (
            Scale(left, right, self.left + x0 * wide, self.left + x1 * wide, log=log),
            Scale(low, top, self.bottom - y0 * high, self.bottom - y1 * high),
        )

    def clip(self, x: str) -> str:
        """Reference to a panel's clip path."""
        return f"url(#{self.name}-{x})"

    def background(self, clipped: Collection[str]) -> list[str]:
        """Ground and grid lines of all panels, and what lines are clipped to in those of the x axes that are named."""
        boxes, grid, clips = list[str](), list[str](), list[str]()
        for x_name, y_name in self.panels():
            x, y = self.axes(x_name, y_name)
            x_axis, y_axis = self.axis(x_name), self.axis(y_name)
            boxes.append(
                f"M{short_number(x.start)} {short_number(y.end)}h{short_number(x.length)}v{short_number(y.length)}H{short_number(x.start)}z"
            )
            if x_name in clipped:
                clips.append(f'<clipPath id="{self.name}-{x_name}"><path d="{boxes[-1]}"/></clipPath>')
            if x_axis.get("showgrid", False):
                grid += [
                    f"M{short_number(x(t))} {short_number(y.start)}V{short_number(y.end)}"
                    for t in x_axis["tickvals"]
                ]
            if y_axis.get("showgrid", True):
                grid += [
                    f"M{short_number(x.start)} {short_number(y(t))}H{short_number(x.end)}"
                    for t in y_axis["tickvals"]
                ]
        ground = self.layout.get("plot_bgcolor")
        parts = [f'<path d="{"".join(boxes)}" {_fill(ground)}/>'] if ground and boxes else []
        return [*clips, *parts, *([f'<path d="{"".join(grid)}" class="grid"/>'] if grid else [])]

    def panel_axes(self, panel: tuple[str, str]) -> list[str]:
        """Axis line, tick labels and titles of one panel."""
        x, y = self.axes(*panel)
        x_axis, y_axis = self.axis(panel[0]), self.axis(panel[1])
        parts = []
        if x_axis.get("showline", True):
            parts.append(
                f'<line x1="{short_number(x.start)}" x2="{short_number(x.end)}" y1="{short_number(y.start)}" y2="{short_number(y.start)}" class="axis"/>'
            )
        if x_axis.get("showticklabels", True):
            ticks = zip(x_axis.get("tickvals", ()), x_axis.get("ticktext", ()), strict=True)
            places = [(x(v), t) for v, t in ticks]
            places = beside(places) if self.fit else places
            parts += [_text(at, y.start + 18, t, css="tick") for at, t in places]
        if y_axis.get("showticklabels", True):
            ticks = zip(y_axis.get("tickvals", ()), y_axis.get("ticktext", ()), strict=True)
            places = [(y(v), t) for v, t in ticks]
            places = below(places) if self.fit else places
            parts += [_text(x.start - 7, at, t, anchor="end", css="tick", middle=True) for at, t in places]
        if title := x_axis.get("title", {}).get("text"):
            middle = min((x.start + x.end) / 2, self.width - wide_px(title) / 2)
            parts.append(_text(middle, y.start + 39, title, css="title"))
        if title := y_axis.get("title", {}).get("text"):
            labels = y_axis.get("ticktext", ()) if y_axis.get("showticklabels", True) else ()
            beside_labels = x.start - _TITLE_GAP_PX - max(map(wide_px, labels), default=0)
            left = max(_TITLE_GAP_PX, min(beside_labels, x.start - (46 if self.left > 60 else 36)))
            parts.append(_text(left, (y.start + y.end) / 2, title, css="title", rotate=True))
        return parts

    def annotation(self, note: dict[str, Any]) -> list[str]:
        """Text, and the leader line where it has one."""
        x, y = self._place(note, "x") + note.get("xshift", 0), self._place(note, "y") - note.get("yshift", 0)
        parts = []
        if note.get("showarrow", True):
            tip = note.get("standoff", 0)
            ax, ay = x + note["ax"], y + note["ay"]
            parts.append(
                f'<line x1="{short_number(x + tip)}" y1="{short_number(y)}" x2="{short_number(ax - 2)}" y2="{short_number(ay)}" {_stroke(note["arrowcolor"])}/>'
            )
            x, y = ax, ay
        css = "note" if note.get("font", {}).get("color") == TOKENS["muted"][0] else "label"
        y += {"top": 11, "bottom": -4}.get(note.get("yanchor", "middle"), 0)
        anchor = _ANCHORS[note.get("xanchor", "center")]
        return [
            *parts,
            _text(
                x, y, note["text"], anchor=anchor, css=css, middle=note.get("yanchor", "middle") == "middle"
            ),
        ]

    def _place(self, note: dict[str, Any], way: str) -> float:
        ref, value = note.get(f"{way}ref", way), note[way]
        if ref == "paper":
            lo, hi = (self.left, self.right) if way == "x" else (self.bottom, self.top)
            return lo + value * (hi - lo)
        number = ref[1:]
        scale = self.axes(f"x{number}", f"y{number}")[way == "y"]
        return scale(10**value) if scale.log else scale(value)

    def colour_bar(self) -> list[str]:
        """The shared colour bar, where there is one."""
        axis = self.layout.get("coloraxis")
        if not axis or not axis.get("showscale", True):
            return []
        bar, lo, hi = axis["colorbar"], axis["cmin"], axis["cmax"]
        x, width = self.right + 14, bar["thickness"]
        scale = Scale(lo, hi, self.bottom, self.top)
        stops = "".join(
            f'<stop offset="{short_number(100 * at)}%" stop-color="{color}"/>'
            for at, color in axis["colorscale"]
        )
        parts = [
            f'<linearGradient id="{self.name}-bar" x1="0" y1="1" x2="0" y2="0">{stops}</linearGradient>',
            f'<rect x="{short_number(x)}" y="{self.top}" width="{width}" height="{self.bottom - self.top}" fill="url(#{self.name}-bar)"/>',
        ]
        ticks = zip(bar["tickvals"], bar["ticktext"], strict=True)
        return parts + [
            _text(x + width + 5, scale(v), t, anchor="start", css="tick", middle=True) for v, t in ticks
        ]


def _heatmap(
    trace: dict[str, Any], x: Scale, y: Scale, axis: dict[str, Any], *, titles: bool, fit: bool
) -> list[str]:
    """Cells and the text in them; without hover titles one thick stroke per colour, so that large grids stay small."""
    wide, high = abs(x(1) - x(0)) - 2, abs(y(1) - y(0)) - 2
    lo, span = axis["cmin"], axis["cmax"] - axis["cmin"]
    # plotly samples strictly increasing stops alone, and a scale with steps has two at one place
    stops = [[at + i * 1e-9 if 0 < at < 1 else at, color] for i, (at, color) in enumerate(axis["colorscale"])]
    levels = sample_colorscale(stops, [i / N_COLOUR_LEVELS for i in range(N_COLOUR_LEVELS + 1)])
    shapes: dict[str, list[tuple[float, float]]] = {}
    cells, texts = [], []
    for row, line in enumerate(trace["z"]):
        for column, value in enumerate(line):
            share = None if value is None else min(1.0, max(0.0, (value - lo) / span))
            color = None if share is None else _hex(levels[round(share * N_COLOUR_LEVELS)])
            start = (x(column) - wide / 2, y(row))
            if titles:
                hover = plain_text(trace["hovertext"][row][column])
                stroke = _stroke(color or "transparent", high)
                cells.append(f'<path d="{dashes([start], wide)}" {stroke}><title>{hover}</title></path>')
            elif color:
                shapes.setdefault(color, []).append(start)
            if color and trace.get("text") and trace["text"][row][column]:
                lines = trace["text"][row][column].split("<br>")
                if fit:  # the value without its interval, or nothing, where there is no room
                    lines = (
                        lines
                        if max(map(wide_px, lines)) <= wide
                        else [one for one in lines[:1] if wide_px(one) <= wide]
                    )
                if lines:
                    texts.append(_cell_text(x(column), y(row), "<br>".join(lines), readable_on(color)))
    return [
        *cells,
        *(f'<path d="{dashes(s, wide)}" {_stroke(color, high)}/>' for color, s in shapes.items()),
        *texts,
    ]


def _hex(color: str) -> str:
    """`rgb(r, g, b)` as `#rrggbb`."""
    return "#" + "".join(f"{int(float(part)):02x}" for part in color[4:-1].split(","))


def readable_on(color: str) -> str:
    """White or near-black, whichever stands out more on `#rrggbb`."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in hex_to_rgb(color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#111111" if luminance > DARK_ABOVE else "#ffffff"


def _cell_text(x: float, y: float, text: str, color: str) -> str:
    lines = text.split("<br>")
    return "".join(
        f'<text x="{short_number(x)}" y="{short_number(y + 4 + 16 * (i - (len(lines) - 1) / 2))}" class="cell" fill="{color}">{plain_text(line)}</text>'
        for i, line in enumerate(lines)
    )


def _scatter(trace: dict[str, Any], x: Scale, y: Scale, *, clip: str) -> list[str]:
    parts = []
    points = [
        None if a is None or b is None else (x(a), y(b)) for a, b in zip(trace["x"], trace["y"], strict=True)
    ]
    if trace.get("fill") == "toself":
        parts.append(
            f'<path d="{path_of(points, close=True)}" {_fill(trace["fillcolor"])} clip-path="{clip}"/>'
        )
    elif "lines" in trace["mode"]:
        line = trace["line"]
        dash = f' stroke-dasharray="{_DASHES[line["dash"]]}"' if line.get("dash") in _DASHES else ""
        style = f'{_stroke(line["color"], line["width"])}{dash} class="line"'
        parts.append(f'<path d="{path_of(points)}" {style} clip-path="{clip}"/>')
    if bars := trace.get("error_x"):
        parts += _error_bars(trace, bars, x, y)
    if "markers" in trace["mode"]:
        parts += _markers(trace["marker"], [p for p in points if p is not None])
    return parts


def _error_bars(trace: dict[str, Any], bars: dict[str, Any], x: Scale, y: Scale) -> list[str]:
    ends = zip(trace["x"], trace["y"], bars["arrayminus"], bars["array"], strict=True)
    path = "".join(
        f"M{short_number(x(at - less))} {short_number(y(row))}H{short_number(x(at + more))}"
        for at, row, less, more in ends
    )
    return [f'<path d="{path}" {_stroke(bars["color"], bars["thickness"])}/>']


def _markers(marker: dict[str, Any], points: Iterable[tuple[float, float]]) -> list[str]:
    """All markers of a trace as one path; crosses and plain dots are strokes, the rest is filled."""
    r, symbol = marker["size"] / 2, marker.get("symbol", "circle")
    hollow = symbol.endswith("-open") or symbol == "x-thin"
    if symbol == "circle" and not marker.get("line"):
        return [f'<path d="{dashes(points)}" {_stroke(marker["color"], 2 * r)} class="dots"/>']
    outlines = {
        "circle": lambda a, b: (
            f"M{short_number(a - r)} {short_number(b)}a{short_number(r)} {short_number(r)} 0 1 0 {short_number(2 * r)} 0a{short_number(r)} {short_number(r)} 0 1 0 {short_number(-2 * r)} 0z"
        ),
        "square": lambda a, b: (
            f"M{short_number(a - r)} {short_number(b - r)}h{short_number(2 * r)}v{short_number(2 * r)}h{short_number(-2 * r)}z"
        ),
        "diamond": lambda a, b: (
            f"M{short_number(a)} {short_number(b - r)}l{short_number(r)} {short_number(r)}l{short_number(-r)} {short_number(r)}l{short_number(-r)} {short_number(-r)}z"
        ),
        "triangle-up": lambda a, b: (
            f"M{short_number(a)} {short_number(b - r)}l{short_number(r)} {short_number(2 * r)}h{short_number(-2 * r)}z"
        ),
        "x-thin": lambda a, b: (
            f"M{short_number(a - r)} {short_number(b - r)}l{short_number(2 * r)} {short_number(2 * r)}m0 {short_number(-2 * r)}l{short_number(-2 * r)} {short_number(2 * r)}"
        ),
    }
    path = "".join(outlines[symbol.removesuffix("-open")](a, b) for a, b in points)
    line = marker.get("line") or ({"width": 1} if hollow else {})
    color = marker["color"] if "color" in marker else line["color"]  # thin marks are lines alone
    edge = _stroke(line.get("color", color), line["width"]) if line else ""
    body = 'fill="none"' if hollow else _fill(color)
    return [f'<path d="{path}" {body} {edge}/>']


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    css: str,
    middle: bool = False,
    rotate: bool = False,
) -> str:
    y = y + 4 if middle else y
    turn = f' transform="rotate(-90 {short_number(x)} {short_number(y)})"' if rotate else ""
    place = "" if anchor == "start" else f" {anchor}"
    return f'<text x="{short_number(x)}" y="{short_number(y)}" class="{css}{place}"{turn}>{plain_text(text)}</text>'


def _fill(color: str) -> str:
    variable, alpha = _variable(color)
    return f'fill="{variable}"' + ("" if alpha == 1 else f' fill-opacity="{alpha:g}"')


def _stroke(color: str, width: float = 1) -> str:
    return f'stroke="{_variable(color)[0]}" stroke-width="{width:g}"'


def _variable(color: str) -> tuple[str, float]:
    """A colour as its theme's CSS variable, and its opacity."""
    match = _RGBA.fullmatch(color)
    if not match:
        return _VARIABLES.get(color, color), 1.0
    red, green, blue, alpha = match.groups()
    opaque = f"#{int(red):02x}{int(green):02x}{int(blue):02x}"
    return _VARIABLES.get(opaque, opaque), float(alpha)


def spark_svg(
    values: Sequence[float | None],
    limits: tuple[float, float],
    *,
    alt: str,
    width_px: int = 96,
    height_px: int = 22,
) -> str:
    """A curve as small as a word, with a dot at the last measured value.

    Args:
        values: in order; None where not measured.
        limits: the fixed vertical range.
        alt: what it shows, in words.
        width_px, height_px: drawn size.
    """
    n = max(2, len(values))
    x, y = Scale(0, n - 1, 2, width_px - 4), Scale(*limits, height_px - 3, 3)
    points = [None if v is None else (x(i), y(v)) for i, v in enumerate(values)]
    measured = [p for p in points if p is not None]
    dot = _markers({"size": 5, "color": TOKENS["ink"][0]}, measured[-1:])[0] if measured else ""
    line = f'<path d="{path_of(points)}" {_stroke(TOKENS["ink"][0], 1.4)} fill="none"/>'
    alt_text = html.escape(clean(alt))
    return f'<svg class="spark" role="img" aria-label="{alt_text}" width="{width_px}" height="{height_px}">{line}{dot}</svg>'
