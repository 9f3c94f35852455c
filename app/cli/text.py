"""Text for people: names and reasons that come from files made safe to print, and numbers in words."""

from __future__ import annotations

import math
from typing import Any

_UNITS = ("B", "KB", "MB", "GB", "TB")


def clean(value: object) -> str:
    """Text without anything a terminal obeys: escapes, other control and direction characters become U+FFFD."""
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "\ufffd" for c in str(value))


def plain(value: Any) -> Any:
    """A value as JSON and CSV can hold it: numpy and pandas scalars unwrapped, NaN and missing as None."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: float | None) -> str:
    """Three decimals, or three digits where those would hide the size; "-" for what is not there."""
    value = plain(value)
    if value is None:
        return "-"
    if value == 0 or 0.001 <= abs(value) < 10_000:
        return f"{value:.3f}"
    return f"{value:.2e}"


def p_value(value: float | None) -> str:
    """A p-value; "-" where there is none."""
    value = plain(value)
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count(value: int | None) -> str:
    """A whole number with thousands separated; "-" for what is not there."""
    value = plain(value)
    return "-" if value is None else f"{value:,}"


def interval(lo: float | None, hi: float | None) -> str:
    """``[0.910, 0.950]``; "-" where there is none."""
    return "-" if plain(lo) is None or plain(hi) is None else f"[{number(lo)}, {number(hi)}]"


def size(n_bytes: int | None) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    if n_bytes is None:
        return "-"
    value, unit = float(n_bytes), _UNITS[0]
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """``3:41``, ``1:02:03``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def sequence_seed(results: Any) -> int | None:
    """Seed of the test sequences of a run, None where it does not say."""
    return (results.meta.get("provenance") or {}).get("seed")


def training_seed(results: Any) -> int | None:
    """Seed the model was trained with, None where the series does not say."""
    return ((results.meta.get("series") or {}).get("manifest") or {}).get("seed")


def seeds(results: Any) -> str:
    """``, sequence seed 0, training seed 1``: what a table's title ends in."""
    found = (("sequence", sequence_seed(results)), ("training", training_seed(results)))
    return "".join(f", {what} seed {seed}" for what, seed in found if seed is not None)
