"""Words that messages on every floor are made of."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """``1 checkpoint``, ``2 checkpoints``, ``2 passes``."""
    plural = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural}"
