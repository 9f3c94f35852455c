"""Smallest effects of interest: changes below them may be sure, and are too small to be told as findings. No torch.

With paired sequences any two checkpoints differ surely in something. 0.05 is what the induction verdict asks for
(docs/decisions/0002-induction-verdict.md); here it holds for every score between 0 or -1 and 1 and for losses in nats.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

from byrote.probes.spec import ProbeInfo

SMALLEST = 0.05
SMALLEST_Z = 1.0
_Z = "standard deviations"


def smallest_effect(info: ProbeInfo, metric: str) -> float:
    """Smallest change of a metric that is told as a finding, in the metric's unit.

    Args:
        info: the probe.
        metric: one of its metrics.

    Returns:
        0.05 for fractions, scores within [-1, 1] and nats (per token, of log odds), 1 for standard deviations of a
        null, and 0 for every other unit, where no size is known to matter.
    """
    unit = info.unit_of(metric)
    if unit == _Z:
        return SMALLEST_Z
    own = unit == info.unit and info.range is not None and info.range[1] <= 1
    fraction = unit.endswith("fraction") or unit == "probability"
    return SMALLEST if own or fraction or unit in ("nats", "nats of log odds") else 0.0


def against_chance(
    value: float,
    lo: float,
    hi: float,
    *,
    chance: float,
    smallest: float,
    among: int = 1,
    sampled: bool = False,
) -> Literal["above", "below", "at"]:
    """Where a number stands against chance: beyond it with its whole interval, and by the smallest effect.

    Args:
        value, lo, hi: the number with its 95% interval.
        chance: the level that chance gives.
        smallest: smallest effect, in the same unit.
        among: how many numbers it was chosen from for being the highest; the interval is widened for so many tests
            (Bonferroni, its halves stretched as a normal one's).
        sampled: whether chance was itself measured, on about as many other sequences; the interval is widened by sqrt(2),
            as that of a difference.
    """
    stretch = NormalDist().inv_cdf(1 - 0.025 / max(1, among)) / NormalDist().inv_cdf(0.975)
    stretch *= 2**0.5 if sampled else 1
    if value - stretch * (value - lo) > chance and value - chance >= smallest:
        return "above"
    return "below" if value + stretch * (hi - value) < chance and chance - value >= smallest else "at"
