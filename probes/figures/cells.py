"""The cells of a layer x head grid: values to colour, words to hover, and marks for what a colour cannot say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.figures.axis import axis_layout, round_ticks
from byrote.probes.figures.canvas import NUMBERS, Canvas, Figure, Trace, finish, heatmap, scatter
from byrote.probes.figures.lines import numbers_of
from byrote.probes.figures.theme import DIVERGING, SEQUENTIAL, SMALL_FONT_SIZE_PX, paint
from byrote.probes.wording import chance_number, decimals, estimate, interval, listed, markup, number, point

ABSENT = "not measured: no row in these results"
MAX_HEADS_WITH_INTERVALS = 6
MAX_HEADS_WITH_VALUES = 12
MAX_LAYERS_WITH_TEXT = 12


@dataclass
class Cells:
    """A grid of cells, layer by layer.

    Attributes:
        values: [layer][head]; None where not measured, never 0.
        hover: [layer][head]; one line each, with interval, chance and n, or the reason.
        text: [layer][head]; what is written in the cell, empty where there is no room.
        clipped: (layer, head) of values outside the colour range.
    """

    values: list[list[float | None]]
    hover: list[list[str]]
    text: list[list[str]]
    clipped: list[tuple[int, int]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_layers, n_heads)."""
        return len(self.values), len(self.values[0]) if self.values else 0

    @property
    def missing(self) -> list[tuple[int, int]]:
        """(layer, head) of the cells that were not measured."""
        return [(i, j) for i, line in enumerate(self.values) for j, v in enumerate(line) if v is None]

    def traces(self, **axes: Any) -> list[Trace]:
        """The heatmap on the shared colour axis, crosses on what was not measured, dots on what is clipped."""
        n_layers, n_heads = self.shape
        text = {"text": self.text, "texttemplate": "%{text}", "textfont": {"size": SMALL_FONT_SIZE_PX}}
        written = text if any(map(any, self.text)) else {}
        places = {"x": list(range(n_heads)), "y": list(range(n_layers)), "xgap": 2, "ygap": 2}
        traces = [heatmap(self.values, hover=self.hover, **written, **places, **axes)]
        for name, symbol, where in (
            ("not measured", "x-thin", self.missing),
            ("clipped", "circle", self.clipped),
        ):
            if where:
                line = {"width": 1.5, "color": paint("muted")}
                marker = {"symbol": symbol, "size": 9, "color": paint("ink"), "line": line}
                x, y = [head for _, head in where], [layer for layer, _ in where]
                hover = [self.hover[layer][head] for layer, head in where]
                traces.append(scatter(name, x, y, marker=marker, hover=hover, **axes))
        return traces


def cells_of(
    rows: pd.DataFrame,
    shape: tuple[int, int],
    *,
    limits: tuple[float, float],
    describe: Callable[[Any, str], str] = estimate,
    write: Callable[[Any], str] | None = None,
) -> Cells:
    """Cells from the rows of one probe, metric and step.

    Args:
        rows: one row per measured head; heads without a row are marked as not measured.
        shape: (n_layers, n_heads).
        limits: the colour range; values outside are marked.
        describe: row and head label to hover text.
        write: row to the text in the cell; None writes nothing.
    """
    n_layers, n_heads = shape
    cells = Cells(
        [[None] * n_heads for _ in range(n_layers)],
        [[f"{head_label(layer, head)} {ABSENT}" for head in range(n_heads)] for layer in range(n_layers)],
        [[""] * n_heads for _ in range(n_layers)],
    )
    for row in rows.itertuples(index=False):
        layer, head = int(row.layer), int(row.head)
        cells.hover[layer][head] = markup(describe(row, head_label(layer, head)), limit=400)
        if row.valid:
            cells.values[layer][head] = float(row.value)
            cells.text[layer][head] = write(row) if write else ""
            if not limits[0] - 1e-9 <= row.value <= limits[1] + 1e-9:
                cells.clipped.append((layer, head))
    return cells


def grid_table(panels: Mapping[str, pd.DataFrame], shape: tuple[int, int]) -> pd.DataFrame:
    """The rows of grids as a figure's table, strongest heads of the last grid first, heads without a row among them.

    Args:
        panels: name of each grid to its rows, one per measured head.
        shape: (n_layers, n_heads).
    """
    labels = [head_label(layer, head) for layer in range(shape[0]) for head in range(shape[1])]
    parts = []
    for name, rows in panels.items():
        found = numbers_of(rows)
        missing = [label for label in labels if label not in set(found["where"])]
        parts += [found.assign(step=name), pd.DataFrame({"where": missing, "reason": ABSENT, "step": name})]
    last = parts[-2].sort_values("value", ascending=False, kind="stable")["where"]
    order = {label: i for i, label in enumerate([*last, *labels][::-1])}
    table = pd.concat([part for part in parts if not part.empty], ignore_index=True).rename(
        columns={"where": "head"}
    )
    table = table.sort_values("head", key=lambda heads: -heads.map(order), kind="stable", ignore_index=True)
    return table.assign(where="")[["head", "step", "where", *NUMBERS]]


