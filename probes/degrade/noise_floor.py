"""The seeds' noise floor and prediction churn: how much differs between two trainings that differ in nothing but the seed? No torch.

Source: churn: Milani Fard et al. 2016, Launch and iterate; irreproducibility as its share beyond what confidence explains: ours.

1. noise floor of an arm: standard deviation over seeds, with its chi-squared interval (exact for normal seeds); the smallest difference
   of two single runs that exceeds it in 1 of 20 cases is 1.96 sqrt(2) of it
2. churn of two seeds: share of the same cases on which one is right and the other is not, from yes-or-no values that results store by
   sequence or member (`extraction`, `natural_copies`); mean over pairs of seeds, interval over seeds by the jackknife
3. expected: 2 p (1 - p) of each case's share p of seeds that are right, were the seeds' answers independent given the case; what is
   the same for all seeds (easy or hard cases) makes no churn
Predictions token by token are not stored in results: churn of them needs a dump of arg-max ids (`byrote logits`), and is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.seed_statistics import SeedDifference, paired_difference
from byrote.probes.statistics import LEVEL

FLOOR_COLUMNS = ("arm", "seeds", "mean", "sd", "lo", "hi", "visible", "sequence_se")


def noise_floor(runs: pd.DataFrame) -> pd.DataFrame:
    """How far seeds of each arm lie apart.

    Args:
        runs: `run_rows`.

    Returns:
        `FLOOR_COLUMNS`: standard deviation over seeds with its 95% interval; `visible`, the difference between two single runs that
        seeds alone exceed in 1 of 20 cases; the mean standard error over sequences beside it. NaN with one seed.
    """
    from scipy import special

    rows = []
    for arm, mine in runs.groupby("arm", sort=False):
        values = mine["value"].to_numpy(np.float64)
        n = len(values)
        sd = float(values.std(ddof=1)) if n > 1 else np.nan
        ends = (
            [
                sd * np.sqrt((n - 1) / special.chdtri(n - 1, tail))
                for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
            ]
            if n > 1
            else [np.nan] * 2
        )
        visible = float(special.ndtri((1 + LEVEL) / 2)) * float(np.sqrt(2)) * sd
        se = float(np.sqrt(mine["sequence_var"].mean()))
        rows.append((arm, n, float(values.mean()), sd, float(ends[0]), float(ends[1]), visible, se))
    return pd.DataFrame(rows, columns=list(FLOOR_COLUMNS))


@dataclass(frozen=True)
class Churn:
    """Disagreement between seeds.

    Attributes:
        churn: mean share of cases on which two seeds disagree, with its interval over seeds.
        expected: were answers independent between all cases and seeds of the same overall share.
        right: mean share of right answers.
        cases, seeds: how many.
    """

    churn: SeedDifference
    expected: float
    right: float
    cases: int
    seeds: int


def churn(right: Float[np.ndarray, "seeds cases"]) -> Churn:
    """Churn from yes-or-no answers of every seed to the same cases.

    Args:
        right: 1 where a seed is right, 0 where not; the same cases in the same order.

    Raises:
        ByroteError: fewer than two seeds, or values that are not yes or no.
    """
    if len(right) < 2 or not np.isin(right, (0.0, 1.0)).all():
        raise ByroteError(
            "churn needs yes-or-no answers of two seeds or more to the same cases",
            help="results store them for extraction/score (by member) and not token by token: measure -p extraction",
        )
    pairs = {(i, j): float(np.abs(right[i] - right[j]).mean()) for i, j in combinations(range(len(right)), 2)}
    whole = float(np.mean(list(pairs.values())))
    n = len(right)
    pseudo = [n * whole - (n - 1) * _without(pairs, k, whole) for k in range(n)]
    spread = paired_difference(np.zeros(n), np.array(pseudo))
    ends = (max(0.0, spread.lo), min(1.0, spread.hi)) if n > 2 else (np.nan, np.nan)
    share = float(right.mean())
    return Churn(
        SeedDifference(whole, *ends, spread.p if n > 2 else np.nan),
        2 * share * (1 - share),
        share,
        right.shape[1],
        n,
    )


def _without(pairs: dict[tuple[int, int], float], k: int, whole: float) -> float:
    rest = [value for pair, value in pairs.items() if k not in pair]
    return float(np.mean(rest)) if rest else whole


def churn_of(runs: pd.DataFrame) -> Churn:
    """Churn between the runs of a table, from a metric that is yes or no for every sequence.

    Args:
        runs: `run_rows` of such a metric, of one arm, with shared samples.

    Raises:
        ByroteError: the runs share no cases, or the metric is not yes or no.
    """
    if any(x is None for x in runs["samples"]):
        raise ByroteError(
            f"the runs share no cases of {runs['probe'].iloc[0]}/{runs['metric'].iloc[0]}, so that seeds cannot disagree on one",
            help="measure them on the same members: runs of one pool",
        )
    return churn(np.stack(runs["samples"].to_list()).astype(np.float64))
