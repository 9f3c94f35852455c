"""Effective model size: how many parameters of a healthy model are as good as this one? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, sections 2 and 4, figures 4, 5, 13, 20 and 21 (constants not printed; the closed
form is byrote's own); compute-equivalent loss: Chudnovsky et al. 2026, arXiv:2606.24998; effective parameters of repeated data.

1. ladder: the control's mean over seeds at each size N. "power": ln(L - floor) = a - alpha ln N by least squares over sizes, for test
   loss, the floor being the Bayes loss where it is known; "interpolate": value against ln N piecewise, for copying; "linear":
   value = a + b ln N, for prefix matching
2. N_eff of an arm of size N = the N at which the ladder has the arm's value; multiplier m = N_eff / N; below 1 is damage
3. a ladder whose means do not improve with every size is refused, and so are two sizes with a line or a power law
4. outside the sizes of the ladder, N_eff is clipped to its end and flagged: m is then a bound
5. over sizes: the harmonic mean of the multipliers
6. interval: seeds resampled inside sizes, then sequences (`run_cells.student_ends` of ln m). Resamples extend beyond the ladder, by
   as much as it spans, so that a value near its end does not look more certain than others; an end of the interval that lies beyond
   is open
7. with N by "compute" the same is the compute at which the control has the loss, over the compute spent
8. seed by seed, where all cells have the same seeds: pseudo-values of ln m, n times that of all seeds less n - 1 times that without
   the one (the jackknife, Tukey 1958), ladder and arm alike; a verdict over seeds is based on their mean and spread
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.degrade.run_cells import N_DRAWS, Cells, cells_of, half_width
from byrote.probes.degrade.runs import required
from byrote.probes.seed_statistics import pseudo_values, without_each

HOW: Mapping[str, int] = {"power": 3, "interpolate": 2, "linear": 3}  # sizes each needs
SIZE_COLUMNS = (
    "arm", "size", "value", "effective", "multiplier", "lo", "hi", "seeds", "clipped", "counted_by", "how",
)  # fmt: skip


class LadderRefused(ByroteError):
    """A control of which no size can be read off: too few sizes, or values that do not improve with every size."""


@dataclass(frozen=True)
class Ladder:
    """The ladder: what models of each size reach on healthy data.

    Attributes:
        sizes: ascending.
        values: mean over seeds at each.
        how: power, interpolate or linear.
        floor: Bayes loss taken off; 0 where not known.
        intercept, slope: of the line over ln N, of ln(L - floor) or of the value; NaN where interpolated.
        r2: share of the variance over sizes that the line explains; NaN where interpolated.
        counted_by: what size means: parameters, parameters_without_embeddings, compute.
    """

    sizes: Float[np.ndarray, " sizes"]
    values: Float[np.ndarray, " sizes"]
    how: str
    floor: float
    intercept: float
    slope: float
    r2: float
    counted_by: str


@dataclass(frozen=True)
class EffectiveSize:
    """Effective sizes: the size of a healthy model that does as well as an arm, over the arm's own size.

    Attributes:
        rows: `SIZE_COLUMNS`, one per arm and size, and one per arm with size NaN: the harmonic mean over its sizes. `clipped` is
            "" or which end of the ladder the value lies beyond: "below" (m at most) or "above" (m at least).
        ladder: what they are held against.
        draws: (arm, size) -> ln m in each resample; size NaN as in the rows is `(arm, None)`.
        seeds: of the cell that has fewest.
        by_seed: (arm, size) -> pseudo-values of ln m, one per seed; empty where the cells do not have the same seeds, or one alone.
    """

    rows: pd.DataFrame
    ladder: Ladder
    draws: Mapping[tuple[str, float | None], Float[np.ndarray, " draws"]]
    seeds: int
    by_seed: Mapping[tuple[str, float], Float[np.ndarray, " seeds"]] = field(default_factory=dict)

    def multiplier(self, arm: str) -> pd.Series:
        """The row of an arm over its sizes."""
        return self.rows[(self.rows["arm"] == arm) & self.rows["size"].isna()].iloc[0]


def effective_size(
    ladder: pd.DataFrame,
    arms: pd.DataFrame,
    *,
    how: str = "power",
    counted_by: str = "parameters",
    floor: float = 0.0,
    seed: int = 0,
    n_draws: int = N_DRAWS,
) -> EffectiveSize:
    """Effective sizes of arms, read off the control's ladder of sizes.

    Args:
        ladder: `run_rows` of the control, several sizes.
        arms: `run_rows` of the damaged runs, of the same metric.
        how: power, interpolate, or linear.
        counted_by: parameters, parameters_without_embeddings, or compute.
        floor: Bayes loss in nats, for the power law; 0 takes the loss as it is.
        seed: of the resampling.
        n_draws: resamples.

    Raises:
        LadderRefused: too few sizes, a ladder that is not monotone, or a loss that is not above the floor.
        ByroteError: an unknown way, a size that is not declared, or other metrics.
    """
    if how not in HOW:
        raise ByroteError(f"sizes cannot be read off by {how!r}", help=did_you_mean(how, HOW))
    rows = pd.concat([ladder.assign(_place=""), arms.assign(_place=arms["arm"])], ignore_index=True)
    _refuse_mixed(rows)
    sizes = required(rows, counted_by, what_for="effective size")
    places = list(dict.fromkeys(zip(rows["_place"], sizes, strict=True)))
    number = {
        place: float(i) for i, place in enumerate(sorted(places))
    }  # the ladder's come first: "" sorts before names
    keys = [number[place] for place in zip(rows["_place"], sizes, strict=True)]
    cells = cells_of(rows, keys, seed=seed, n_draws=n_draws)
    named = sorted(places)
    n_ladder = sum(place == "" for place, _ in named)
    steps = np.array([size for _, size in named[:n_ladder]])
    better = str(rows["better"].iloc[0])
    _refuse_ladder(steps, cells.means[:n_ladder], better, how, floor)
    fitted = _fit(steps, cells.means[None, :n_ladder], how, floor, better)
    drawn = _fit(steps, cells.draws[:, :n_ladder], how, floor, better)
    found = _multipliers(named[n_ladder:], cells, n_ladder, fitted, drawn, counted_by)
    if not cells.paired or cells.seeds < 2:
        return found
    without = without_each(cells.matrix())
    left = _fit(steps, without[:, :n_ladder], how, floor, better)
    ends = np.log(steps[[0, -1]])
    by_seed = {}
    for i, (arm, size) in enumerate(named[n_ladder:], start=n_ladder):
        whole, each = fitted.log_size(cells.means[None, i]), left.log_size(without[:, i])
        room = ends[1] - ends[0] if ends[0] <= whole[0] <= ends[1] else 0.0  # beyond an end all are that end
        whole, each = (np.clip(one, ends[0] - room, ends[1] + room) - np.log(size) for one in (whole, each))
        by_seed[arm, size] = pseudo_values(float(whole[0]), each)
    return replace(found, by_seed=by_seed)


def _multipliers(
    named: Sequence[tuple[str, float]],
    cells: Cells,
    n_ladder: int,
    fitted: _Fit,
    drawn: _Fit,
    counted_by: str,
) -> EffectiveSize:
    low, high = np.log(fitted.sizes[[0, -1]])
    span = high - low
    found, draws = [], dict[tuple[str, float | None], np.ndarray]()
    for i, (arm, size) in enumerate(named, start=n_ladder):
        log_n = float(fitted.log_size(cells.means[None, i])[0])
        outside = "below" if log_n < low else "above" if log_n > high else ""
        draws[arm, size] = np.clip(drawn.log_size(cells.draws[:, i]), low - span, high + span) - np.log(size)
        m = float(np.clip(log_n, low, high)) - float(np.log(size))
        found.append((arm, size, float(cells.means[i]), m, outside, len(cells.values[i])))
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in named):
        mine = [one for one in found if one[0] == arm]
        for _, size, value, m, outside, seeds in mine:
            ladder = low - float(np.log(size)), high - float(np.log(size))
            rows.append(_row(arm, size, value, m, draws[arm, size], outside, seeds, cells.seeds, ladder))
        inverse = np.mean([np.exp(-m) for _, _, _, m, _, _ in mine])
        draws[arm, None] = -np.log(np.mean([np.exp(-draws[arm, one[1]]) for one in mine], axis=0))
        outside = next((one[4] for one in mine if one[4]), "")
        fewest = min(one[5] for one in mine)
        rows.append(
            _row(arm, np.nan, np.nan, -float(np.log(inverse)), draws[arm, None], outside, fewest, cells.seeds)
        )
    table = pd.DataFrame(rows).assign(counted_by=counted_by, how=fitted.how)[list(SIZE_COLUMNS)]
    line = (float(fitted.intercept[0]), float(fitted.slope[0]), fitted.r2)
    read = Ladder(fitted.sizes, fitted.values[0], fitted.how, fitted.floor, *line, counted_by)
    return EffectiveSize(table, read, draws, cells.seeds)


def _row(
    arm: str,
    size: float,
    value: float,
    m: float,
    draws: Float[np.ndarray, " draws"],
    outside: str,
    seeds: int,
    fewest: int,
    ladder: tuple[float, float] = (-np.inf, np.inf),
) -> dict[str, object]:
    """A row of `SIZE_COLUMNS`; `ladder` are the logarithms of the multipliers at its ends."""
    half = half_width(draws, fewest)
    lo, hi = m - half, m + half
    return {
        "arm": arm, "size": size, "value": value, "effective": np.exp(m) * size, "multiplier": float(np.exp(m)),
        "lo": 0.0 if outside == "below" or lo < ladder[0] else float(np.exp(lo)),
        "hi": np.inf if outside == "above" or hi > ladder[1] else float(np.exp(hi)),
        "seeds": seeds, "clipped": outside,
    }  # fmt: skip


@dataclass(frozen=True)
class _Fit:
    """Ladders, one per draw: from a value to ln N."""

    sizes: Float[np.ndarray, " sizes"]
    values: Float[np.ndarray, "draws sizes"]
    how: str
    floor: float
    better: str
    intercept: Float[np.ndarray, " draws"]
    slope: Float[np.ndarray, " draws"]
    r2: float

    def log_size(self, value: Float[np.ndarray, " draws"]) -> Float[np.ndarray, " draws"]:
        """ln N at which each ladder has the value of its draw; beyond the ladder's ends where interpolated: one e-fold beyond."""
        if self.how == "interpolate":
            sign = 1 if self.better == "higher" else -1
            return _read_off(_monotone(sign * self.values), np.log(self.sizes), sign * value)
        with np.errstate(invalid="ignore", divide="ignore"):
            above = value - self.floor  # what is not above the floor is better than any size
            y = np.log(np.where(above > 0, above, 0.0)) if self.how == "power" else value
            return (y - self.intercept) / self.slope


