"""Components from their files, registered once per process, and what they share."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from byrote.dashboard.query_params import State
from byrote.probes.results import Results
from byrote.probes.wording import clean, step_number, tokens_words

LEVELS = 65_000  # codes up to here are values, fine enough to round as the table does; those below say why there is none
BELOW, ABOVE, VOID = 65_001, 65_002, 65_535


def show(
    name: str, data: Mapping[str, Any], *, key: str, width: str = "stretch", **on: Callable[[], None]
) -> None:
    """Draw a component.

    Args:
        name: of its files.
        data: what it gets to draw.
        key: `st.session_state[key]` holds what it reported.
        width: "stretch", or "content" for one that stands beside others.
        on: name of what it reports -> called when that changes.
    """
    _component(name)(
        key=key, data=data, width=width, **{f"on_{what}_change": call for what, call in on.items()}
    )


@lru_cache(maxsize=8)
def _component(name: str) -> Callable[..., Any]:
    """A component by the name of its files, with the player and the shared style before its own."""
    import streamlit as st  # a page that plays without a server is made of the same data and needs none of it

    return st.components.v2.component(
        f"byrote_{name}",
        html=source(f"{name}.html"),
        css=source("shared.css") + source(f"{name}.css"),
        js=source("player.js") + source(f"{name}.js"),
    )


def series_data(run: Results, state: State, events: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """What the player and both drawings of heads get: the heads, the steps with their names and marks, and where they stand.

    Args:
        run: whose series.
        state: step and head looked at.
        events: (step, what happened there), marked on the slider.
    """
    steps, flagged = run.all_steps, doubts(run)
    at = {step: i for i, step in enumerate(steps)}
    gaps = {int(gap["step"]) for gap in run.gaps if gap.get("step") is not None}
    marks = [{"index": at[s], "kind": "event", "text": text} for s, text in events if s in at]
    marks += [
        {"index": at[s], "kind": "gap" if s in gaps else "doubt", "text": text} for s, text in flagged.items()
    ]
    seen = [tokens_words(run.tokens.get(step)) for step in steps]
    return {
        "layers": run.shape[0],
        "heads": run.shape[1],
        "steps": list(steps),
        "labels": [
            f"step {step_number(s)}" + (f" · {t}" if t else "") for s, t in zip(steps, seen, strict=True)
        ],
        "marks": marks,
        "doubts": {str(step): text for step, text in flagged.items()},
        "index": at[state.step],
        "selected": state.head,
    }


def doubts(run: Results) -> dict[int, str]:
    """Steps whose numbers should not be believed, or are not there, and why."""
    found = {
        step: f"left out by lint: {clean(why)}" for step, why in run.left_out.items() if step in run.all_steps
    }
    for gap in run.gaps:
        if gap.get("step") is not None:
            found[int(gap["step"])] = f"could not be measured: {clean(gap.get('reason', ''))}"
    return found


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


def source(name: str) -> str:
    """One file of a component, such as `head_grid.js`."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
