"""How numbers, heads and steps are written for people: one way, in figures and report alike."""

from __future__ import annotations

import html
import math
import unicodedata
from numbers import Real
from typing import Any

import pandas as pd

MAX_SIGNIFICANT_DIGITS = 3
MAX_DECIMALS = 6
MIN_DECIMALS = 2  # wanted even where the interval is wide, if three digits allow it
_SPELLED = {"ov": "OV", "qk": "QK", "icl": "ICL", "top1": "top-1"}
SMALLEST_DECIMAL = 1e-4  # smaller numbers are written 1.2e−05


def clean(text: object, *, limit: int = 200) -> str:
    """Text from a name, path or file as one visible line.

    Control and direction-changing characters become U+FFFD, so that no name can hide or reorder what follows it.

    Args:
        text: anything; turned into a string.
        limit: longest result in characters; the middle of a longer text is replaced by an ellipsis.
    """
    shown = "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else char
        for char in str(text)
    )
    if len(shown) <= limit:
        return shown
    half = (limit - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def markup(text: object, *, limit: int = 200) -> str:
    """`clean` text that plotly, which reads a little HTML, will show letter by letter."""
    return html.escape(clean(text, limit=limit), quote=False)


def short(run: object) -> str:
    """A run name cut to fit beside a line or in a title."""
    return clean(run, limit=20)


def probe_name(probe: str) -> str:
    """A probe's or metric's name as words: `ov_copying` is "OV copying"."""
    words = clean(probe).replace("_", " ").replace("@", " on ").split(" ")
    return " ".join(_SPELLED.get(word, word) for word in words)


def sentence_case(text: str) -> str:
    """The text with its first letter raised and nothing else changed."""
    return text[:1].upper() + text[1:]


def step_number(step: Real) -> str:
    """A training step with thousands separators."""
    return f"{int(step):,}"


def decimals(*values: Real) -> int:
    """Decimals for a value and its interval, from the interval's width and the three-digit limit.

    Args:
        values: value, then lo and hi where there are any.

    Returns:
        Decimals; negative where even the digits before the point are more than the interval deserves.
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    largest = max((abs(v) for v in finite), default=0.0)
    if largest == 0.0:
        return 0
    most = MAX_SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(largest))
    half_width = (max(finite) - min(finite)) / 2
    deserved = most if half_width == 0.0 else -math.floor(math.log10(half_width))
    return min(most, max(deserved, MIN_DECIMALS), MAX_DECIMALS)


def number(value: Real | None, *, places: int | None = None, sign: bool = False) -> str:
    """A number with at most three significant digits, a real minus sign and no negative zero.

    Args:
        value: any number; None, NaN and infinities are "–".
        places: decimals; None picks them from the value.
        sign: write `+` before positive numbers, as differences do.
    """
    if value is None or pd.isna(value) or math.isinf(value):
        return "–"
    if places is None and 0 < abs(value) < SMALLEST_DECIMAL:
        return f"{value:{'+' if sign else ''}.1e}".replace("-", "−")
    places = decimals(value) if places is None else places
    text = f"{round(float(value), places):{'+' if sign else ''},.{max(0, places)}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(value: Real, lo: Real | None, hi: Real | None, *, sign: bool = False) -> str:
    """`0.81 [0.78, 0.84]`, never more digits than the interval deserves; `0.7 [exact]` where nothing was sampled."""
    if lo is None or hi is None or pd.isna(lo) or pd.isna(hi):
        return number(value, sign=sign)
    if lo == value == hi:
        return f"{number(value, sign=sign)} [exact]"
    places = decimals(value, lo, hi)
    shown = [number(v, places=places, sign=sign) for v in (value, lo, hi)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def estimate(row: Any, label: str = "") -> str:
    """One observation as a line: `L1H0 0.81 [0.78, 0.84], chance 0.03, n=32`.

    Args:
        row: anything with value, lo, hi, chance, n, valid and reason.
        label: what was measured; put in front.
    """
    start = f"{label} " if label else ""
    if getattr(row, "left_out", False):
        return f"{start}{interval(row.value, row.lo, row.hi)}, {clean(row.reason)}"
    if not row.valid:
        return f"{start}not measured: {clean(row.reason) or 'no reason was recorded'}"
    text = start + interval(row.value, row.lo, row.hi)
    if not pd.isna(row.chance):
        text += f", chance {chance_number(row.chance)}"
    return f"{text}, n={int(row.n):,}"


def chance_number(chance: Real) -> str:
    """A chance level: two significant digits, or two decimals where that is more."""
    return number(chance, places=max(2, decimals(chance) - 1)) if chance else "0"