def _fit(
    sizes: Float[np.ndarray, " sizes"],
    values: Float[np.ndarray, "draws sizes"],
    how: str,
    floor: float,
    better: str,
) -> _Fit:
    x = np.log(sizes)
    nan = np.full(len(values), np.nan)
    if how == "interpolate":
        return _Fit(sizes, values, how, floor, better, nan, nan, np.nan)
    with np.errstate(invalid="ignore"):
        y = np.log(values - floor) if how == "power" else values
    slope = (y - y.mean(1, keepdims=True)) @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    intercept = y.mean(1) - slope * x.mean()
    left = ((y[0] - intercept[0] - slope[0] * x) ** 2).sum()
    r2 = 1 - left / ((y[0] - y[0].mean()) ** 2).sum()
    return _Fit(sizes, values, how, floor, better, intercept, slope, float(r2))


def _read_off(
    y: Float[np.ndarray, "draws sizes"], x: Float[np.ndarray, " sizes"], value: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    """The x at which each rising ladder has its value, on the chord; one beyond either end where it lies beyond it."""
    at = np.clip((y < value[:, None]).sum(1), 1, len(x) - 1)
    row = np.arange(len(y))
    low, high = y[row, at - 1], y[row, at]
    share = (value - low) / np.where(high > low, high - low, 1.0)
    found = x[at - 1] + np.clip(share, 0, 1) * (x[at] - x[at - 1])
    return np.where(value < y[:, 0], x[0] - 1, np.where(value > y[:, -1], x[-1] + 1, found))


def _monotone(values: Float[np.ndarray, "draws sizes"]) -> Float[np.ndarray, "draws sizes"]:
    """Each row's least-squares rising fit: violators that neighbour each other are pooled (Ayer et al. 1955)."""
    out = values.astype(np.float64)
    for i in np.flatnonzero((np.diff(values, axis=1) <= 0).any(1)):
        blocks: list[list[float]] = []
        for value in values[i].tolist():
            blocks.append([value, 1.0])
            while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
                (a, n), (b, m) = blocks[-2], blocks.pop()
                blocks[-1] = [(a * n + b * m) / (n + m), n + m]
        out[i] = np.concatenate([np.full(int(n), mean) for mean, n in blocks])
    return out


def _refuse_mixed(rows: pd.DataFrame) -> None:
    names = {f"{p}/{m}" for p, m in zip(rows["probe"], rows["metric"], strict=True)}
    if len(names) != 1:
        raise ByroteError(
            f"ladder and arms hold other metrics: {', '.join(sorted(names))}",
            help="make both tables of one metric",
        )
    if rows["better"].iloc[0] not in ("higher", "lower"):
        raise ByroteError(
            f"{names.pop()} has no better direction, so effective size is undefined",
            help="name a loss or a score",
        )


def _refuse_ladder(
    sizes: Float[np.ndarray, " sizes"],
    values: Float[np.ndarray, " sizes"],
    better: str,
    how: str,
    floor: float,
) -> None:
    if len(sizes) < HOW[how]:
        raise LadderRefused(
            f"the control has {len(sizes)} sizes, and effective size by {how} needs {HOW[how]}",
            help="train the control at more sizes, from below the smallest arm's to its own at least",
        )
    rising = np.diff(values) > 0 if better == "higher" else np.diff(values) < 0
    if not rising.all():
        i = int(np.flatnonzero(~rising)[0])
        raise LadderRefused(
            f"the control's ladder is not monotone: {values[i]:.4g} at {sizes[i]:,.0f} and {values[i + 1]:.4g} at "
            f"{sizes[i + 1]:,.0f}",
            help="more seeds at these sizes, more steps, or sizes at which the metric still improves",
        )
    if how == "power" and not (values > floor).all():
        raise LadderRefused(
            f"the control's loss of {values.min():.4g} is not above the floor of {floor:.4g}",
            help="the floor is the Bayes loss of the same tokens, in nats",
        )
