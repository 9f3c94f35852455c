"""What does training on one experiment do to every other one that shares its run? The matrix of all pairs. No torch.

Source: Bordt and Pawelczyk 2025, arXiv:2509.23383 (Train once, answer all), the matrix of their dependence test: Y_i^{j}, the outcome of
experiment i after training on the data of experiment j. They continue an intermediate checkpoint once per experiment; here any runs
serve of which each has some of the experiments, and all of them are read for every pair. Least squares, intervals and words are byrote's own.

1. an experiment: the members that are in the same runs, all of them together; members of every run, or of none, are of none
2. its outcome in a run: the mean of its members' values there
3. runs of one arm where they tell experiments apart, as those of `subsets` do, else of all arms that share members. Outcome of i in
   a run = level of i + sum of M[i, j] over the experiments j that the run was trained on, by least squares. Where runs share a seed,
   every seed has a level of its own: such runs begin with the same weights and have the same fresh data
4. M[i, i]: what training on i does to i, its memory. M[i, j]: what training on j does to i whatever else the run has, interference
5. intervals: Student's by the jackknife, each run (each seed where runs share one) left out in turn; degrees of freedom: runs less what
   is fitted for an outcome (seeds less 1)
6. of a pair: independent where two one-sided tests say that M[i, j] lies within the smallest effect on either side; dependent where it
   lies beyond, p corrected over all pairs (Holm); else not decided. Of all: dependent where a pair is, independent where all pairs are
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.dependence import DEPENDENT, INDEPENDENT, OPEN
from byrote.probes.rules import ALPHA, MIN_SEEDS
from byrote.probes.seed_statistics import SeedDifference, equivalence, student_interval
from byrote.probes.statistics import holm

OTHERS = "by all others"
MAX_EXPERIMENTS = 64
LEAST_FREE = 2  # degrees of freedom below which nothing is fitted
_NEEDED = ("run", "init_seed", "data_seed", "member", "repeats", "value")
_HELP = (
    "train 12 seeds of the lab arm subsets with experiments = 4, or runs of each experiment alone and of none"
)


@dataclass(frozen=True)
class Effect:
    """What training on one experiment does to one.

    Attributes:
        measured, trained: numbers of the experiments, from 0: outcome of `measured`, training on `trained`.
        found: the effect, its interval and p of no effect.
        p_within: of the test that it lies within the smallest effect on either side.
        q_beyond: of the test that it lies beyond, corrected over all pairs; NaN of an experiment on itself.
        word: independent, dependent or not decided; "" of an experiment on itself.
    """

    measured: int
    trained: int
    found: SeedDifference
    p_within: float
    q_beyond: float
    word: str


@dataclass(frozen=True)
class DependenceMatrix:
    """What training on each of several experiments does to each of them.

    Attributes:
        members: of each experiment, by number.
        effects: of all pairs, those of the first experiment's outcome first.
        others: mean over the pairs of different experiments.
        word: independent, dependent or not decided, of all pairs.
        smallest: smallest effect of interest.
        runs: how many.
        by_seed: whether runs share seeds, and each seed has a level of its own.
    """

    members: tuple[tuple[int, ...], ...]
    effects: tuple[Effect, ...]
    others: SeedDifference
    word: str
    smallest: float
    runs: int
    by_seed: bool

    @property
    def n(self) -> int:
        """Experiments."""
        return len(self.members)

    def values(self) -> Float[np.ndarray, "measured trained"]:
        """The effects as a matrix."""
        return np.array([one.found.value for one in self.effects]).reshape(self.n, self.n)


@dataclass(frozen=True)
class _Fitted:
    """Estimates from all runs and from all but one.

    Attributes:
        whole: [measured, trained].
        without: the same without each run, or seed.
        df: degrees of freedom.
    """

    whole: Float[np.ndarray, "measured trained"]
    without: Float[np.ndarray, "left_out measured trained"]
    df: int

    def effect(self, weights: Float[np.ndarray, "measured trained"]) -> tuple[SeedDifference, float]:
        """A weighted sum of the matrix with its interval, and its standard error."""
        n = len(self.without)
        parts = (self.without * weights).sum((1, 2))
        variance = (n - 1) / n * float(((parts - parts.mean()) ** 2).sum())
        return student_interval(float((self.whole * weights).sum()), variance, self.df), variance**0.5


def dependence_matrix(members: pd.DataFrame, *, smallest: float, better: str = "higher") -> DependenceMatrix:
    """What training on each experiment does to each, from runs that share them.

    Args:
        members: columns run, init_seed, data_seed, member, repeats (0: not trained on it) and value; each run with each member once.
        smallest: smallest effect of interest on the value, above 0.
        better: "higher", or "lower" for a loss: then the sign is turned, so that more is more memory.

    Raises:
        ByroteError: missing columns or values, fewer than two experiments or more than MAX_EXPERIMENTS, or runs that do not tell the
            experiments apart.
    """
    value, included, blocks = _matrices(members)
    value = -value if better == "lower" else value
    groups = _experiments(included)
    outcome = np.stack([value[:, group].mean(1) for group in groups], axis=1)
    trained = np.stack([included[:, group[0]] for group in groups], axis=1)
    by_seed = blocks is not None
    fitted = _fitted(
        outcome, trained, blocks if blocks is not None else np.arange(len(value)), by_seed=by_seed
    )
    n = len(groups)
    one_at = np.eye(n * n).reshape(n * n, n, n)
    found = [fitted.effect(weights) for weights in one_at]
    apart = ~np.eye(n, dtype=bool)
    beyond = np.full(n * n, np.nan)
    pairs = np.flatnonzero(apart)
    beyond[pairs] = holm(np.array([_beyond(*found[k], fitted.df, smallest) for k in pairs]))
    judged = len(fitted.without) >= MIN_SEEDS
    effects = []
    for k, (one, error) in enumerate(found):
        within = equivalence(one.value, error, fitted.df, smallest=smallest)[2]
        word = ""
        if k in pairs:
            word = (
                DEPENDENT
                if judged and beyond[k] < ALPHA
                else INDEPENDENT
                if judged and within < ALPHA
                else OPEN
            )
        effects.append(Effect(*divmod(k, n), one, within, float(beyond[k]), word))
    words = {one.word for one in effects if one.word}
    word = DEPENDENT if DEPENDENT in words else OPEN if OPEN in words else INDEPENDENT
    others, _ = fitted.effect(apart / len(pairs))
    named = tuple(tuple(int(k) for k in group) for group in groups)
    return DependenceMatrix(named, tuple(effects), others, word, smallest, len(value), by_seed)


def _matrices(
    members: pd.DataFrame,
) -> tuple[
    Float[np.ndarray, "runs members"], Bool[np.ndarray, "runs members"], Int[np.ndarray, " runs"] | None
]:
    """Values, whether each run was trained on each member, and the number of each run's seed where seeds have several."""
    missing = set(_NEEDED) - set(members)
    if missing or members.duplicated(["run", "member"]).any():
        raise ByroteError(
            f"the matrix of dependence needs {', '.join(_NEEDED)}, each run with each member once",
            help="make one row per run and member",
        )
    value, repeats = (
        members.pivot(index="run", columns="member", values=name).to_numpy(np.float64)
        for name in ("value", "repeats")
    )
    if not (np.isfinite(value).all() and np.isfinite(repeats).all()):
        raise ByroteError(
            "a run has no value for some members",
            help="measure all runs on the same members, with one command",
        )
    seeds = members.groupby("run")[["init_seed", "data_seed"]].first()
    numbers = seeds.groupby(["init_seed", "data_seed"], dropna=False).ngroup().to_numpy()
    known = seeds.notna().to_numpy().all() and len(set(numbers.tolist())) < len(numbers)
    return value, repeats > 0, numbers if known else None


