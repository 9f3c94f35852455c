"""When does a curve reach a fixed level? No torch.

1. reached: some two neighbouring measured steps, or the last one, lie beyond the level (one-sided t-tests, 5%, Bonferroni
   over steps and over the curves asked about together); else it is not told as reached, however close it comes
2. crossing: the first step at or beyond the level that is followed by another (or is the last), joined to the step before
   by a straight line on ln(1 + step), with the interval of `crossing`, step 6
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from byrote.probes.results.curve import Curve
from byrote.probes.rules import ALPHA
from byrote.probes.trajectory.crossing import Crossing, crossing_of, first_lasting


@dataclass(frozen=True)
class Reached:
    """Whether and when a level was reached.

    Attributes:
        crossing: when; None where it was not surely reached.
        why_not: the reason in words.
    """

    crossing: Crossing | None
    why_not: str = ""


def threshold_crossing(curve: Curve, threshold: float, *, seed: int = 0) -> Reached:
    """When a curve reaches a level, from below where a higher value is more of what the probe names, else from above.

    Args:
        curve: of one metric; `among` says how many curves are asked about together.
        threshold: in the metric's unit.
        seed: of the resampling.
    """
    sign = -1.0 if curve.better == "lower" else 1.0
    p = replace(curve, chance=threshold).p_above(None, sign)
    held = np.append(np.maximum(p[:-1], p[1:]), p[-1])
    if held.min() * len(p) * curve.among >= ALPHA:
        side, limit = ("above", "at most") if sign > 0 else ("below", "at least")
        closest = float(curve.value[int((sign * curve.value).argmax())])
        return Reached(None, f"never surely {side} {threshold:g}; {limit} {closest:.3g}")
    measured = first_lasting(curve, sign * (curve.value[None] - threshold), 0.0)
    drawn = first_lasting(curve, sign * (curve.draws(seed) - threshold), 0.0)
    return Reached(crossing_of(curve, measured, drawn[0], frac=np.nan, level=threshold))
