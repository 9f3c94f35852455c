"""The seeds' noise floor and prediction churn: how much differs between two trainings that differ in nothing but the seed? No torch.

Source: churn: Milani Fard et al. 2016, Launch and iterate; irreproducibility as its share beyond what confidence explains: ours.

1. noise floor of an arm: standard deviation over seeds, with its chi-squared interval (exact for normal seeds); the smallest difference
   of two single runs that exceeds it in 1 of 20 cases is 1.96 sqrt(2) of it
2. churn of two seeds: share of the same cases on which they answer otherwise. Cases are places of held-out text, the answer the token
   that is predicted first (`predictions`); or members, the answer whether one is extracted (`extraction`). Mean over pairs of seeds,
   interval over seeds by the jackknife
3. expected: 1 - sum of p_a^2 over all answers a, of their shares p_a over all cases and seeds: the churn were answers independent. Of
   yes and no it is 2 p (1 - p)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.seed_statistics import SeedDifference, mean_over_seeds
from byrote.probes.statistics import LEVEL

FLOOR_COLUMNS = ("arm", "seeds", "mean", "sd", "lo", "hi", "visible", "sequence_se")


def noise_floor(runs: pd.DataFrame) -> pd.DataFrame:
    """The noise floor: how far the seeds of each arm differ.

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
    """Churn: how often two seeds of an arm answer the same case differently.

    Attributes:
        churn: mean share of cases on which two seeds disagree, with its interval over seeds.
        expected: were answers independent between all cases and seeds of the same overall shares.
        right: mean share of right answers; NaN where answers are predicted tokens.
        cases, seeds: how many.
    """

    churn: SeedDifference
    expected: float
    right: float
    cases: int
    seeds: int


def churn(right: Float[np.ndarray, "seeds cases"]) -> Churn:
    """Churn between seeds, from their yes-or-no answers to the same cases.

    Args:
        right: 1 where a seed is right, 0 where not; the same cases in the same order.

    Raises:
        ByroteError: fewer than two seeds, or values that are not yes or no.
    """
    if len(right) < 2 or not np.isin(right, (0.0, 1.0)).all():
        raise ByroteError(
            "churn needs yes-or-no answers of two seeds or more to the same cases",
            help="results store them for extraction/score, by member: measure -p extraction; tokens predicted: -p predictions",
        )
    share = float(right.mean())
    return _churn(right, 2 * share * (1 - share), share)


def prediction_churn(tokens: Float[np.ndarray, "seeds cases"]) -> Churn:
    """Churn between seeds, from the token each predicts first at the same places.

    Args:
        tokens: ids; the same places in the same order.

    Raises:
        ByroteError: fewer than two seeds, no place, or values that are no ids.
    """
    if len(tokens) < 2 or not tokens.size or not np.isfinite(tokens).all():
        raise ByroteError(
            f"prediction churn needs the tokens that two seeds or more predict at the same places; there are {len(tokens)} of them",
            help="measure several seeds: byrote run ... -p predictions",
        )
    _, counts = np.unique(tokens, return_counts=True)
    return _churn(tokens, 1 - float(((counts / tokens.size) ** 2).sum()), np.nan)


def _churn(answers: Float[np.ndarray, "seeds cases"], expected: float, right: float) -> Churn:
    n = len(answers)
    pairs = {(i, j): float((answers[i] != answers[j]).mean()) for i, j in combinations(range(n), 2)}
    whole = float(np.mean(list(pairs.values())))
    pseudo = [n * whole - (n - 1) * _without(pairs, k, whole) for k in range(n)]
    spread = mean_over_seeds(np.array(pseudo))
    ends = (max(0.0, spread.lo), min(1.0, spread.hi)) if n > 2 else (np.nan, np.nan)
    found = SeedDifference(whole, *ends, spread.p if n > 2 else np.nan)
    return Churn(found, expected, right, answers.shape[1], n)


def _without(pairs: dict[tuple[int, int], float], k: int, whole: float) -> float:
    rest = [value for pair, value in pairs.items() if k not in pair]
    return float(np.mean(rest)) if rest else whole