def _experiments(included: Bool[np.ndarray, "runs members"]) -> list[Int[np.ndarray, " _"]]:
    """The members of each experiment, in the order of their first ones."""
    found: dict[bytes, list[int]] = {}
    for member in range(included.shape[1]):
        column = included[:, member]
        if column.any() and not column.all():
            found.setdefault(column.tobytes(), []).append(member)
    if not 2 <= len(found) <= MAX_EXPERIMENTS:
        raise ByroteError(
            f"these {len(included)} runs have {len(found)} experiments, members that are in or out together; the matrix takes 2 to "
            f"{MAX_EXPERIMENTS}",
            help=_HELP,
        )
    return [np.array(group) for group in found.values()]


def _fitted(
    outcome: Float[np.ndarray, "runs measured"],
    trained: Bool[np.ndarray, "runs trained"],
    blocks: Int[np.ndarray, " runs"],
    *,
    by_seed: bool,
) -> _Fitted:
    """Least squares from all runs and without each block.

    Raises:
        ByroteError: too few runs, or experiments that they do not tell apart.
    """
    n_runs, n = trained.shape
    if by_seed:  # a seed with one run says nothing beside its level
        several = np.bincount(blocks)[blocks] > 1
        outcome, trained, blocks = outcome[several], trained[several], blocks[several]
    names = np.unique(blocks)
    df = len(names) - 1 if by_seed else len(names) - n - 1
    if df < LEAST_FREE:
        wanted = f"{LEAST_FREE + 1} seeds with several runs" if by_seed else f"{n + 1 + LEAST_FREE} runs"
        raise ByroteError(
            f"{n} experiments cannot be distinguished by {n_runs} runs: that takes {wanted}", help=_HELP
        )
    levels = blocks[:, None] == names if by_seed else np.ones((len(blocks), 1), dtype=bool)
    whole = _solved(outcome, trained, levels)
    without = [_solved(*(part[blocks != one] for part in (outcome, trained, levels))) for one in names]
    return _Fitted(whole, np.stack(without), df)


def _solved(
    outcome: Float[np.ndarray, "runs measured"],
    trained: Bool[np.ndarray, "runs trained"],
    levels: Bool[np.ndarray, "runs levels"],
) -> Float[np.ndarray, "measured trained"]:
    """[measured, trained], the levels taken off."""
    own_levels = levels[:, levels.any(0)].astype(np.float64)
    means = own_levels / own_levels.sum(0)
    x, y = (part - own_levels @ (means.T @ part) for part in (trained.astype(np.float64), outcome))
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ByroteError(
            f"{x.shape[1]} experiments cannot be distinguished by {len(x)} runs: some are in and out together, or nearly so",
            help=_HELP,
        )
    return np.linalg.lstsq(x, y, rcond=None)[0].T


def _beyond(found: SeedDifference, error: float, df: float, smallest: float) -> float:
    """One-sided p of an effect that lies within the smallest one on either side."""
    from scipy import special

    past = abs(found.value) - smallest
    if error <= 1e-12 * max(1.0, abs(found.value)):
        return 0.0 if past > 0 else 1.0
    return float(special.stdtr(df, -past / error))
