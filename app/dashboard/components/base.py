"""Components from their files, registered once per process, and what they share."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import streamlit as st
from jaxtyping import Float, UInt8, UInt16

LEVELS = 65_000  # codes up to here are values, fine enough to round as the table does; those below say why there is none
BELOW, ABOVE, VOID = 65_001, 65_002, 65_535


def show(name: str, data: Mapping[str, Any], *, key: str, **on: Callable[[], None]) -> None:
    """Draw a component.

    Args:
        name: of its files.
        data: what it gets to draw.
        key: `st.session_state[key]` holds what it reported.
        on: name of what it reports -> called when that changes.
    """
    _component(name)(key=key, data=data, **{f"on_{what}_change": call for what, call in on.items()})


@lru_cache(maxsize=8)
def _component(name: str) -> Callable[..., Any]:
    """A component by the name of its files, with the player and the shared style before its own."""
    return st.components.v2.component(
        f"byrote_{name}",
        html=_file(f"{name}.html"),
        css=_file("shared.css") + _file(f"{name}.css"),
        js=_file("player.js") + _file(f"{name}.js"),
    )


def encode(values: Float[np.ndarray, "*shape"], limits: tuple[float, float]) -> UInt16[np.ndarray, "*shape"]:
    """Values as two bytes each on a fixed range.

    Args:
        values: NaN where not measured.
        limits: (lo, hi) of the colour range.

    Returns:
        0..LEVELS inside the range, BELOW or ABOVE outside it, VOID where not measured.
    """
    lo, hi = limits
    level = np.rint((np.nan_to_num(values) - lo) / (hi - lo) * LEVELS)
    codes = np.clip(level, 0, LEVELS).astype("<u2")
    room = 1e-9 * (hi - lo)
    codes[values < lo - room] = BELOW
    codes[values > hi + room] = ABOVE
    codes[~np.isfinite(values)] = VOID
    return codes


def packed(codes: UInt8[np.ndarray, "*shape"] | UInt16[np.ndarray, "*shape"]) -> str:
    """Bytes as JSON can carry them."""
    return base64.b64encode(np.ascontiguousarray(codes).tobytes()).decode("ascii")


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
