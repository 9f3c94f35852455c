"""Statistics over training seeds: t intervals with the sequences' share added, censored ranks, counts. No torch.

A seed is one draw of a training; sequences are what it is measured on, the same for all runs. The runs' values spread by
seed and by how each seed reacts to these sequences; that the sequences themselves are a sample is common to all runs and
does not show in their spread: it is added. Intervals are Student's (n seeds are few for a bootstrap); degrees of freedom
are those of the seeds alone (Welch 1947 where two groups are not paired), which is a little wide where sequences dominate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float, Int

from byrote.probes.statistics import LEVEL

_MAX_LABELLINGS = 20_000  # of runs to groups: all of them up to here, as many random ones beyond
_SAME = 1e-9  # of two permutation statistics that differ by rounding


@dataclass(frozen=True)
class SeedDifference:
    """A difference between two groups of runs.

    Attributes:
        value: mean of B minus mean of A.
        lo, hi: 95% interval over seeds and sequences; NaN with one seed on a side.
        p: two-sided, of a difference of 0; NaN with one seed on a side.
    """

    value: float
    lo: float
    hi: float
    p: float


def paired_difference(
    a: Float[np.ndarray, " seeds"], b: Float[np.ndarray, " seeds"], *, sequences: float = 0.0
) -> SeedDifference:
    """Mean difference of runs that share seed and unique data, pair by pair.

    Args:
        a, b: one value per seed, in the same order.
        sequences: variance of the mean difference that is due to the choice of sequences.
    """
    d = b - a
    variance = float(d.var(ddof=1)) / len(d) if len(d) > 1 else np.nan
    return _student(float(d.mean()), variance + sequences, len(d) - 1)


def unpaired_difference(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], *, sequences: float = 0.0
) -> SeedDifference:
    """Difference of the means of two groups whose runs are no pairs (Welch).

    Args:
        a, b: one value per seed.
        sequences: variance of the difference that is due to the choice of sequences.
    """
    value = float(b.mean() - a.mean())
    if min(len(a), len(b)) < 2:
        return SeedDifference(value, np.nan, np.nan, np.nan)
    parts = [(float(x.var(ddof=1)) / len(x), len(x) - 1) for x in (a, b)]
    total = sum(v for v, _ in parts)
    df = total**2 / sum(v**2 / n for v, n in parts) if total > 0 else min(n for _, n in parts)
    return _student(value, total + sequences, df)


def _student(value: float, variance: float, df: float) -> SeedDifference:
    from scipy import special

    if df < 1 or not np.isfinite(variance):
        return SeedDifference(value, np.nan, np.nan, np.nan)
    error = float(np.sqrt(variance))
    half = -float(special.stdtrit(df, (1 - LEVEL) / 2)) * error
    if error <= 1e-12 * max(1.0, abs(value)):  # rounding is no spread
        return SeedDifference(value, value, value, 1.0 if value == 0 else 0.0)
    return SeedDifference(
        value, value - half, value + half, float(2 * special.stdtr(df, -abs(value) / error))
    )


def sequence_variance(samples: Float[np.ndarray, " n"]) -> float:
    """Variance of a mean over sequences; those that are not finite are passed over.

    Args:
        samples: one value per sequence, such as the mean difference over seeds.
    """
    finite = samples[np.isfinite(samples)]
    return float(finite.var(ddof=1)) / len(finite) if len(finite) > 1 else 0.0


def later(
    brackets: list[tuple[float, float]],
) -> Int[np.ndarray, "n n"]:
    """Which of two onsets came later: 1 the first of the pair, -1 the second, 0 where their brackets overlap (Gehan 1965).

    Args:
        brackets: (last step without, first step with); (last step measured, inf) where it never came.
    """
    lo, hi = (np.array(ends, dtype=np.float64) for ends in zip(*brackets, strict=True))
    return (lo[:, None] >= hi[None]).astype(int) - (lo[None] >= hi[:, None]).astype(int)


def rank_test(sign: Int[np.ndarray, "n n"], in_b: Int[np.ndarray, " n"], *, seed: int = 0) -> float:
    """Two-sided p that runs of B do not come later or earlier than those of A: exact permutation of the labels.

    Without ties and "never" it is the exact test of Mann and Whitney (1947).

    Args:
        sign: see `later`.
        in_b: 1 for runs of B.
        seed: of the labellings drawn where there are more than 20,000.
    """
    n, m = len(in_b), int(in_b.sum())
    score = sign.sum(1).astype(np.float64)  # pairs within a group cancel
    found = abs(score @ in_b)
    if comb(n, m) <= _MAX_LABELLINGS:
        sums = np.array([score[list(chosen)].sum() for chosen in combinations(range(n), m)])
        return float((np.abs(sums) >= found - _SAME).mean())
    rng = np.random.default_rng([seed, n, m])
    sums = np.array([score[rng.permutation(n)[:m]].sum() for _ in range(_MAX_LABELLINGS)])
    return float((1 + (np.abs(sums) >= found - _SAME).sum()) / (1 + _MAX_LABELLINGS))


def fisher_exact(yes_a: int, n_a: int, yes_b: int, n_b: int) -> float:
    """Two-sided p that two groups have the same share of yes (Fisher 1935): tables no likelier than the one seen.

    Args:
        yes_a, n_a, yes_b, n_b: how many of how many, in either group.
    """
    total = yes_a + yes_b
    ways = {k: comb(n_a, k) * comb(n_b, total - k) for k in range(max(0, total - n_b), min(n_a, total) + 1)}
    return sum(w for w in ways.values() if w <= ways[yes_a]) / sum(ways.values())
