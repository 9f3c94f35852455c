"""Double descent of an arm: does its loss fall, rise and fall again in every seed's own time, more than seeds differ? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, figure 3; Nakkiran et al. 2020, arXiv:1912.02292. The test is byrote's own; of one run over
sequences it is `byrote.trajectory.double_descent`.

1. each seed's loss is smoothed over ln(1 + step) by a Gaussian kernel (Nadaraya 1964, Watson 1964); bandwidth 0.15 e-folds unless
   given: between neighbouring steps of a grid of 40 over six e-folds
2. for every seed, start, dip, top and end are chosen on the mean of the other seeds (`chosen_steps`: the smaller of the rise and
   the second fall is largest, after a first fall as large) and the three differences are read on that seed's smoothed curve
3. found when the 95% intervals over seeds of first fall, rise and second fall lie above the smallest effect, from 5 seeds on
4. dip and top of the mean curve, with the interval of the resampled seeds in ln(1 + step), no narrower than the steps beside them
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.run_cells import half_width
from byrote.probes.groups import Group
from byrote.probes.rules import MIN_SEEDS, SMALLEST
from byrote.probes.seed_statistics import SeedDifference, mean_over_seeds
from byrote.probes.trajectory.descent import chosen_steps

BANDWIDTH = 0.15  # e-folds of steps
N_DRAWS = 400


@dataclass(frozen=True)
class Extremum:
    """A step of the mean curve with the interval of its place, in steps."""

    step: float
    lo: float
    hi: float


@dataclass(frozen=True)
class ArmDescent:
    """Double descent of an arm: a fall, a rise and a second fall of the loss, with intervals over seeds.

    Attributes:
        dip, top: of the smoothed mean curve.
        fall, rise, second_fall: over seeds, each read where the other seeds have their extrema.
        found: all three significantly exceed the smallest effect.
        seeds: how many have a curve.
        seeds_with: on how many the three differences are all above 0.
    """

    dip: Extremum
    top: Extremum
    fall: SeedDifference
    rise: SeedDifference
    second_fall: SeedDifference
    found: bool
    seeds: int
    seeds_with: int


@dataclass(frozen=True)
class ArmCurve:
    """The loss of an arm over training, and what it does.

    Attributes:
        rows: columns step, value, lo and hi (the smoothed mean with its 95% interval over seeds, in the metric's unit), and seeds.
        found: its double descent; None where no mean of the other seeds has a dip and a top, or it could not be sought.
        reason: why it could not be sought.
    """

    rows: pd.DataFrame
    found: ArmDescent | None
    reason: str = ""


def arm_curve(arm: Group, probe: str, metric: str, *, seed: int = 0) -> ArmCurve:
    """An arm's mean loss at the steps that all of its seeds have, and its double descent.

    Args:
        arm: runs that differ in their seed alone.
        probe, metric: one number of the whole model per step.
        seed: of the resampling.

    Raises:
        ByroteError: not measured.
    """
    curves = [dict(zip(c.steps.tolist(), c.value.tolist(), strict=True))
              for c in (run.curves(probe, metric, sequences=False).get(None) or run.curve(probe, metric) for run in arm.runs)]  # fmt: skip
    steps = np.array(sorted(set.intersection(*(set(one) for one in curves))), dtype=np.int64)
    loss = np.array([[one[s] for s in steps.tolist()] for one in curves])
    over = [mean_over_seeds(v) for v in smoothed(np.log1p(steps.astype(np.float64)), loss, BANDWIDTH).T]
    columns = {name: [getattr(one, name) for one in over] for name in ("value", "lo", "hi")}
    rows = pd.DataFrame({"step": steps, **columns, "seeds": len(curves)})
    try:
        return ArmCurve(rows, double_descent(steps, loss, seed=seed))
    except ByroteError as error:
        return ArmCurve(rows, None, error.message)


def double_descent(
    steps: Int[np.ndarray, " steps"],
    loss: Float[np.ndarray, "seeds steps"],
    *,
    smallest: float = SMALLEST,
    bandwidth: float = BANDWIDTH,
    seed: int = 0,
    n_draws: int = N_DRAWS,
) -> ArmDescent | None:
    """The clearest double descent over seeds; None where no mean of the other seeds has a dip and a top.

    Args:
        steps: ascending, at least five.
        loss: of each seed at each step, in nats; lower is better.
        smallest: smallest effect of interest in nats.
        bandwidth: of the smoothing, in e-folds of steps; 0 leaves the curves as they are.
        seed: of the resampling.
        n_draws: resamples.

    Raises:
        ByroteError: fewer than two seeds or five steps, or values that are not finite.
    """
    if len(loss) < 2 or len(steps) < 5 or not np.isfinite(loss).all():
        raise ByroteError(
            f"{len(loss)} curves of {len(steps)} steps are too little for double descent over seeds",
            help="give two seeds or more, each measured at the same five steps or more",
        )
    x = np.log1p(steps.astype(np.float64))
    curves = smoothed(x, loss, bandwidth)
    whole = chosen_steps(curves.mean(0))
    parts: list[list[float]] = []
    for k, own in enumerate(curves):
        at = chosen_steps(np.delete(curves, k, axis=0).mean(0))
        if at is not None:
            start, dip, top, end = (float(own[i]) for i in at)
            parts.append([start - dip, top - dip, top - end])
    if whole is None or len(parts) < len(curves):
        return None
    over = np.array(parts)
    fall, rise, second = (mean_over_seeds(over[:, i]) for i in range(3))
    sure = len(over) >= MIN_SEEDS and all(one.lo > smallest for one in (fall, rise, second))
    dip_at, top_at = _places(x, curves, whole, np.random.default_rng([seed, len(curves)]), n_draws)
    return ArmDescent(dip_at, top_at, fall, rise, second, sure, len(over), int((over > 0).all(1).sum()))


def smoothed(
    x: Float[np.ndarray, " steps"], values: Float[np.ndarray, "curves steps"], bandwidth: float
) -> Float[np.ndarray, "curves steps"]:
    """Kernel means of curves.

    Args:
        x: places of the steps.
        values: of each curve.
        bandwidth: standard deviation of the kernel in the unit of x; 0 changes nothing.
    """
    if bandwidth <= 0:
        return values.astype(np.float64)
    weights = np.exp(-0.5 * ((x[:, None] - x[None]) / bandwidth) ** 2)
    return values @ (weights / weights.sum(0, keepdims=True))


def _places(
    x: Float[np.ndarray, " steps"],
    curves: Float[np.ndarray, "curves steps"],
    at: tuple[int, int, int, int],
    rng: np.random.Generator,
    n_draws: int,
) -> tuple[Extremum, Extremum]:
    draws = []
    for picked in rng.integers(len(curves), size=(n_draws, len(curves))):
        found = chosen_steps(curves[picked].mean(0))
        if found is not None:
            draws.append((x[found[1]], x[found[2]]))
    places = np.array(draws).reshape(-1, 2)
    out = []
    for i, place in enumerate((at[1], at[2])):
        half = half_width(places[:, i], len(curves))
        lo = min(x[place] - half, x[max(place - 1, 0)]) if np.isfinite(half) else np.nan
        hi = max(x[place] + half, x[min(place + 1, len(x) - 1)]) if np.isfinite(half) else np.nan
        out.append(Extremum(*(float(np.expm1(v)) for v in (x[place], lo, hi))))
    return out[0], out[1]
