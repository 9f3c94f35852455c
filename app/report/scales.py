"""Numbers to pixels and numbers to colours, for drawings without JavaScript."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

N_COLOUR_LEVELS = 48  # cells share colours, so that a large grid is a few dozen paths


@dataclass(frozen=True)
class Scale:
    """A linear or log axis.

    Attributes:
        lo, hi: the drawn range; exponents of ten where `log`. May run downwards.
        start, end: pixels of `lo` and `hi`.
        log: values are placed by their logarithm.
    """

    lo: float
    hi: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        at = math.log10(value) if self.log else value
        return self.start + (at - self.lo) / (self.hi - self.lo) * (self.end - self.start)

    @property
    def length(self) -> float:
        """Pixels from end to end."""
        return abs(self.end - self.start)


def interpolate(colorscale: Sequence[Sequence[Any]], frac: float) -> str:
    """The colour at a place of a colour scale, as `#rrggbb`, rounded to one of a few dozen levels.

    Args:
        colorscale: `(place, colour)` stops, places ascending from 0 to 1, colours `#rrggbb` or `rgb(r, g, b)`.
        frac: 0 to 1; clipped.
    """
    frac = round(min(1.0, max(0.0, frac)) * N_COLOUR_LEVELS) / N_COLOUR_LEVELS
    upper = next(i for i, (place, _) in enumerate(colorscale) if place >= frac - 1e-12)
    (p0, c0), (p1, c1) = colorscale[max(0, upper - 1)], colorscale[upper]
    share = 0.0 if p1 == p0 else (frac - p0) / (p1 - p0)
    mixed = [round(a + share * (b - a)) for a, b in zip(channels(c0), channels(c1), strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def channels(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of `#rrggbb` or `rgb(r, g, b)`."""
    if color.startswith("#"):
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    red, green, blue = (int(part) for part in color[4:-1].split(","))
    return red, green, blue


def luminance(color: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def readable_on(color: str) -> str:
    """White or near-black, whichever stands out more."""
    return max(("#ffffff", "#111111"), key=lambda ink: contrast(ink, color))
