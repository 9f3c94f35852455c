"""Onsets: when a metric rose, and when it reached a fixed level. No torch.

Onset: when 10%, 50% and 90% of a rise had happened.

1. direction: the probe's own; where it has none, that of the largest departure from the first measured value
2. top: the highest value sustained at two neighbouring measured steps, or the last one: a spike at one step is no rise
3. there is a rise within the series when two neighbouring steps, or the last one, lie beyond the first step (one-sided
   t-tests on paired sequences, 5%, Bonferroni over steps and, for the strongest of several heads, over those) and, tested
   alike, by more than the smallest effect; else there is no onset, and the text says which
4. base: the first measured value; chance instead when that value already lies beyond chance, tested alike, by the
   smallest effect, for then part of the rise happened before the first step; without a rise within the series all of it did
5. crossing of a level: the first step at or above it that is followed by another (or is the last), joined to the step
   before by a straight line on ln(1 + step). Where the curve is significantly below the level again before it reaches its top
   (in all but 5% of resamples, Bonferroni over steps), only what comes after counts
6. interval: percentiles of the crossing when sequences are resampled, widened to the measured steps on either side
   (the bracket), because between two checkpoints nothing was seen

A fixed level, `threshold_crossing`:

1. reached: some two neighbouring measured steps, or the last one, lie beyond the level (one-sided t-tests, 5%, Bonferroni
   over steps and over the curves tested together); else it is not reported as reached, however close it comes
2. crossing: the first step at or beyond the level that is followed by another (or is the last), joined to the step before
   by a straight line on ln(1 + step), with the interval of step 6 above
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from byrote.probes.results.curve import Curve, step_of
from byrote.probes.rules import ALPHA, is_lasting
from byrote.probes.statistics import ordered_ends

LEVELS = (0.1, 0.5, 0.9)
Crossed = tuple[
    Float[np.ndarray, " _"], Int[np.ndarray, " _"]
]  # where on `log_step`, and the index of the step


@dataclass(frozen=True)
class Rise:
    """Whether a curve rises at all, from where to where.

    Attributes:
        found: whether it does, before the first measured step or after.
        within: whether it rises after the first measured step; only then has it an onset, or a steepest stretch.
        sign: 1 when the metric grows, -1 when it falls.
        base, top: between which the levels lie, in the metric's unit.
        from_chance: whether base is chance and not the first measured value.
        why_not: the reason in words when there is no rise within the series.
    """

    found: bool
    within: bool
    sign: float
    base: float
    top: float
    from_chance: bool
    why_not: str = ""


@dataclass(frozen=True)
class Crossing:
    """When one level was crossed.

    Attributes:
        frac: the level, as a share of the way from base to top.
        value: the level, in the metric's unit.
        step: interpolated; None when the first measured step is already beyond the level.
        bracket: (last measured step below it, or None; first measured step at or above it).
        lo, hi: 95% interval of the step, the bracket included; None where it is open: before the first measured step,
            or never within the series.
    """

    frac: float
    value: float
    step: float | None
    bracket: tuple[int | None, int]
    lo: float | None
    hi: float | None


def rise(curve: Curve) -> Rise:
    """Steps 1 to 4 of the module."""
    first = float(curve.value[0])
    sign = {"higher": 1.0, "lower": -1.0}.get(curve.better or "", 0.0)
    directions = 1 if sign else 2
    departure = curve.value - first
    if not sign:
        sign = 1.0 if departure.max() >= -departure.min() else -1.0
    top = first + sign * float(sustained_top(sign * departure[None])[0])
    why_not = _why_not(curve, sign, directions=directions)
    from_chance = directions == 1 and _beyond_chance(curve, sign)
    if from_chance and why_not:
        why_not = f"it is already beyond chance at the first measured step, and rises no further ({why_not})"
    return Rise(
        found=from_chance or not why_not,
        within=not why_not,
        sign=sign,
        base=curve.chance if from_chance else first,
        top=top,
        from_chance=from_chance,
        why_not=why_not,
    )


def _why_not(curve: Curve, sign: float, *, directions: int) -> str:
    """Why there is no rise after the first measured step, "" when there is one."""
    if len(curve.steps) < 2:
        return "only one step was measured"
    what = "change" if directions == 2 else "rise" if sign > 0 else "fall"
    for by in (0.0, curve.smallest):
        p = curve.p_above(0, sign, by=by)[1:]
        sustained = np.append(np.maximum(p[:-1], p[1:]), p[-1]).min()  # both of two neighbours, or the last
        if sustained * len(p) * directions * curve.among < ALPHA:
            continue
        if by:
            return f"no lasting {what} of {'' if curve.imported else 'significantly '}more than {by:g}"
        none = "" if curve.imported else " that these sequences can detect"
        return f"no lasting {what} from the first measured step{none}"
    return ""


def _beyond_chance(curve: Curve, sign: float) -> bool:
    """Whether the first measured value lies beyond chance."""
    if not np.isfinite(curve.chance):
        return False
    return bool(curve.p_above(None, sign, by=max(curve.smallest, 1e-12))[0] * curve.among < ALPHA)


def crossings(
    curve: Curve, *, fracs: tuple[float, ...] = LEVELS, seed: int = 0, found: Rise | None = None
) -> tuple[Crossing, ...]:
    """When each share of the rise had happened; nothing when there is none, open brackets when it happened before all steps.

    Args:
        curve: of one metric.
        fracs: levels, as shares of the way from base to top.
        seed: of the resampling.
        found: what `rise` said, where it is known already.
    """
    found = rise(curve) if found is None else found
    if not found.found:
        return ()
    if not found.within:
        first = int(curve.steps[0])
        levels = ((frac, found.base + frac * (found.top - found.base)) for frac in fracs)
        return tuple(Crossing(frac, level, None, (None, first), None, float(first)) for frac, level in levels)
    draws = curve.draws(seed)
    return tuple(_crossing(curve, found, frac, draws) for frac in fracs)


def _crossing(curve: Curve, found: Rise, frac: float, draws: Float[np.ndarray, "draws steps"]) -> Crossing:
    measured, drawn = crossed(curve, found, frac, draws)
    level = found.base + frac * (found.top - found.base)
    return crossing_of(curve, measured, drawn[0], frac=frac, level=level)


def crossed(
    curve: Curve, found: Rise, frac: float, draws: Float[np.ndarray, "draws steps"]
) -> tuple[Crossed, Crossed]:
    """Where a curve, and its resamples, cross a share of their own rise: each has its own base and top.

    Args:
        curve: that rises.
        found: what `rise` said of it.
        frac: share of the rise.
        draws: its resamples.

    Returns:
        Of the curve itself, and of the resamples, what `first_lasting` gives.
    """
    measured, drawn = (_risen(found, values) for values in (curve.value[None], draws))
    tops, too_high = sustained_top(drawn), _too_high(measured, drawn)
    levels = frac * (tops - np.sqrt(2) * too_high)  # a resample has the noise of its sample and its own
    start = _surely_below(measured[0], drawn < levels[:, None])
    at, index = first_lasting(curve, drawn, levels, start=start)
    own = first_lasting(curve, measured, frac * (sustained_top(measured) - too_high), start=start)
    return own, (np.where(levels > 0, at, np.inf), index)


def _too_high(measured: Float[np.ndarray, "1 steps"], drawn: Float[np.ndarray, "draws steps"]) -> float:
    """How much the highest of many noisy values is too high.

    Resampling doubles the variance of the noise, and with it raises the highest of equals by a factor of sqrt(2): what
    it adds is sqrt(2) - 1 of what is there already.
    """
    added = float(sustained_top(drawn).mean() - sustained_top(measured)[0])
    return max(0.0, added) / (np.sqrt(2) - 1)


def _risen(found: Rise, values: Float[np.ndarray, "draws steps"]) -> Float[np.ndarray, "draws steps"]:
    """How far versions of a curve have risen above their own base."""
    base = found.base if found.from_chance else values[:, :1]
    return found.sign * (values - base)


def _surely_below(y: Float[np.ndarray, " steps"], below: Bool[np.ndarray, "draws steps"]) -> int:
    """Index after the last step before the top at which the curve is significantly below a level."""
    top = int(np.append(np.minimum(y[:-1], y[1:]), y[-1]).argmax())
    lost = np.flatnonzero(below[:, :top].mean(0) > 1 - ALPHA / len(y))
    return int(lost[-1]) + 1 if len(lost) else 0


def crossing_of(
    curve: Curve,
    measured: Crossed,
    drawn: Float[np.ndarray, " draws"],
    *,
    frac: float,
    level: float,
) -> Crossing:
    """A crossing with its bracket and interval.

    Args:
        curve: that crosses.
        measured: where it does on `log_step`, and the index of the first step beyond, see `first_lasting`.
        drawn: where its resamples do.
        frac: the level as a share of the rise, NaN for a fixed one.
        level: in the metric's unit.
    """
    at, i = float(measured[0][0]), int(measured[1][0])
    bracket = (int(curve.steps[i - 1]) if i else None, int(curve.steps[i]))
    lo, hi = ordered_ends(drawn, curve.tail)
    return Crossing(
        frac=frac,
        value=level,
        step=step_of(at) if np.isfinite(at) else None,
        bracket=bracket,
        lo=None if bracket[0] is None or not np.isfinite(lo) else min(step_of(lo), float(bracket[0])),
        hi=max(step_of(hi), float(bracket[1])) if hi < np.inf else None,
    )


def first_lasting(
    curve: Curve,
    y: Float[np.ndarray, "draws steps"],
    level: Float[np.ndarray, " draws"] | float,
    *,
    start: int = 0,
) -> Crossed:
    """Where versions of a curve first reach a level and stay for another step, on `log_step`; and the index of that step.

    -inf: beyond from the first step; inf: never for two steps. Steps before `start` do not count.
    """
    level = np.broadcast_to(level, len(y))
    beyond = y >= level[:, None]
    lasting = is_lasting(beyond.T).T
    lasting[:, :start] = False
    index = lasting.argmax(1)
    rows, before = np.arange(len(y)), np.maximum(index - 1, 0)
    low, high = y[rows, before], y[rows, index]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip((level - low) / (high - low), 0, 1)
    at = curve.at[before] + share * (curve.at[index] - curve.at[before])
    at = np.where(index == 0, -np.inf, at)
    return np.where(lasting.any(1), at, np.inf), index


def sustained_top(y: Float[np.ndarray, "draws steps"]) -> Float[np.ndarray, " draws"]:
    """The highest value sustained at two neighbouring steps, or at the last one."""
    if y.shape[1] == 1:
        return y[:, 0]
    return np.maximum(np.minimum(y[:, :-1], y[:, 1:]).max(1), y[:, -1])


@dataclass(frozen=True)
class Reached:
    """Whether and when a level was reached.

    Attributes:
        crossing: when; None where it was not significantly reached.
        why_not: the reason in words.
    """

    crossing: Crossing | None
    why_not: str = ""


def threshold_crossing(curve: Curve, threshold: float, *, seed: int = 0) -> Reached:
    """When a curve reaches a level, from below where a higher value is more of what the probe names, else from above.

    Args:
        curve: of one metric; `among` says how many curves are tested together.
        threshold: in the metric's unit.
        seed: of the resampling.
    """
    sign = -1.0 if curve.better == "lower" else 1.0
    p = replace(curve, chance=threshold).p_above(None, sign)
    sustained = np.append(np.maximum(p[:-1], p[1:]), p[-1])
    if sustained.min() * len(p) * curve.among >= ALPHA:
        side, limit = ("above", "at most") if sign > 0 else ("below", "at least")
        closest = float(curve.value[int((sign * curve.value).argmax())])
        never = "not at two neighbouring steps" if curve.imported else "never significantly"
        return Reached(None, f"{never} {side} {threshold:g}; {limit} {closest:.3g}")
    measured = first_lasting(curve, sign * (curve.value[None] - threshold), 0.0)
    drawn = first_lasting(curve, sign * (curve.draws(seed) - threshold), 0.0)
    return Reached(crossing_of(curve, measured, drawn[0], frac=np.nan, level=threshold))
