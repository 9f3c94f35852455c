"""Where one head looks, token by token."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label, parse_head
from byrote.interp.captured import Capture
from byrote.probes.figures.canvas import Canvas, finish
from byrote.probes.figures.cells import color_axis
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.wording import clean, markup, number

MAX_LABELLED = 64
LABEL_CHARS = 12


def attention(capture: Capture, *, head: str | tuple[int, int], sequence: int = 0) -> go.Figure:
    """The attention matrix of one head on one sequence: rows look, columns are looked at.

    Args:
        capture: from `interp.capture`, with its pattern.
        head: `"L5H1"` or `(5, 1)`.
        sequence: which of the captured sequences.

    Returns:
        A heatmap from 0 to 1; hover names both tokens and the share.

    Raises:
        ByroteError: attention was not captured, or there is no such head or sequence.
    """
    layer, index = parse_head(head)
    n_layers, n_sequences, n_heads, pos, _ = capture.pattern.shape
    if not (0 <= layer < n_layers and 0 <= index < n_heads):
        raise ByroteError(
            f"there is no head {head_label(layer, index)} here",
            help=f"the model has layers 0-{n_layers - 1} and heads 0-{n_heads - 1}",
        )
    if not 0 <= sequence < n_sequences:
        raise ByroteError(f"there is no sequence {sequence} here", help=f"0-{n_sequences - 1} were captured")
    pattern = capture.pattern[layer, sequence, index]
    labels = [markup(label, limit=LABEL_CHARS) for label in capture.labels[sequence]]
    named = [f"{label} ({i})" for i, label in enumerate(labels)]
    hover = [
        [f"{named[q]} looks at {named[k]}: {number(pattern[q, k])}" if k <= q else "" for k in range(pos)]
        for q in range(pos)
    ]
    shown = [[float(pattern[q, k]) if k <= q else None for k in range(pos)] for q in range(pos)]
    fig = go.Figure()
    fig.add_heatmap(z=shown, coloraxis="coloraxis", hovertext=hover, hoverinfo="text", hoverongaps=False)
    every = -(-pos // MAX_LABELLED)
    ticks = {
        "tickmode": "array",
        "tickvals": list(range(0, pos, every)),
        "ticktext": labels[::every],
        "showgrid": False,
        "tickfont": {"size": SMALL_FONT_SIZE_PX},
    }
    fig.update_layout(
        xaxis={**ticks, "title": {"text": "looked at"}, "tickangle": -60},
        yaxis={**ticks, "title": {"text": "looks"}, "range": [pos - 0.5, -0.5]},
        coloraxis=color_axis((0.0, 1.0)),
        plot_bgcolor=paint("void"),
    )
    name = head_label(layer, index)
    return finish(
        fig,
        Canvas(height_px=180 + min(900, max(240, 14 * pos)), bottom_px=100, left_px=110, right_px=116),
        title=f"Attention of {name}, {markup(clean(capture.where))}",
        subtitle="each row sums to 1; one sequence, so no interval",
        alt=_finding(pattern, capture.labels[sequence], name),
    )


def _finding(pattern: Float[np.ndarray, "query_pos key_pos"], labels: tuple[str, ...], name: str) -> str:
    strongest = [max(range(q + 1), key=lambda k: pattern[q, k]) for q in range(1, len(labels))]
    if not strongest:
        return f"{name}: one token, which looks at itself."
    most = max(set(strongest), key=strongest.count)
    share = strongest.count(most) / len(strongest)
    last = strongest[-1]
    return (
        f"{name}: the last token looks most at position {last} ({clean(labels[last])}, {number(pattern[-1, last])}); "
        f"position {most} is looked at most by {number(share)} of the tokens."
    )
