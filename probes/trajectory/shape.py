"""Peak, decay and the steepest stretch of a curve, and which of two curves moves first. No torch.

Peak: the best measured step. Which step truly is best is known only up to those that are not significantly worse (one-sided
paired t-tests against it, Bonferroni over steps, 5%), and between checkpoints only up to their neighbours.

Decay: share of the rise that is lost at the last step, when that step is significantly worse than the peak by more than the
smallest effect, tested alike. Having chosen the best of many noisy steps makes a flat curve look as if it fell; the test
prevents that from being reported as a decay.

Phase window: where the curve rises fastest on ln(1 + step) (Olsson et al. 2022 read the phase change off the in-context
learning score). Slopes are taken over at least MIN_WIDTH, so that two late checkpoints close together on that axis do
not win by noise.

Order: each curve crosses its own half-way level (or another share of its rise) somewhere between two measured steps. The lag is the
later crossing minus the earlier one on ln(1 + step). Its interval runs from the smallest to the largest lag that the
brackets allow, at the percentiles over resampled sequences: curves that cross between the same two checkpoints cannot
be ordered, however small the noise, and that is a frequent answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from byrote.probes.results.curve import Curve, step_of
from byrote.probes.rules import ALPHA
from byrote.probes.statistics import ends, held_out_best, ordered_ends, p_greater, resampled_means
from byrote.probes.trajectory.crossing import Rise, crossed, rise

MIN_WIDTH = 0.25  # of ln(1 + step): a factor of 1.28 in steps


@dataclass(frozen=True)
class Peak:
    """The best step of a curve.

    Attributes:
        step, value, lo, hi: the measured step and what was measured there.
        steps: interval of the step; the second is None when the best may still lie beyond the last step.
    """

    step: int
    value: float
    lo: float
    hi: float
    steps: tuple[int, int | None]


@dataclass(frozen=True)
class Decay:
    """What was lost between the peak and the last step.

    Attributes:
        share, lo, hi: of the rise from base to peak; 1 is all of it.
        peak_step, last_step: between which it was lost.
    """

    share: float
    lo: float
    hi: float
    peak_step: int
    last_step: int


@dataclass(frozen=True)
class PhaseWindow:
    """The steepest stretch of a curve.

    Attributes:
        bracket: the measured steps it lies between.
        lo, hi: 95% interval of its ends when sequences are resampled.
        slope, slope_lo, slope_hi: change per e-fold of 1 + step, in the metric's unit.
    """

    bracket: tuple[int, int]
    lo: int
    hi: int
    slope: float
    slope_lo: float
    slope_hi: float


def peak(curve: Curve, *, found: Rise | None = None) -> Peak | None:
    """The best step; None when there is no rise.

    Args:
        curve: of one metric.
        found: what `rise` said, where it is known already.
    """
    found = rise(curve) if found is None else found
    if not found.found:
        return None
    best, may_be = _best(curve, found)
    after = may_be[-1] + 1
    return Peak(
        step=int(curve.steps[best]),
        value=float(curve.value[best]),
        lo=float(curve.lo[best]),
        hi=float(curve.hi[best]),
        steps=(
            int(curve.steps[max(may_be[0] - 1, 0)]),
            int(curve.steps[after]) if after < len(curve.steps) else None,
        ),
    )


def decay(curve: Curve, *, seed: int = 0, found: Rise | None = None) -> Decay | None:
    """Share of the rise lost since the peak; None when there is no rise or no sure loss of the smallest effect.

    Args:
        curve: of one metric.
        seed: of the resampling.
        found: what `rise` said, where it is known already.
    """
    found = rise(curve) if found is None else found
    if not found.found:
        return None
    best, may_be = _best(curve, found)
    last = len(curve.steps) - 1
    lost = curve.p_above(last, found.sign, by=curve.smallest)[best]
    if last in may_be or lost * max(last, 1) * curve.among >= ALPHA:
        return None
    values, draws = _peak_last_first(curve, found, best, seed)
    if found.from_chance:
        values[2], draws[:, 2] = found.base, found.base
    with np.errstate(divide="ignore", invalid="ignore"):
        share, shares = ((v[..., 0] - v[..., 1]) / (v[..., 0] - v[..., 2]) for v in (values, draws))
    lo, hi = ends(shares, curve.tail)
    return Decay(float(share), float(lo), float(hi), int(curve.steps[best]), int(curve.steps[last]))


def _peak_last_first(
    curve: Curve, found: Rise, best: int, seed: int
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "draws 3"]]:
    """Values at the peak, the last and the first step, and in each resample.

    The peak's value is one that its own choice does not raise, see `held_out_best`; without values per sequence it is
    that of the best step.
    """
    if curve.samples is None:
        at = [best, len(curve.steps) - 1, 0]
        return curve.value[at], curve.draws(seed)[:, at]
    top = found.sign * held_out_best(found.sign * curve.samples)[1]
    rows = np.column_stack([top, curve.samples[:, -1], curve.samples[:, 0]])
    return np.nanmean(rows, axis=0), resampled_means(rows, seed=seed)


def phase_window(curve: Curve, *, seed: int = 0, found: Rise | None = None) -> PhaseWindow | None:
    """Where the curve changes fastest in its own direction; None when it does not rise within the series.

    Args:
        curve: of one metric, such as icl_score or repeat_loss/difference.
        seed: of the resampling.
        found: what `rise` said, where it is known already.
    """
    found = rise(curve) if found is None else found
    if not found.within:
        return None
    starts, stops = _stretches(curve.at)
    width = curve.at[stops] - curve.at[starts]

    def slopes(values: Float[np.ndarray, "draws steps"]) -> Float[np.ndarray, "draws stretches"]:
        return found.sign * (values[:, stops] - values[:, starts]) / width

    steepest = int(slopes(curve.value[None])[0].argmax())
    drawn = slopes(curve.draws(seed))
    chosen = drawn.argmax(1)
    bracket = (int(curve.steps[starts[steepest]]), int(curve.steps[stops[steepest]]))
    lo, _ = ends(curve.steps[starts[chosen]], curve.tail, outward=True)
    _, hi = ends(curve.steps[stops[chosen]], curve.tail, outward=True)
    slope_lo, slope_hi = sorted(found.sign * end for end in ends(drawn[:, steepest], curve.tail))
    slope = found.sign * slopes(curve.value[None])[0, steepest]
    return PhaseWindow(
        bracket,
        min(int(lo), bracket[0]),
        max(int(hi), bracket[1]),
        float(slope),
        float(slope_lo),
        float(slope_hi),
    )


def _best(curve: Curve, found: Rise) -> tuple[int, list[int]]:
    """Index of the best step, and of every step from the first to the last that is not significantly worse."""
    best = int((found.sign * curve.value).argmax())
    if curve.samples is not None:
        p = p_greater(found.sign * (curve.samples[:, best : best + 1] - curve.samples))
    else:
        p = curve.p_above(best, -found.sign)
    surely_worse = p * max(len(p) - 1, 1) * curve.among < ALPHA
    surely_worse[best] = False
    left = np.flatnonzero(~surely_worse)
    return best, list(range(int(left[0]), int(left[-1]) + 1))


def _stretches(
    at: Float[np.ndarray, " steps"],
) -> tuple[Int[np.ndarray, " stretches"], Int[np.ndarray, " stretches"]]:
    """Pairs of steps at least MIN_WIDTH apart, each with the nearest later one; the whole series if it is shorter."""
    stops = np.searchsorted(at, at + MIN_WIDTH)
    starts = np.flatnonzero(stops < len(at))
    if not len(starts):
        return np.array([0]), np.array([len(at) - 1])
    return starts, stops[starts]


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
