"""Paths of still drawings, written as short as SVG allows: relative, in tenths of a pixel, no letter or space too many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_STROKES = re.compile(r'<path d="([^"]+)(" stroke="[^>]+/>)')


def path_of(points: Sequence[tuple[float, float] | None], *, close: bool = False) -> str:
    """Unbroken lines through points, relative in tenths of a pixel, which takes half the space."""
    parts, before = [], None
    for point in [*points, None]:
        if point is None:
            parts.append("z" if close and before is not None else "")
            before = None
            continue
        here = (round(point[0], 1), round(point[1], 1))
        # "l" stands for all that follow until another letter
        opening = "M" if before is None else "l" if parts[-1][:1] == "M" else ""
        a, b = here if before is None else (here[0] - before[0], here[1] - before[1])
        parts.append(f"{opening}{_pair(a, b) if opening else _after(_pair(a, b))}")
        before = here
    return "".join(parts)


def dashes(starts: Iterable[tuple[float, float]], wide: float = 0.0) -> str:
    """Level lines of one length from points, one after the other; of no length, dots."""
    parts, before, wide = list[str](), (0.0, 0.0), round(wide, 1)
    for start in starts:
        here = (round(start[0], 1), round(start[1], 1))
        parts.append(
            f"{'m' if parts else 'M'}{_pair(here[0] - before[0], here[1] - before[1])}h{short_number(wide)}"
        )
        before = (here[0] + wide, here[1])
    return "".join(parts)


def _pair(a: float, b: float) -> str:
    """Two coordinates of a path."""
    return short_number(a) + _after(short_number(b))


def _after(number: str) -> str:
    """A number behind another one; a minus sign parts the two as a space does."""
    return number if number.startswith("-") else f" {number}"


def short_number(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def joined(parts: Sequence[str]) -> list[str]:
    """Lines that follow each other and are drawn alike, such as those of many seeds, as one path."""
    found_parts, alike = list[str](), ""
    for part in parts:
        found = _STROKES.fullmatch(part)
        if found and found[2] == alike:
            found_parts[-1] = found_parts[-1].removesuffix(alike) + found[1] + alike
        else:
            found_parts.append(part)
        alike = found[2] if found else ""
    return found_parts
