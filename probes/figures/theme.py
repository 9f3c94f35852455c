"""One look for light and dark: colours come in pairs, and a figure is re-coloured by swapping the pairs.

Series colours are Okabe-Ito, chosen per theme because half of that palette fades on white. Values from 0 to 1 use
Cividis, differences use cmocean Balance around zero. The baseline run is always dashed, black on light and white
on dark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from plotly.colors import cmocean, sequential

THEMES = ("light", "dark")

FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FONT_SIZE_PX = 13
SMALL_FONT_SIZE_PX = 12

# name: (light, dark). Contrast against the paper of its theme is at least 3:1 for lines, 4.5:1 for text.
TOKENS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#191817"),
    "ink": ("#1f1d1a", "#ecebe8"),
    "muted": ("#63605a", "#a8a49c"),
    "rule": ("#e4e1db", "#35322f"),
    "void": ("#f0eeea", "#2a2825"),
    "context": ("#c4c0b8", "#56524c"),
    "base": ("#000000", "#ffffff"),
    "series0": ("#0072b2", "#56b4e9"),
    "series1": ("#d55e00", "#e69f00"),
    "series2": ("#009e73", "#009e74"),
    "series3": ("#b5628f", "#cc79a7"),
    "part": ("#9ec9e2", "#2b5a75"),
}
N_SERIES_COLOURS = 4
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")

SEQUENTIAL = [[i / (len(sequential.Cividis) - 1), c] for i, c in enumerate(sequential.Cividis)]
DIVERGING = [[i / (len(cmocean.balance) - 1), c] for i, c in enumerate(cmocean.balance)]

_RGBA = re.compile(r"rgba\((\d+), (\d+), (\d+), ([0-9.]+)\)")


def paint(token: str) -> str:
    """The light colour of a token; `recolour` turns it into the dark one."""
    return TOKENS[token][0]


def tint(token: str, alpha: float) -> str:
    """A see-through token, for interval bands and spans."""
    red, green, blue = _channels(TOKENS[token][0])
    return f"rgba({red}, {green}, {blue}, {alpha:g})"


@dataclass(frozen=True)
class Style:
    """How one run or head is drawn: a colour token, a dash and a marker, never colour alone."""

    token: str
    dash: str = "solid"
    symbol: str = "circle"

    @property
    def color(self) -> str:
        """The line colour, light theme."""
        return paint(self.token)

    @property
    def band(self) -> str:
        """The interval band's fill, light theme."""
        return tint(self.token, 0.16)


def series_style(index: int) -> Style:
    """The style of the n-th series: four colours with a marker each, then the same four dashed.

    Args:
        index: position among the series that are not the baseline, from 0.
    """
    dash = DASHES[(index // N_SERIES_COLOURS) % len(DASHES)]
    return Style(f"series{index % N_SERIES_COLOURS}", dash, SYMBOLS[index % len(SYMBOLS)])


def run_styles(runs: list[str], *, base: str | None = None) -> dict[str, Style]:
    """One style per run name; the baseline is dashed black (white in dark) wherever it appears."""
    others = [run for run in runs if run != base]
    styles = {run: series_style(i) for i, run in enumerate(others)}
    return styles | ({base: Style("base", "dash")} if base is not None else {})


def template() -> dict[str, Any]:
    """The figure template of the light theme, as plotly's JSON; `recolour` swaps its colours with all others."""
    axis = {
        "gridcolor": paint("rule"),
        "linecolor": paint("context"),
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": paint("context"),
        "tickfont": {"size": SMALL_FONT_SIZE_PX, "color": paint("muted")},
        "title": {"font": {"size": FONT_SIZE_PX, "color": paint("muted")}, "standoff": 8},
    }
    layout = {
        "font": {"family": FONT_FAMILY, "size": FONT_SIZE_PX, "color": paint("ink")},
        "paper_bgcolor": paint("paper"),
        "plot_bgcolor": paint("paper"),
        "title": {"font": {"size": 16}, "x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 12}},
        "hoverlabel": {
            "bgcolor": paint("paper"),
            "bordercolor": paint("muted"),
            "font": {"color": paint("ink"), "size": FONT_SIZE_PX, "family": FONT_FAMILY},
            "align": "left",
        },
        "xaxis": {**axis, "showgrid": False, "showline": True},
        "yaxis": axis,
        "showlegend": False,
        "hovermode": "closest",
    }
    return {"layout": layout}


def recolour(spec: dict[str, Any], theme: str) -> dict[str, Any]:
    """A figure's JSON with the colours of the other theme swapped for those of `theme`.

    Only under keys that name a colour, so that a run called '#0072b2' keeps its name.
    """
    swaps = dict(TOKENS.values()) if theme == "dark" else {dark: light for light, dark in TOKENS.values()}

    def swapped(color: str) -> str:
        match = _RGBA.fullmatch(color)
        if not match:
            return swaps.get(color, color)
        red, green, blue, alpha = match.groups()
        opaque = f"#{int(red):02x}{int(green):02x}{int(blue):02x}"
        red, green, blue = _channels(swaps.get(opaque, opaque))
        return f"rgba({red}, {green}, {blue}, {alpha})"

    def walked(node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {name: walked(child, name) for name, child in node.items()}
        if isinstance(node, (list, tuple)):
            return [walked(child, key) for child in node]
        return swapped(node) if isinstance(node, str) and key.endswith(("color", "colorscale")) else node

    return {name: walked(child, name) for name, child in spec.items()}


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
