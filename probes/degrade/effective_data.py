"""Effective data: what are repeated epochs of the whole corpus worth in fresh tokens? No torch.

Source: Muennighoff et al. 2023, arXiv:2305.16264, equations 5 and 6 and appendix A: D' = U + U R* (1 - exp(-R / R*)), R = epochs - 1,
with R* = 15.387756 for data and 5.309743 for parameters; L = E + A / N^alpha + B / D'^beta.

1. `effective_data`: D' of unique tokens and epochs; its limit is (1 + R*) U
2. `fit_r_star`: of runs of one size, L = E + B / D'(U, epochs; R*)^beta by least squares of the means over seeds; E, B and beta by
   a grid over R* and a search inside it. Interval of ln R*, and of the fitted loss at every U and number of epochs: seeds resampled
   (`run_cells.half_width`)
3. the law cannot express a loss that rises with epochs: where it significantly does (a rise of the last epoch over the best one,
   beyond the smallest effect, by its interval over seeds) the fit is refused, as the paper leaves such runs out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.run_cells import Cells, cells_of, half_width
from byrote.probes.degrade.runs import required
from byrote.probes.seed_statistics import mean_over_seeds, unpaired_difference

R_STAR_DATA, R_STAR_PARAMETERS = 15.387756, 5.309743
_GRID = np.geomspace(0.3, 1000.0, 61)  # of R*
_BETAS = np.linspace(0.05, 2.0, 40)
_CURVE_POINTS = 40  # of the fitted law, from one epoch to the most that were measured
POINT_COLUMNS = ("unique_tokens", "epochs", "loss", "lo", "hi", "seeds", "effective_tokens")
CURVE_COLUMNS = ("unique_tokens", "epochs", "loss", "lo", "hi")
_Law = tuple[float, float, float, float, float]  # R*, E, B, beta, residual


def effective_data(
    unique: Float[np.ndarray, "*shape"] | float,
    epochs: Float[np.ndarray, "*shape"] | float,
    r_star: float = R_STAR_DATA,
) -> Float[np.ndarray, "*shape"]:
    """Effective data D' of repeated epochs, in the unit of `unique` (Muennighoff et al. 2023, equation 5).

    Args:
        unique: unique tokens U.
        epochs: passes over them, from 1.
        r_star: after how many repetitions a further one is worth 1/e of a fresh pass.
    """
    unique = np.asarray(unique, dtype=np.float64)
    repeats = np.asarray(epochs, dtype=np.float64) - 1
    return np.asarray(unique + unique * r_star * (1 - np.exp(-repeats / r_star)))


@dataclass(frozen=True)
class RStar:
    """R* of repeated epochs (Muennighoff et al. 2023), refitted.

    Attributes:
        r_star: with lo and hi, its 95% interval over seeds.
        lo, hi: see r_star.
        floor, scale, exponent: E, B and beta of the loss law.
        error: root mean square residual in nats.
        at_edge: whether R* lies at an end of what was searched, 0.3 to 1000: the data do not bound it.
        points: different (U, epochs).
        measured: `POINT_COLUMNS`, a row for each of them: mean loss over seeds with its 95% interval, and D' in tokens.
        curve: `CURVE_COLUMNS`, the fitted loss of each U from one epoch to the most, with its 95% interval over seeds.
    """

    r_star: float
    lo: float
    hi: float
    floor: float
    scale: float
    exponent: float
    error: float
    at_edge: bool
    points: int
    measured: pd.DataFrame = field(repr=False, compare=False, default_factory=pd.DataFrame)
    curve: pd.DataFrame = field(repr=False, compare=False, default_factory=pd.DataFrame)


def with_unique_tokens(runs: pd.DataFrame) -> pd.DataFrame:
    """`run_rows` of whole-corpus epochs with their `unique_tokens`: tokens seen over epochs.

    Args:
        runs: that declare epochs and a repeated share of 1, or of 0 for one epoch.

    Raises:
        ByroteError: what is not declared, or data of which only a part is repeated: this law is about whole epochs.
    """
    share = required(runs, "repeat_frac", what_for="effective data")
    epochs = required(runs, "epochs", what_for="effective data")
    tokens = required(runs, "tokens", what_for="effective data")
    part = (share > 0) & (share < 1)
    if part.any():
        run = runs["run"].iloc[int(np.flatnonzero(part)[0])]
        raise ByroteError(
            f"{run} repeats a part of its data (f = {share[part][0]:g}), and effective data is about epochs of all of it",
            help="give runs of repeat_frac 1, and of 0 for one epoch",
        )
    whole = np.where(share == 0, 1.0, epochs)
    if (whole < 1).any():
        run = runs["run"].iloc[int(np.flatnonzero(whole < 1)[0])]
        raise ByroteError(
            f"{run} declares {whole.min():g} epochs, less than one pass",
            help="epochs count from 1 where all data repeat",
        )
    return runs.assign(epochs=whole, unique_tokens=tokens / whole)


def fit_r_star(rows: pd.DataFrame, *, n_draws: int = 60, seed: int = 0) -> RStar:
    """Refit R* on runs of one size.

    Args:
        rows: with `unique_tokens`, `epochs`, `value` (a loss), the seeds and `smallest`; see `run_rows`.
        n_draws: resamples of seeds for the interval.
        seed: of the resampling.

    Raises:
        ByroteError: fewer than five different (U, epochs) or two values of either, or a loss that significantly rises with epochs.
    """
    pairs = sorted(set(zip(rows["unique_tokens"], rows["epochs"], strict=True)))
    if len(pairs) < 5 or any(len({p[i] for p in pairs}) < 2 for i in (0, 1)):
        raise ByroteError(
            f"R* is fitted with four other parameters and needs five pairs of unique tokens and epochs, two of either; there are {len(pairs)}",
            help="train the same model on more amounts of unique data and more epochs",
        )
    _refuse_rising(rows)
    number = {pair: float(i) for i, pair in enumerate(pairs)}
    cells = cells_of(
        rows,
        [number[p] for p in zip(rows["unique_tokens"], rows["epochs"], strict=True)],
        seed=seed,
        n_draws=n_draws,
    )
    u, e = (np.array([p[i] for p in pairs], dtype=np.float64) for i in (0, 1))
    law = _best(u, e, cells.means)
    drawn = [_best(u, e, one) for one in cells.draws]
    half = half_width(np.log([one[0] for one in drawn]), cells.seeds)
    ends = (float(law[0] * np.exp(-half)), float(law[0] * np.exp(half)))
    at_edge = not _GRID[1] < law[0] < _GRID[-2]
    measured, curve = _points(u, e, cells, law[0]), _curve(u, e, law, drawn, cells.seeds)
    return RStar(law[0], *ends, *law[1:], at_edge, len(pairs), measured, curve)


def _points(
    unique: Float[np.ndarray, " points"], epochs: Float[np.ndarray, " points"], cells: Cells, r_star: float
) -> pd.DataFrame:
    """What was measured: `POINT_COLUMNS`."""
    over = [mean_over_seeds(values) for values in cells.values]
    columns = ([one.value for one in over], [one.lo for one in over], [one.hi for one in over])
    seeds = [len(values) for values in cells.values]
    rows = (unique, epochs, *columns, seeds, effective_data(unique, epochs, r_star))
    return pd.DataFrame(dict(zip(POINT_COLUMNS, rows, strict=True)))


def _curve(
    unique: Float[np.ndarray, " points"],
    epochs: Float[np.ndarray, " points"],
    law: _Law,
    drawn: Sequence[_Law],
    seeds: int,
) -> pd.DataFrame:
    """The law that was fitted, for each amount of unique tokens: `CURVE_COLUMNS`."""
    at = np.geomspace(1.0, epochs.max(), _CURVE_POINTS)
    parts = []
    for amount in sorted(set(unique.tolist())):
        loss = _loss(law, amount, at)
        draws = np.array([_loss(one, amount, at) for one in drawn])
        half = np.array([half_width(draws[:, i], seeds) for i in range(len(at))])
        rows = (np.full(len(at), amount), at, loss, loss - half, loss + half)
        parts.append(pd.DataFrame(dict(zip(CURVE_COLUMNS, rows, strict=True))))
    return pd.concat(parts, ignore_index=True)


def _loss(law: _Law, unique: float, epochs: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """E + B / D'^beta."""
    r, floor, scale, exponent, _ = law
    return floor + scale * effective_data(unique, epochs, r) ** -exponent


