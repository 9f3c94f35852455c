"""Which of two curves moves first? No torch.

Each crosses its own half-way level (or another share of its rise) somewhere between two measured steps. The lag is the
later crossing minus the earlier one on ln(1 + step). Its interval runs from the smallest to the largest lag that the
brackets allow, at the percentiles over resampled sequences: curves that cross between the same two checkpoints cannot
be ordered, however small the noise, and that is a frequent answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from byrote.probes.results.curve import Curve, step_of
from byrote.probes.statistics import ordered_ends
from byrote.probes.trajectory.crossing import Rise, crossed, rise

CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class LeadLag:
    """The order of two curves.

    Attributes:
        first: label of the curve that moves first, or "cannot tell".
        lag: of the second curve behind the first one given, in ln(1 + step): ln 2 is twice as late; NaN where one of
            them has no onset.
        lo, hi: its interval; infinite where a crossing lies before the first measured step or comes and goes.
        text: the finding in words.
    """

    first: str
    lag: float
    lo: float
    hi: float
    text: str


def lead_lag(a: Curve, b: Curve, *, frac: float = 0.5, seed: int = 0) -> LeadLag:
    """Order two curves, of one run or of two.

    Args:
        a, b: the curves. Where both have as many sequences these are resampled together, so that two metrics of the
            same sequences keep their pairing.
        frac: the level, as a share of each curve's own rise.
        seed: of the resampling.
    """
    names = _names(a, b)
    rises = rise(a), rise(b)
    for name, found in zip(names, rises, strict=True):
        if not found.within:
            return LeadLag(
                CANNOT_TELL, np.nan, np.nan, np.nan, f"cannot tell: {name} has no onset ({found.why_not})"
            )
    pairs = tuple(zip((a, b), rises, strict=True))
    (at_a, a_lo, a_hi), (at_b, b_lo, b_hi) = (_brackets(c, found, frac, seed) for c, found in pairs)
    with np.errstate(invalid="ignore"):
        least, most = b_lo - a_hi, b_hi - a_lo
        lag = float(at_b - at_a)
    tail = max(a.tail, b.tail)
    lo, _ = ordered_ends(np.nan_to_num(least, nan=-np.inf), tail)
    _, hi = ordered_ends(np.nan_to_num(most, nan=np.inf), tail)
    if np.isfinite(lag) and (lo >= 0 or hi <= 0):
        first, second = names if lo >= 0 else names[::-1]
        when = " and ".join(f"{step_of(at):,.0f}" for at in sorted((at_a, at_b)))
        text = (
            f"{first} has made {frac:.0%} of its own rise before {second} has of its (steps {when}): "
            f"a factor of {np.exp(abs(lag)):.2f} in steps"
        )
        return LeadLag(first, lag, lo, hi, text)
    why = "they cross between the same checkpoints, or their intervals overlap"
    return LeadLag(
        CANNOT_TELL,
        lag,
        lo,
        hi,
        f"cannot tell whether {names[0]} or {names[1]} has made {frac:.0%} of its own rise first: {why}",
    )


def _brackets(
    curve: Curve, found: Rise, frac: float, seed: int
) -> tuple[float, Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Where the curve crosses, and between which measured steps each resample does, on `log_step`."""
    measured, (at, index) = crossed(curve, found, frac, curve.draws(seed))
    never = at == np.inf
    lo = np.where(index == 0, -np.inf, curve.at[np.maximum(index - 1, 0)])
    return float(measured[0][0]), np.where(never, -np.inf, lo), np.where(never, np.inf, curve.at[index])


def _names(a: Curve, b: Curve) -> tuple[str, str]:
    if a.run == b.run:
        return a.label, b.label
    return f"{a.label} of {a.run}", f"{b.label} of {b.run}"
