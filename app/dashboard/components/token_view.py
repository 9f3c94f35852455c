"""The token view: a text whose tokens show what they attend to. Token text goes in as text, never as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from byrote.dashboard.components.base import packed
from byrote.dashboard.query_params import State
from byrote.probes.repeats import Repeats
from byrote.probes.wording import clean, step_number

MAX_TOKEN_CHARS = 24
MASK = "•••"  # in place of a token that was not revealed
_MARKS = str.maketrans({" ": "·", "\n": "↵", "\t": "⇥"})


def token_data(
    tokens: Sequence[str],
    pattern: Float[np.ndarray, "query_pos key_pos"],
    *,
    state: State,
    masked: bool,
    repeats: Repeats | None = None,
    rest: int | None = None,
    over: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything the browser needs to shade the tokens; it reports q, the token selected, -1 where none is, and step.

    Args:
        tokens: as text; shortened where long.
        pattern: attention, rows sum to 1.
        state: the token selected, whether to shade what a token attends to or what attends to it, and whether to leave
            out position 0 and stretch the rest.
        masked: show no token's text: it was memorised, and was not revealed.
        repeats: of the text: blocks begin on lines of their own, expected targets are outlined.
        rest: the token shown until another is pointed at; None for none.
        over: of `frames_data`, to be played; None for this pattern alone.
    """
    codes = _codes(pattern)
    shown = [token_text(token) for token in tokens]
    return {
        "key": str(hash((tuple(shown), codes.tobytes(), masked, repeats))),
        "tokens": [""] * len(shown) if masked else shown,
        "codes": packed(codes),
        "lock": state.q,
        "direction": state.shade,
        "skip_first": state.sink == "without",
        "masked": masked,
        "starts": [at for at in repeats.starts if at < len(shown)] if repeats else [],
        "targets": [list(keys) for keys in repeats.targets[: len(shown)]] if repeats else [],
        "rest": rest,
        "over": over,
    }


def frames_data(patterns: Mapping[int, Float[np.ndarray, "query_pos key_pos"]], step: int) -> dict[str, Any]:
    """The attention at several steps, to be played.

    Args:
        patterns: by step, ascending.
        step: the one that is shown at first, which is among them.
    """
    return {
        "steps": list(patterns),
        "labels": [f"step {step_number(s)}" for s in patterns],
        "codes": [packed(_codes(pattern)) for pattern in patterns.values()],
        "index": list(patterns).index(step),
    }


def _codes(pattern: Float[np.ndarray, "query_pos key_pos"]) -> UInt8[np.ndarray, "query_pos key_pos"]:
    return np.rint(np.clip(pattern, 0, 1) * 255).astype(np.uint8)


def token_text(token: str) -> str:
    """One token on one line: line ends and tabs survive for the view to mark, other controls do not."""
    parts = [part if part in "\n\t" else clean(part) for part in token]
    text = "".join(parts)
    return text if len(text) <= MAX_TOKEN_CHARS else f"{text[: MAX_TOKEN_CHARS - 1]}…"


def marked(token: str) -> str:
    """The same with spaces, line ends and tabs marked, as the browser marks them in the strip of tokens."""
    return token_text(token).translate(_MARKS)