def _best(
    unique: Float[np.ndarray, " points"],
    epochs: Float[np.ndarray, " points"],
    loss: Float[np.ndarray, " points"],
) -> _Law:
    """R*, E, B, beta and the residual: linear in E and B for every R* and beta of a grid, refined once around the best."""
    rs, betas = _GRID, _BETAS
    best: _Law = (np.nan,) * 5
    for _ in range(3):
        d = np.stack([effective_data(unique, epochs, r) for r in rs]) / unique.max()
        x = d[:, None, :] ** -betas[None, :, None]
        centred = x - x.mean(-1, keepdims=True)
        y = loss - loss.mean()
        square = (centred**2).sum(-1)
        scale = np.maximum((centred @ y) / np.where(square > 0, square, 1.0), 0.0)
        left = ((y - scale[..., None] * centred) ** 2).sum(-1)
        i, j = np.unravel_index(int(left.argmin()), left.shape)
        b = float(scale[i, j])
        floor = float(loss.mean() - b * x[i, j].mean())
        best = (
            float(rs[i]),
            floor,
            b * float(unique.max()) ** float(betas[j]),
            float(betas[j]),
            float(np.sqrt(left[i, j] / len(loss))),
        )
        ratio, step = rs[1] / rs[0], betas[1] - betas[0]
        rs = np.clip(np.geomspace(rs[i] / ratio, rs[i] * ratio, 21), _GRID[0], _GRID[-1])
        betas = np.clip(np.linspace(betas[j] - step, betas[j] + step, 11), 0.01, 3.0)
    return best


def _refuse_rising(rows: pd.DataFrame) -> None:
    for unique, mine in rows.groupby("unique_tokens"):
        means = mine.groupby("epochs")["value"].mean()
        best, last = means.idxmin(), means.index.max()
        if best == last:
            continue
        sides = [mine["value"][mine["epochs"] == e].to_numpy(np.float64) for e in (best, last)]
        found = unpaired_difference(*sides)
        if found.lo > float(rows["smallest"].iloc[0]):
            raise ByroteError(
                f"with {unique:,.0f} unique tokens the loss rises from {best:g} to {last:g} epochs by {found.value:.3g} nats, which this "
                "law cannot express",
                help="leave out what follows the best number of epochs, as the paper does",
            )
