"""Statistics over training seeds: t intervals with the sequences' share added, censored ranks, counts. No torch.

A seed is one draw of a training; sequences are what it is measured on, the same for all runs. The runs' values spread by
seed and by how each seed reacts to these sequences; that the sequences themselves are a sample is common to all runs and
does not show in their spread: it is added. Intervals are Student's (n seeds are few for a bootstrap); degrees of freedom
are those of the seeds alone (Welch 1947 where two groups are not paired), which is a little wide where sequences dominate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
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
    a: Float[np.ndarray, " seeds"],
    b: Float[np.ndarray, " seeds"],
    *,
    sequences: float = 0.0,
    level: float = LEVEL,
) -> SeedDifference:
    """Mean difference of runs that share seed and unique data, pair by pair.

    Args:
        a, b: one value per seed, in the same order.
        sequences: variance of the mean difference that is due to the choice of sequences.
        level: of the interval.
    """
    d = b - a
    variance = float(d.var(ddof=1)) / len(d) if len(d) > 1 else np.nan
    return student_interval(float(d.mean()), variance + sequences, len(d) - 1, level=level)


def mean_over_seeds(values: Float[np.ndarray, " seeds"]) -> SeedDifference:
    """Mean of one arm with its Student interval over seeds; p is of a mean of 0.

    Args:
        values: one per seed.
    """
    return paired_difference(np.zeros(len(values)), values)


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
    return student_interval(value, total + sequences, df)


def student_interval(value: float, variance: float, df: float, *, level: float = LEVEL) -> SeedDifference:
    """Student's interval of a number whose variance was estimated.

    Args:
        value, variance: the number, and the square of its standard error.
        df: degrees of freedom of the variance; no interval below 1.
        level: of the interval.
    """
    from scipy import special

    if df < 1 or not np.isfinite(variance):
        return SeedDifference(value, np.nan, np.nan, np.nan)
    error = float(np.sqrt(variance))
    half = -float(special.stdtrit(df, (1 - level) / 2)) * error
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


def without_each(values: Float[np.ndarray, "seeds k"]) -> Float[np.ndarray, "seeds k"]:
    """Means over all seeds but one, in the order of the one that is left out.

    Args:
        values: one row per seed, at least two.
    """
    return (values.sum(0) - values) / (len(values) - 1)


def pseudo_values(whole: float, without: Float[np.ndarray, " seeds"]) -> Float[np.ndarray, " seeds"]:
    """One value per seed for a number that is made of all seeds at once (the jackknife, Tukey 1958).

    Of a mean they are the values that it is the mean of; of a smooth function of means their mean is that function, less its bias
    to the order 1 / n, and their variance over n that of the function.

    Args:
        whole: of all seeds.
        without: of all but one, for each, at least two.
    """
    return len(without) * whole - (len(without) - 1) * without


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


# One-sided tests, intervals of ranks, power and equivalence: what a claim with an expected direction is judged by.


def sign_flip_p(effects: Float[np.ndarray, " n"], *, ranks: bool = False, seed: int = 0) -> float:
    """One-sided p that paired effects are not above 0: exact permutation of their signs (Fisher 1935; ranks: Wilcoxon 1945).

    Every assignment of signs up to 2^14, 20,000 random ones beyond. The smallest p of n effects is 2^-n.

    Args:
        effects: one per seed; inf where one side never reached what is compared, 0 where neither did.
        ranks: whether the effects count by the rank of their size, ties sharing theirs; needed where one is infinite.
        seed: of the signs drawn where there are too many.
    """
    size = _midranks(np.abs(effects)) if ranks else np.abs(effects)
    size, n = np.where(effects == 0, 0.0, size), len(effects)
    found = float((size * np.sign(effects)).sum())
    if 1 << n <= _MAX_LABELLINGS:
        signs = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        return float((signs @ size >= found - _SAME * max(1.0, abs(found))).mean())
    rng = np.random.default_rng([seed, n])
    sums = rng.choice((-1.0, 1.0), (_MAX_LABELLINGS, n)) @ size
    return float((1 + (sums >= found - _SAME * max(1.0, abs(found))).sum()) / (1 + _MAX_LABELLINGS))


def label_p(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], *, ranks: bool = False, seed: int = 0
) -> float:
    """One-sided p that B's mean, or its ranks (Mann and Whitney 1947), are not above A's: exact permutation of the labels.

    Every labelling up to 20,000, as many random ones beyond.

    Args:
        a, b: one value per seed; inf is allowed where `ranks`.
        ranks: whether values count by their ranks, ties sharing theirs.
        seed: of the labellings drawn where there are too many.
    """
    values = np.concatenate([a, b]).astype(np.float64)
    values = _midranks(values) if ranks else values - values.mean()
    n, m = len(values), len(b)
    found = float(values[len(a) :].sum())
    reached = _labellings(n, m, seed) @ values >= found - _SAME * max(1.0, abs(found))
    every = comb(n, m) <= _MAX_LABELLINGS
    return float(reached.mean() if every else (1 + reached.sum()) / (1 + _MAX_LABELLINGS))


@lru_cache(maxsize=4)
def _labellings(n: int, m: int, seed: int) -> Float[np.ndarray, "labellings n"]:
    """1 for the runs of B in each labelling of n runs, m of them B's: all, or 20,000 at random."""
    if comb(n, m) <= _MAX_LABELLINGS:
        chosen = np.array(list(combinations(range(n), m)))
    else:
        chosen = np.random.default_rng([seed, n, m]).random((_MAX_LABELLINGS, n)).argsort(axis=1)[:, :m]
    labels = np.zeros((len(chosen), n))
    np.put_along_axis(labels, chosen, 1.0, axis=1)
    return labels


