"""What every figure shares: title, subtitle, size, and the sentence that replaces it for those who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import plotly.graph_objects as go

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint, template


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


# What can be switched off, and the traces it is made of (by the start of their name).
VISUALS = {
    "band": "95% interval",
    "chance": "chance",
    "context": "every head",
    "onset": "onset of",
    "not measured": "not measured",
    "left out": "left out by lint",
}


def switch_off(fig: go.Figure, visuals: Mapping[str, bool] | None) -> go.Figure:
    """Take out the parts that are switched off.

    Args:
        fig: traces in place.
        visuals: name in `VISUALS`, or "labels" for all writing inside the plot, to False; True changes nothing.

    Raises:
        ByroteError: an unknown name.
    """
    for name, shown in (visuals or {}).items():
        if name not in (*VISUALS, "labels"):
            raise ByroteError(f"figures have no part {name!r}", help=did_you_mean(name, [*VISUALS, "labels"]))
        if not shown and name == "labels":
            fig.layout.annotations = ()
        elif not shown:
            fig.data = tuple(t for t in fig.data if not (t.name or "").startswith(VISUALS[name]))
    return fig


def finish(fig: go.Figure, canvas: Canvas, *, title: str, subtitle: str, alt: str) -> go.Figure:
    """Give a figure its size, words and template.

    Args:
        fig: traces and axes in place.
        canvas: size.
        title: what is drawn; already escaped for plotly.
        subtitle: chance, interval and n in words; already escaped.
        alt: one sentence that states the finding, plain text.

    Returns:
        The same figure.
    """
    fig.update_layout(
        template=template(),
        height=canvas.height_px,
        margin={"t": canvas.top_px, "b": canvas.bottom_px, "l": canvas.left_px, "r": canvas.right_px},
        title={
            "text": title,
            "y": 1 - 14 / canvas.height_px,
            "yanchor": "top",
            "subtitle": {"text": subtitle, "font": {"size": SMALL_FONT_SIZE_PX, "color": paint("muted")}},
        },
        meta={"alt": alt, "theme": "light"},
    )
    return fig


def note(text: str, *, x: Real, y: Real, **place: object) -> dict[str, object]:
    """A small muted annotation, in paper coordinates unless `place` says otherwise."""
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "font": {"size": SMALL_FONT_SIZE_PX, "color": paint("muted")},
        **place,
    }


def empty(canvas: Canvas, *, title: str, reason: str) -> go.Figure:
    """A figure that says why there is nothing to draw."""
    fig = go.Figure()
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
    fig.add_annotation(note(f"not measured: {reason}", x=0.5, y=0.5))
    return finish(fig, canvas, title=title, subtitle="", alt=f"Nothing to draw: {reason}.")
