"""Onset of any metric: when 10%, 50% and 90% of a rise had happened. No torch.

1. base: the first measured value; chance instead when that value already lies beyond chance by the smallest effect,
   for then part of the rise came before the first step
2. direction: the probe's own; where it has none, that of the largest departure from base
3. top: the highest value held at two neighbouring measured steps, or the last one: a spike at one step is no rise
4. there is a rise when some step lies beyond base (one-sided t-tests on paired sequences, Bonferroni over steps, 5%)
   and top lies beyond base by the smallest effect; else there is no onset, and the text says which
5. crossing of a level: the first step at or above it that is followed by another (or is the last), joined to the step
   before by a straight line on ln(1 + step)
6. interval: percentiles of the crossing when sequences are resampled, widened to the measured steps on either side
   (the bracket), because between two checkpoints nothing was seen
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from probes.trajectory.curve import Curve, step_of

ALPHA = 0.05
LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Rise:
    """Whether a curve rises at all, from where to where.

    Attributes:
        found: whether it does.
        sign: 1 when the metric grows, -1 when it falls.
        base, top: between which the levels lie, in the metric's unit.
        from_chance: whether base is chance and not the first measured value.
        why_not: the reason in words when there is no rise.
    """

    found: bool
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
    first, from_chance = float(curve.value[0]), False
    sign = {"higher": 1.0, "lower": -1.0}.get(curve.better or "", 0.0)
    if sign and np.isfinite(curve.chance):
        beyond = sign * (first - curve.chance) > max(curve.smallest, 1e-12)
        from_chance = bool(beyond and curve.p_above(None, sign)[0] < ALPHA)
    base = curve.chance if from_chance else first
    if not sign:
        departure = curve.value - base
        sign = 1.0 if departure.max() >= -departure.min() else -1.0
    top = base + sign * float(held_top(sign * (curve.value - base)[None])[0])
    p = curve.p_above(None if from_chance else 0, sign)
    tests = len(p) if from_chance else len(p) - 1
    if len(p) < 2:
        why = "only one step was measured"
    elif p.min() * tests * (1 if curve.better else 2) >= ALPHA:
        why = "no change from the first measured step that these sequences can tell from none"
    elif sign * (top - base) <= curve.smallest:
        why = f"no lasting change of more than {curve.smallest:g}"
    else:
        why = ""
    return Rise(not why, sign, base, top, from_chance, why)


def crossings(
    curve: Curve, *, fracs: tuple[float, ...] = LEVELS, seed: int = 0, found: Rise | None = None
) -> tuple[Crossing, ...]:
    """When each share of the rise had happened; nothing when there is no rise.

    Args:
        curve: of one metric.
        fracs: levels, as shares of the way from base to top.
        seed: of the resampling.
        found: what `rise` said, where it was asked before.
    """
    found = rise(curve) if found is None else found
    if not found.found:
        return ()
    draws = curve.draws(seed)
    return tuple(_crossing(curve, found, frac, draws) for frac in fracs)


def _crossing(curve: Curve, found: Rise, frac: float, draws: Float[np.ndarray, "draws steps"]) -> Crossing:
    at, index = cross(curve, found, frac, curve.value[None])
    i = int(index[0])
    bracket = (int(curve.steps[i - 1]) if i else None, int(curve.steps[i]))
    resampled = np.sort(cross(curve, found, frac, draws)[0])
    last = len(resampled) - 1
    lo, hi = (resampled[round(last * share)] for share in (curve.tail, 1 - curve.tail))
    return Crossing(
        frac=frac,
        value=found.base + frac * (found.top - found.base),
        step=step_of(at[0]) if np.isfinite(at[0]) else None,
        bracket=bracket,
        lo=None if bracket[0] is None or not np.isfinite(lo) else min(step_of(lo), float(bracket[0])),
        hi=max(step_of(hi), float(bracket[1])) if hi < np.inf else None,
    )


def cross(
    curve: Curve, found: Rise, frac: float, values: Float[np.ndarray, "draws steps"]
) -> tuple[Float[np.ndarray, " draws"], Int[np.ndarray, " draws"]]:
    """Where versions of a curve cross a level, on `log_step`, and the index of the first step beyond it.

    Each version has its own base and top. -inf: beyond from the first step; inf: never for two steps.
    """
    base = np.full(len(values), found.base) if found.from_chance else values[:, 0]
    y = found.sign * (values - base[:, None])
    level = frac * held_top(y)
    beyond = y >= level[:, None]
    lasting = beyond.copy()
    lasting[:, :-1] &= beyond[:, 1:]
    index = lasting.argmax(1)
    rows, before = np.arange(len(y)), np.maximum(index - 1, 0)
    low, high = y[rows, before], y[rows, index]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip((level - low) / (high - low), 0, 1)
    at = curve.at[before] + share * (curve.at[index] - curve.at[before])
    at = np.where(index == 0, -np.inf, at)
    return np.where(lasting.any(1) & (level > 0), at, np.inf), index


def held_top(y: Float[np.ndarray, "draws steps"]) -> Float[np.ndarray, " draws"]:
    """The highest value held at two neighbouring steps, or at the last one."""
    if y.shape[1] == 1:
        return y[:, 0]
    return np.maximum(np.minimum(y[:, :-1], y[:, 1:]).max(1), y[:, -1])