def _midranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1; equal values share the mean of theirs."""
    below = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return below + (equal + 1) / 2


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation (Spearman 1904), ties sharing their ranks; 0 where all values of one side are equal.

    Args:
        a, b: pairs in the same order, two or more.
    """
    x, y = (ranks - ranks.mean() for ranks in (_midranks(a), _midranks(b)))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else 0.0


def partial_spearman(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], given: Float[np.ndarray, " n"]
) -> float:
    """Rank correlation (Spearman) of two with a third partialled out (Kendall 1942), -1 to 1; 0 where that leaves nothing.

    Args:
        x, y: pairs.
        given: what both may go with.
    """
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / float(np.sqrt(left)) if left > _SAME else 0.0


@dataclass(frozen=True)
class RankInterval:
    """A shift with the interval that rank tests leave it.

    Attributes:
        value: the median of all pairwise averages (one sample) or differences (two samples): Hodges and Lehmann 1963.
        lo, hi: ends of the interval; infinite where "never" reaches so far.
        level: its exact coverage without ties, the least that is 95% or more; less where so few seeds have no such interval.
    """

    value: float
    lo: float
    hi: float
    level: float


def signed_rank_interval(effects: Float[np.ndarray, " n"], *, level: float = LEVEL) -> RankInterval:
    """Shift of paired effects, by the signed-rank test turned round (Tukey 1949).

    Args:
        effects: one per seed; infinite ones make averages with any finite one infinite, and with each other 0.
        level: least coverage of the interval.
    """
    n = len(effects)
    first, second = np.triu_indices(n)
    with np.errstate(invalid="ignore"):
        walsh = np.nan_to_num((effects[first] + effects[second]) / 2, nan=0.0, posinf=np.inf, neginf=-np.inf)
    counts = np.array([1.0])
    for rank in range(1, n + 1):
        counts = np.concatenate([counts, np.zeros(rank)]) + np.concatenate([np.zeros(rank), counts])
    return _rank_interval(walsh, counts / 2.0**n, level)


