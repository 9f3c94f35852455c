"""What has room in a drawing: how large it is, which labels stand beside each other."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

CHAR_PX = 6.8  # of a letter of 12 px, on average, rather too much than too little
MIN_PLOT_FRAC = 0.35  # of a figure's width, for what is drawn between the words at its left and right
ROW_PX = 13  # of a line of small writing


def drawn_px(layout: Mapping[str, Any], width_px: int) -> tuple[int, int]:
    """Width and height of a figure that is drawn at most so wide; one with a width of its own keeps the shape of its plot.

    Args:
        layout: of the figure, as JSON.
        width_px: what there is room for.
    """
    own = layout.get("width")
    if not own:
        return width_px, int(layout["height"])
    margin = layout["margin"]
    beside, above = margin["l"] + margin["r"], margin["t"] + margin["b"]
    wide = min(width_px, int(own))
    shape = (layout["height"] - above) / (own - beside)
    return wide, round((wide - beside) * shape + above)


def with_a_plot(layout: dict[str, Any], width_px: int) -> dict[str, Any]:
    """The layout without the words at the right of rows, where they and the labels at the left leave next to nothing between them."""
    margin, notes, beside = layout["margin"], layout.get("annotations", ()), ("paper", 1, "left")
    if width_px - margin["l"] - margin["r"] >= MIN_PLOT_FRAC * width_px:
        return layout
    left = [note for note in notes if (note.get("xref"), note["x"], note.get("xanchor")) != beside]
    return (
        layout if len(left) == len(notes) else {**layout, "annotations": left, "margin": {**margin, "r": 16}}
    )


def beside(labels: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Labels below an axis that do not touch, the last one first: (centre in pixels, text)."""
    chosen: list[tuple[float, str]] = []
    for at, text in sorted(labels, reverse=True):
        if not chosen or at + wide_px(text) / 2 + CHAR_PX < chosen[-1][0] - wide_px(chosen[-1][1]) / 2:
            chosen.append((at, text))
    return chosen[::-1]


def below(labels: Sequence[tuple[float, str]], needs_px: float = ROW_PX) -> list[tuple[float, str]]:
    """Labels of an even axis that do not touch: every second, third ... of them, 0 among them where it is one.

    Args:
        labels: (centre in pixels, text); at the left of an axis.
        needs_px: of each along the axis.
    """
    apart = min((abs(b[0] - a[0]) for a, b in itertools.pairwise(labels)), default=needs_px)
    every = max(1, math.ceil(needs_px / apart)) if apart else 1
    zero = next((i for i, (_, text) in enumerate(labels) if not text.strip("0.")), 0)
    return list(labels)[zero % every :: every]


def wide_px(text: str) -> float:
    """About how wide a line of the figures' small writing is, in pixels."""
    return CHAR_PX * len(plain_text(text))


def plain_text(markup: str) -> str:
    """Plotly markup as escaped text: its line breaks become spaces, its entities are read and written again."""
    return html.escape(html.unescape(markup.replace("<br>", " ")), quote=False)