def cell_writer(shape: tuple[int, int]) -> Callable[[Any], str] | None:
    """What fits in a cell: value and interval in small grids, the value in middling ones, else nothing."""
    n_layers, n_heads = shape
    if n_layers > MAX_LAYERS_WITH_TEXT or n_heads > MAX_HEADS_WITH_VALUES:
        return None
    if n_heads <= MAX_HEADS_WITH_INTERVALS:
        return lambda row: interval(row.value, row.lo, row.hi).replace(" [", "<br>[")
    return lambda row: point(row.value, row.lo, row.hi)


def grid_figure(
    cells: Cells,
    limits: tuple[float, float],
    *,
    chance: float | None = None,
    highlight: Sequence[tuple[int, int]] = (),
    **words: Any,
) -> Figure:
    """A figure of one grid with its colour bar.

    Args:
        cells: what is drawn.
        limits: the colour range.
        chance: chance level, or None.
        highlight: (layer, head) to frame.
        words: title, subtitle, alt, look, table and by, as `finish` takes them.
    """
    n_layers, _ = cells.shape
    x, y = grid_axes(cells.shape)
    layout = {
        "xaxis": x,
        "yaxis": y,
        "plot_bgcolor": paint("void"),
        "coloraxis": color_axis(limits, chance=chance),
    }
    fig = Figure({"data": [*cells.traces(), *map(_frame, highlight)], "layout": layout})
    cell_px = max(14, min(58, 420 // max(1, n_layers)))
    canvas = Canvas(height_px=120 + n_layers * cell_px, bottom_px=48, left_px=58, right_px=116)
    return finish(fig, canvas, **words)


def _frame(head: tuple[int, int]) -> Trace:
    layer, index = head
    x = [index + side * 0.47 for side in (-1, 1, 1, -1, -1)]
    y = [layer + side * 0.47 for side in (-1, -1, 1, 1, -1)]
    return scatter(f"highlight {head_label(*head)}", x, y, line={"width": 3, "color": paint("series1")})


def grid_axes(shape: tuple[int, int], *, titled: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """(x, y) axes of a grid: heads to the right, layers downwards, labels thinned where there are many."""
    n_layers, n_heads = shape
    title_x, title_y = ("head", "layer") if titled else ("", "")
    heads, layers = (range(0, n, thinned(n)) for n in (n_heads, n_layers))
    x = axis_layout((-0.5, n_heads - 0.5), heads, [f"H{i}" for i in heads], title=title_x)
    y = axis_layout((n_layers - 0.5, -0.5), layers, [f"L{i}" for i in layers], title=title_y)
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    return x | bare, y | bare


def color_axis(limits: tuple[float, float], *, chance: float | None = None) -> dict[str, Any]:
    """A fixed colour range with round ticks and a tick at chance.

    Ranges that reach below 0 use the diverging scale, symmetric about 0; others Cividis.

    Args:
        limits: (lo, hi).
        chance: chance level, or None.
    """
    lo, hi = limits
    if lo < 0:
        lo, hi = -max(-lo, hi), max(-lo, hi)
    ticks: list[tuple[float, str]] = [
        (t, number(t, places=decimals(hi - lo) - 1)) for t in round_ticks(lo, hi)
    ]
    if chance is not None and lo <= chance <= hi:
        ticks = [tick for tick in ticks if abs(tick[0] - chance) > 0.08 * (hi - lo)]
        ticks = sorted([*ticks, (chance, f"{chance_number(chance)} chance")])
    bar = {
        "thickness": 12, "len": 1, "lenmode": "fraction", "outlinewidth": 0, "x": 1.01, "xpad": 8, "ypad": 0,
        "tickvals": [value for value, _ in ticks], "ticktext": [text for _, text in ticks],
        "tickfont": {"size": SMALL_FONT_SIZE_PX, "color": paint("muted")},
    }  # fmt: skip
    return {"cmin": lo, "cmax": hi, "colorscale": DIVERGING if lo < 0 else SEQUENTIAL, "colorbar": bar}


def names(heads: Sequence[tuple[int, int]], *, most: int = 4) -> str:
    """`L1H0, L1H2 and 3 more`."""
    return listed([head_label(*head) for head in heads], most=most)


def thinned(n: int, *, most: int = 16) -> int:
    """Every how many of n rows or columns get a label, so that at most `most` do."""
    return max(1, -(-n // most))
