"""The contact sheet: every head's attention on one text as a small picture, the one pointed at enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from byrote.dashboard.components.base import packed
from byrote.dashboard.components.head_grid import palette
from byrote.interp.axes import head_label
from byrote.probes.repeats import Repeats
from byrote.probes.wording import number

MAX_HEADS = 128
MAX_SIDE = 48  # cells of a picture; of a longer text each shows the most of several


def sheet_data(
    patterns: UInt8[np.ndarray, "n_layers n_heads query_pos key_pos"],
    *,
    heads: Sequence[tuple[int, int]],
    repeats: Repeats,
    by_layer: bool,
) -> dict[str, Any]:
    """What the browser needs to draw the pictures, but for the head looked at; it reports a head that is chosen.

    Args:
        patterns: attention of every head on one text, 255 is all of a query's.
        heads: those drawn, in this order.
        repeats: of the text, for each head's mean attention on its targets.
        by_layer: whether the pictures stand in rows by layer.
    """
    chosen = patterns[[layer for layer, _ in heads], [head for _, head in heads]]
    small, every = pooled(chosen)
    means = [_on_target(repeats, one) for one in chosen]
    return {
        "key": str(hash((small.tobytes(), tuple(heads)))),
        "names": [head_label(*head) for head in heads],
        "layers": [layer for layer, _ in heads] if by_layer else [],
        "side": small.shape[-1],
        "codes": packed(small),
        "borders": [at / every for at in repeats.starts[1:] if at < chosen.shape[-1]],
        "said": ["" if mean is None else f"{number(mean)} on the token after the earlier copy" for mean in means],
        "colors": list(palette("sequential")),
    }  # fmt: skip


def _on_target(repeats: Repeats, pattern: UInt8[np.ndarray, "query_pos key_pos"]) -> float | None:
    """The mean over tokens with a target."""
    on: Float[np.ndarray, " query_pos"] = repeats.on_target(pattern.astype(np.float64) / 255)
    return float(np.nanmean(on)) if np.isfinite(on).any() else None


def pooled(
    patterns: UInt8[np.ndarray, "n query_pos key_pos"],
) -> tuple[UInt8[np.ndarray, "n side side"], int]:
    """The patterns in at most `MAX_SIDE` cells a side, each the most of those it stands for, and how many those are a side."""
    n, pos, _ = patterns.shape
    every = -(-pos // MAX_SIDE)
    side = -(-pos // every)
    room = side * every - pos
    wide = np.pad(patterns, ((0, 0), (0, room), (0, room)))
    return wide.reshape(n, side, every, side, every).max(axis=(2, 4)), every
