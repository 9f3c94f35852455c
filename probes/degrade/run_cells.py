"""Runs of one dose or size as a cell: means over seeds, resampled with their seeds and then with their sequences. No torch.

1. cells hold the runs that share a key; where all cells have the same declared seeds, one draw of seeds serves them all (pairs)
2. a resample draws seeds with replacement inside each cell, and one set of sequences for all runs, where they saw the same
3. the interval of a function of the cells' means is Student's about its value: half width t(n - 1) sqrt(n / (n - 1)) times its
   spread over the resamples, n the fewest seeds of a cell. Percentiles of so few seeds would end at the farthest seed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.probes.statistics import LEVEL
from byrote.probes.wording import all_of, clean

N_DRAWS = 1000


@dataclass(frozen=True)
class Cells:
    """Cells of runs.

    Attributes:
        keys: of the cells, ascending.
        values: the runs' values, one array per cell, by seed.
        means: over the seeds.
        draws: the means in each resample.
        paired: whether all cells have the same seeds in the same order.
    """

    keys: tuple[float, ...]
    values: tuple[Float[np.ndarray, " seeds"], ...]
    means: Float[np.ndarray, " cells"]
    draws: Float[np.ndarray, "draws cells"]
    paired: bool

    @property
    def seeds(self) -> int:
        """Of the cell that has fewest."""
        return min(map(len, self.values))

    def matrix(self) -> Float[np.ndarray, "seeds cells"]:
        """The values by seed, where the cells are pairs."""
        return np.stack(self.values, axis=1)


def cells_of(
    rows: pd.DataFrame, keys: Sequence[float] | np.ndarray, *, seed: int = 0, n_draws: int = N_DRAWS
) -> Cells:
    """Cells of a table of runs.

    Args:
        rows: with `run`, `value`, `init_seed`, `data_seed` and `samples` (None where no sequences are shared).
        keys: one per row, such as the dose.
        seed: of the resampling.
        n_draws: resamples.

    Raises:
        ByroteError: no row, or the same seeds twice in a cell.
    """
    if not len(rows):
        raise ByroteError("there is no run", help="give runs of every dose or size")
    keys = np.asarray(keys, dtype=np.float64)
    order = np.lexsort((rows["data_seed"].to_numpy(np.float64), rows["init_seed"].to_numpy(np.float64), keys))
    rows, keys = rows.iloc[order], keys[order]
    names, starts = np.unique(keys, return_index=True)
    bounds = [*starts.tolist(), len(rows)]
    seeds = [tuple(pair) for pair in rows[["init_seed", "data_seed"]].itertuples(index=False, name=None)]
    parts = [seeds[a:b] for a, b in pairwise(bounds)]
    declared = not rows[["init_seed", "data_seed"]].isna().to_numpy().any()
    for name, part, a, b in zip(names, parts, bounds, bounds[1:], strict=False):
        if declared and len(set(part)) < len(part):
            arms = list(dict.fromkeys(rows["arm"].iloc[a:b])) if "arm" in rows else []
            if len(arms) > 1:
                raise ByroteError(
                    f"{clean(all_of(arms, most=4))} have the same dose, {name:g}, but differ in something else",
                    help="give arms that differ in nothing but the dose, or name what they differ in with --over",
                )
            raise ByroteError(
                f"two runs at {name:g} have the same seeds: one training counted twice, or two arms in one",
                help="give runs that differ in nothing but the dose and their seeds",
            )
    paired = declared and len({tuple(part) for part in parts}) == 1
    rng = np.random.default_rng(
        [seed, len(rows)]
    )  # of seeds alone: other metrics of the same runs draw the same ones
    by_run = _resampled_sequences(rows, np.random.default_rng([seed, len(rows), 1]), n_draws)
    picks = [rng.integers(len(part), size=(n_draws, len(part))) for part in (parts[:1] if paired else parts)]
    picks = picks * len(parts) if paired else picks
    draws = [
        np.take_along_axis(by_run[:, a:b], pick, axis=1).mean(1)
        for pick, a, b in zip(picks, bounds, bounds[1:], strict=False)
    ]
    value = rows["value"].to_numpy(np.float64)
    values = tuple(value[a:b] for a, b in pairwise(bounds))
    means = np.array([x.mean() for x in values])
    return Cells(tuple(names.tolist()), values, means, np.stack(draws, axis=1), paired)


def _resampled_sequences(
    rows: pd.DataFrame, rng: np.random.Generator, n_draws: int
) -> Float[np.ndarray, "draws runs"]:
    """Each run's value in each resample of the sequences, which is one for all runs."""
    value = rows["value"].to_numpy(np.float64)
    if any(x is None for x in rows["samples"]) or len({len(x) for x in rows["samples"]}) != 1:
        return np.broadcast_to(value, (n_draws, len(value)))
    samples = np.stack(rows["samples"].to_list(), axis=1).astype(np.float64)
    counts: Int[np.ndarray, "draws n"] = rng.multinomial(
        len(samples), np.full(len(samples), 1 / len(samples)), n_draws
    )
    known = np.isfinite(samples)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (counts @ np.where(known, samples, 0.0)) / (counts @ known.astype(np.float64))
    return np.where(np.isfinite(drawn), drawn, value)


def student_ends(
    value: float, draws: Float[np.ndarray, " draws"], seeds: int, *, level: float = LEVEL
) -> tuple[float, float]:
    """Ends of the interval of a function of cell means.

    Args:
        value: of the means as they are.
        draws: of the means in each resample; those that are not finite are passed over.
        seeds: of the cell that has fewest; with one there is no interval.
        level: coverage aimed at.
    """
    half = half_width(draws, seeds, level=level)
    return value - half, value + half


def half_width(draws: Float[np.ndarray, " draws"], seeds: int, *, level: float = LEVEL) -> float:
    """Half of the width of `student_ends`; NaN with one seed or without two finite draws."""
    from scipy import special

    finite = draws[np.isfinite(draws)]
    if seeds < 2 or len(finite) < 2:
        return float("nan")
    t = float(special.stdtrit(seeds - 1, (1 + level) / 2))
    return t * float(np.sqrt(seeds / (seeds - 1))) * float(finite.std())
