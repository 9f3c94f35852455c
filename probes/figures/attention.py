"""Where one head looks, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label, parse_head
from byrote.interp.captured import Capture
from byrote.probes.figures.axis import axis_layout
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, Trace, finish, heatmap, scatter
from byrote.probes.figures.cells import color_axis, thinned
from byrote.probes.figures.theme import SMALL_FONT_SIZE_PX, paint
from byrote.probes.repeats import Repeats, repeats_of
from byrote.probes.wording import clean, markup, number

GHOST = "rgba(250, 250, 250, 0.6)"  # on the cells, whose colours are those of both themes
MAX_LABELLED, LABEL_CHARS = 64, 12
MAX_HOVERED_TOKENS, HOVER_CHARS = 128, 40


def attention(
    what: Capture | Float[np.ndarray, "query_pos key_pos"],
    *,
    head: str | tuple[int, int],
    sequence: int = 0,
    tokens: Sequence[str] | None = None,
    ids: Int[np.ndarray, " pos"] | None = None,
    where: str = "",
    query: int | None = None,
    look: Look = FULL,
) -> Figure:
    """The attention matrix of one head on one text: rows look, columns are looked at.

    Args:
        what: from `byrote.capture`, with its pattern; or one pattern of this head, such as `stored_pattern` gives.
        head: `"L5H1"` or `(5, 1)`.
        sequence: which of the captured sequences.
        tokens: the text of one pattern; None shows positions.
        ids: the token ids of one pattern. Where they repeat, the borders of the blocks are drawn, and the cells where an
            induction head looks are outlined: the token after the last earlier copy.
        where: what one pattern is of, for the title.
        query: a token whose row is framed.
        look: theme and width; in half a page the axes carry positions.

    Returns:
        A heatmap from 0 to 1; hover names both tokens and the share. The table has a row per pair with attention.

    Raises:
        ByroteError: attention was not captured, there is no such head or sequence, or it is no single pattern.
    """
    name = head_label(*parse_head(head))
    if isinstance(what, Capture):
        pattern = exact = _captured(what, parse_head(head), sequence)
        tokens, where, ids = what.labels[sequence], what.where, what.tokens[sequence]
    else:
        if not (isinstance(what, np.ndarray) and what.ndim == 2 and len(what) == what.shape[1]):
            raise ByroteError(
                f"attention is drawn of a capture or of one square pattern, not of {_kind(what)}",
                help="br.figures.attention(br.capture(model, text), head='L1H0'); of results, a pattern that "
                "byrote.probes.attention.stored_pattern reads",
            )
        pattern, exact = what, np.round(what, 4)  # stored patterns are exact to 1/255
    pos = len(pattern)
    texts = [str(i) for i in range(pos)] if tokens is None else list(tokens)
    named = [f"{markup(text, limit=HOVER_CHARS)} ({i})" for i, text in enumerate(texts)]
    shown = [row[: q + 1] + [None] * (pos - q - 1) for q, row in enumerate(exact.astype(np.float64).tolist())]
    words = {value: number(value) for value in np.unique(pattern).tolist()}  # stored ones take 256 values
    hover = [
        [f"{named[q]} attends to {named[k]}: {words[value]}" for k, value in enumerate(row[: q + 1])]
        + [""] * (pos - q - 1)
        for q, row in enumerate(pattern.tolist() if pos <= MAX_HOVERED_TOKENS else [])
    ]
    traces = [heatmap(shown, hover=hover or None)]
    repeats = None if ids is None else repeats_of(ids[:pos])
    traces += [] if repeats is None else _expected(repeats, pos)
    if query is not None and query < pos:
        x, y = [-0.5, pos - 0.5, pos - 0.5, -0.5, -0.5], [query + d for d in (-0.5, -0.5, 0.5, 0.5, -0.5)]
        traces.append(scatter("chosen", x, y, line={"color": paint("series1"), "width": 1.5}))
    small = look.width == "half"
    every = thinned(pos, most=8 if small else MAX_LABELLED)
    labels = [str(i) if small else markup(text, limit=LABEL_CHARS) for i, text in enumerate(texts)][::every]
    ticks, bare = range(0, pos, every), {"showgrid": False, "tickfont": {"size": SMALL_FONT_SIZE_PX}}
    layout: dict[str, Any] = {
        "xaxis": axis_layout((-0.5, pos - 0.5), ticks, labels, title="key position") | bare | ({} if small else {"tickangle": -60}),
        "yaxis": axis_layout((pos - 0.5, -0.5), ticks, labels, title="query position") | bare,
        "coloraxis": color_axis((0.0, 1.0)), "plot_bgcolor": paint("void"),
    }  # fmt: skip
    wide = Canvas(height_px=180 + min(900, max(240, 14 * pos)), bottom_px=100, left_px=110, right_px=116)
    place = f", {markup(clean(where))}" if where else ""
    if not small:  # a square, also where the page is wider
        layout["width"] = wide.plot_px + wide.left_px + wide.right_px
    return finish(
        Figure({"data": traces, "layout": layout}), Canvas(height_px=440, bottom_px=46, left_px=58, right_px=100) if small else wide,
        title=f"Attention of {name}{place}",
        subtitle="each row sums to 1; one sequence, so no interval" + (" · outlined: the token after the earlier copy" if repeats and any(repeats.targets) else ""),
        alt=_finding(pattern, texts, f"{name} on {clean(where)}" if where else name),
        look=look, table=lambda: _table(pattern, texts),
    )  # fmt: skip


def _kind(what: object) -> str:
    return f"an array of shape {what.shape}" if isinstance(what, np.ndarray) else type(what).__name__


def _expected(repeats: Repeats, pos: int) -> list[Trace]:
    """The borders of blocks, and an outline of the key that followed the last earlier copy of each query's token."""
    traces = []
    for name, cells in (
        ("borders of blocks", [(at - 0.5, at - 0.5) for at in repeats.starts[1:]]),
        ("the token after the earlier copy", [(keys[-1], q) for q, keys in enumerate(repeats.targets) if keys]),
    ):  # fmt: skip
        x: list[float | None] = []
        y: list[float | None] = []
        for key, query in cells:
            if name.startswith("borders"):
                x += [-0.5, key, None, key, key, None]
                y += [query, query, None, query, pos - 0.5, None]
            else:
                x += [*(key + d for d in (-0.5, 0.5, 0.5, -0.5, -0.5)), None]
                y += [*(query + d for d in (-0.5, -0.5, 0.5, 0.5, -0.5)), None]
        if x:
            traces.append(scatter(name, x, y, line={"color": GHOST, "width": 1}))
    return traces