def shift_interval(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> RankInterval:
    """Shift of B above A, by the rank-sum test turned round (Moses 1953).

    Args:
        a, b: one value per seed; of two that are infinite alike the difference is 0.
    """
    with np.errstate(invalid="ignore"):
        differences = np.nan_to_num((b[:, None] - a[None]).ravel(), nan=0.0, posinf=np.inf, neginf=-np.inf)
    return _rank_interval(differences, _rank_sum_distribution(len(a), len(b)), LEVEL)


@lru_cache(maxsize=16)
def _rank_sum_distribution(n: int, m: int) -> Float[np.ndarray, " sums"]:
    """Probability of each value of Mann and Whitney's U where the labels mean nothing."""
    table: dict[tuple[int, int], dict[int, int]]
    table = {(0, j): {0: 1} for j in range(m + 1)} | {(i, 0): {0: 1} for i in range(n + 1)}
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            merged = dict(table[i - 1, j])
            for u, k in table[i, j - 1].items():
                merged[u + i] = merged.get(u + i, 0) + k
            table[i, j] = merged
    return np.array([table[n, m].get(u, 0) for u in range(n * m + 1)]) / comb(n + m, m)


def _rank_interval(
    shifts: Float[np.ndarray, " pairs"], chances: Float[np.ndarray, " sums"], level: float
) -> RankInterval:
    """From the statistic's distribution how many of the ordered shifts are left out at either end."""
    ordered, below = np.sort(shifts), np.cumsum(chances)
    out = int((below <= (1 - level) / 2 + _SAME).sum())  # shifts left out: P(statistic < out) on either side
    out = min(max(out, 1), (len(ordered) + 1) // 2)
    exact = max(0.0, 1 - 2 * float(below[out - 1]))
    middle = {float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])}
    value = 0.0 if middle == {-np.inf, np.inf} else sum(middle) / len(middle)
    return RankInterval(value, float(ordered[out - 1]), float(ordered[-out]), exact)


def detectable(error: float, df: float, *, smallest: float, power: float) -> float:
    """The effect that would have been called, with a chance of `power`: its 95% interval lies beyond the smallest effect.

    Student's interval, from the noncentral t distribution.

    Args:
        error: standard error of the effect, in its unit.
        df: degrees of freedom.
        smallest: what the interval has to exceed.
        power: the chance asked of it, such as 0.8.
    """
    from scipy import special

    if not df >= 1 or not np.isfinite(error):
        return np.inf
    critical = float(special.stdtrit(df, (1 + LEVEL) / 2))
    return smallest + float(special.nctdtrinc(df, 1 - power, critical)) * error


def equivalence(value: float, error: float, df: float, *, smallest: float) -> tuple[float, float, float]:
    """Two one-sided tests that an effect lies within the smallest one on either side (Schuirmann 1987).

    Args:
        value, error: the effect and its standard error.
        df: degrees of freedom.
        smallest: half of the width of what counts as no change.

    Returns:
        (lo, hi, p): the 90% interval, which lies within the bounds just where p < 5%, and the larger of both p.
    """
    from scipy import special

    if not df >= 1 or not np.isfinite(error):
        return np.nan, np.nan, np.nan
    if error <= 1e-12 * max(1.0, abs(value)):
        return value, value, 0.0 if abs(value) < smallest else 1.0
    half = float(special.stdtrit(df, LEVEL)) * error
    p = [float(special.stdtr(df, (side * value - smallest) / error)) for side in (1, -1)]
    return value - half, value + half, max(p)


def least_p(n: int, m: int = 0) -> float:
    """The smallest one-sided p that an exact test can give: of n pairs, or of n runs against m.

    Args:
        n, m: pairs and 0, or runs on either side.
    """
    return 1 / comb(n + m, m) if m else 2.0**-n


def fieller(top: float, bottom: float, covariance: Float[np.ndarray, "2 2"], t: float) -> tuple[float, float]:
    """Interval of a ratio of two normal numbers (Fieller 1954): the ratios r at which top - r bottom may be 0.

    Args:
        top, bottom: the two.
        covariance: of (top, bottom).
        t: Student's quantile.

    Returns:
        (lo, hi); (-inf, inf) where the bottom may be 0, for then any ratio beyond some size fits as well as its negative.
    """
    a = bottom**2 - t**2 * covariance[1, 1]
    b = top * bottom - t**2 * covariance[0, 1]
    c = top**2 - t**2 * covariance[0, 0]
    if a <= 0 or not np.isfinite(a):
        return -np.inf, np.inf
    root = float(np.sqrt(max(0.0, b**2 - a * c)))
    return float((b - root) / a), float((b + root) / a)