def _captured(
    capture: Capture, head: tuple[int, int], sequence: int
) -> Float[np.ndarray, "query_pos key_pos"]:
    layer, index = head
    n_layers, n_sequences, n_heads, _, _ = capture.pattern.shape
    if not (0 <= layer < n_layers and 0 <= index < n_heads):
        raise ByroteError(
            f"there is no head {head_label(layer, index)} here",
            help=f"the model has layers 0-{n_layers - 1} and heads 0-{n_heads - 1}",
        )
    if not 0 <= sequence < n_sequences:
        raise ByroteError(f"there is no sequence {sequence} here", help=f"0-{n_sequences - 1} were captured")
    return capture.pattern[layer, sequence, index]


def _table(pattern: Float[np.ndarray, "query_pos key_pos"], texts: Sequence[str]) -> pd.DataFrame:
    """The pairs with any attention, query by query, most of it first."""
    pairs = [
        (q, k) for q in range(len(texts)) for k in np.argsort(-pattern[q, : q + 1], kind="stable").tolist()
    ]
    rows = [(q, texts[q], k, texts[k], float(pattern[q, k])) for q, k in pairs if pattern[q, k] > 0]
    return pd.DataFrame(rows, columns=["query", "query token", "key", "key token", "attention"])


def _finding(pattern: Float[np.ndarray, "query_pos key_pos"], labels: Sequence[str], name: str) -> str:
    strongest = [max(range(q + 1), key=lambda k: pattern[q, k]) for q in range(1, len(labels))]
    if not strongest:
        return f"{name}: one token, which attends to itself."
    most = max(set(strongest), key=strongest.count)
    share = strongest.count(most) / len(strongest)
    last = strongest[-1]
    return (
        f"{name}: the last token attends most to position {last} ({clean(labels[last])}, {number(pattern[-1, last])}); "
        f"position {most} is attended to most by {number(share)} of the tokens."
    )
