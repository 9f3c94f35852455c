"""Intervals, tests and corrections. numpy and scipy.special only; every random draw has a seed.

scipy is imported where it is needed: a command that only reads results does not wait for it.

Intervals are percentile bootstraps over sequences (Efron 1979), the percentiles expanded for small n (Hesterberg 2015,
arXiv:1411.5279): plain ones are too narrow, as normal intervals that divide by n and not n - 1 are. They cover the choice
of test sequences; they do not cover the training seed, which only several trained series can show. `few.py` has those of few
sequences, and of yes and no.

Of a corpus, blocks of consecutive documents (or windows) are drawn. A ratio of sums is bootstrapped directly: numerator
and denominator are summed again. A statistic that a resample with ties would bias (an entropy, a divergence, a coverage)
is linearised first: every block's pseudo-value comes from leaving it out (Tukey's jackknife), the mean of the
pseudo-values is bootstrapped, and the interval is centred on the statistic itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from byrote.probes.one_thread import product

LEVEL = 0.95
N_RESAMPLES = 2000
# Part of every unit's provenance: intervals made by another rule are measured again, not mixed with these.
INTERVALS = "percentile bootstrap, expanded; of shares of few or of yes and no, exact"
_COLUMNS_AT_ONCE = 2048  # keeps the resampled means under about 32 MiB
_DRAWS_AT_ONCE = 200

Triple = tuple[float, float, float]  # value, lo, hi


@dataclass(frozen=True)
class Interval:
    """A mean per column with its percentile bootstrap interval.

    Attributes:
        value: mean over the rows that are finite; NaN where none is.
        lo, hi: percentiles of the resampled mean, those of `tail_frac`.
        n: finite rows per column.
    """

    value: Float[np.ndarray, " k"]
    lo: Float[np.ndarray, " k"]
    hi: Float[np.ndarray, " k"]
    n: Float[np.ndarray, " k"]


def bootstrap_mean(
    samples: Float[np.ndarray, "n k"], *, seed: int = 0, n_resamples: int = N_RESAMPLES, level: float = LEVEL
) -> Interval:
    """Mean of each column and its interval, resampling rows (sequences) with replacement.

    Columns are resampled together, so that differences between columns keep their pairing.

    Args:
        samples: one row per sequence, one column per quantity; NaN means undefined for that sequence.
        seed: of the resampling.
        n_resamples: bootstrap draws.
        level: coverage aimed at.
    """
    n, k = samples.shape
    finite = np.isfinite(samples)
    filled = np.where(finite, samples, 0.0).astype(np.float64)
    counts = finite.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = filled.sum(0) / counts
    weights = _resampling(n, seed, n_resamples)
    lo, hi = np.full(k, np.nan), np.full(k, np.nan)
    for start in range(0, k, _COLUMNS_AT_ONCE):
        part = slice(start, min(k, start + _COLUMNS_AT_ONCE))
        means = _resampled_means(weights, filled[:, part], finite[:, part])
        lo[part], hi[part] = _ends(means, counts[part], level)
    lo[counts == 0] = hi[counts == 0] = np.nan
    return Interval(value, lo, hi, counts.astype(np.float64))


@lru_cache(maxsize=256)
def tail_frac(n: float | int, *, level: float = LEVEL, inflation: float | None = None) -> float:
    """Share of the resampled means left out at either end.

    Chosen so that for a normal sample the percentiles are the ends of Student's interval: the normal quantile is
    replaced by t (n - 1 degrees of freedom) times sqrt(n / (n - 1)), for resampling divides by n. 0.0191 for n = 32.

    Args:
        n: rows resampled; below 2 there is nothing to expand.
        level: coverage aimed at.
        inflation: in place of sqrt(n / (n - 1)), where more than one sample is resampled.
    """
    if n < 2:
        return (1 - level) / 2
    from scipy import special

    inflation = np.sqrt(n / (n - 1)) if inflation is None else inflation
    return float(special.ndtr(inflation * special.stdtrit(n - 1, (1 - level) / 2)))


def stretched(among: int, *, sampled: bool = False) -> float:
    """By how much the halves of a 95% interval are stretched, as a normal one's, before it is compared with chance.

    Args:
        among: how many numbers it was chosen from for being the highest (Bonferroni).
        sampled: whether chance was itself measured, on about as many other sequences: then the interval is that of a
            difference, wider by sqrt(2).
    """
    stretch = NormalDist().inv_cdf(1 - 0.025 / max(1, among)) / NormalDist().inv_cdf(0.975)
    return stretch * (2**0.5 if sampled else 1)


def two_sample_tail_frac(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], *, level: float = LEVEL
) -> float:
    """`tail_frac` for a difference of two means that are resampled apart, with Welch's degrees of freedom.

    Args:
        a, b: the samples, in the units of the difference (for a ratio of means, each over its mean). One that has
            fewer than two rows or no spread adds nothing.
    """
    parts = [(len(x), float(x.var())) for x in (a, b) if len(x) > 1 and x.var() > 0]
    if not parts:
        return (1 - level) / 2
    fair = [variance / (n - 1) for n, variance in parts]  # of the mean, from the unbiased variance
    resampled = [variance / n for n, variance in parts]
    df = sum(fair) ** 2 / sum(f**2 / (n - 1) for f, (n, _) in zip(fair, parts, strict=True))
    return tail_frac(df + 1, level=level, inflation=np.sqrt(sum(fair) / sum(resampled)))


def _ends(
    means: Float[np.ndarray, "draws k"], counts: Int[np.ndarray, " k"], level: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Both percentiles per column; columns with equally many finite rows share theirs."""
    lo, hi = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
    percentile = np.nanpercentile if np.isnan(means).any() else np.percentile
    for n in np.unique(counts):
        same = counts == n
        tail = 100 * tail_frac(int(n), level=level)
        lo[same], hi[same] = percentile(means if same.all() else means[:, same], [tail, 100 - tail], axis=0)
    return lo, hi


def ends(
    draws: Num[np.ndarray, draws * k], tail: float, *, outward: bool = False
) -> tuple[Num[np.ndarray, "*k"], Num[np.ndarray, "*k"]]:
    """Both ends of an interval: what leaves out a share of the draws on either side; NaN draws are passed over.

    Args:
        draws: the quantity in each resample.
        tail: the share, see `tail_frac`.
        outward: for quantities that lie between no two draws, such as steps: the next draw further out.
    """
    quantile = np.nanquantile if np.isnan(draws).any() else np.quantile
    lo = quantile(draws, tail, axis=0, method="lower" if outward else "linear")
    hi = quantile(draws, 1 - tail, axis=0, method="higher" if outward else "linear")
    return np.asarray(lo), np.asarray(hi)


def ordered_ends(draws: Float[np.ndarray, " draws"], tail: float) -> tuple[float, float]:
    """`ends` of draws that may be infinite, between which nothing can be interpolated: the nearest draws."""
    ordered = np.sort(draws)
    last = len(ordered) - 1
    return float(ordered[round(last * tail)]), float(ordered[round(last * (1 - tail))])


def bootstrap_of_means(
    samples: Float[np.ndarray, "n k width"],
    statistic: Callable[[Float[np.ndarray, "draws k width"]], Num[np.ndarray, "draws k"]],
    *,
    seed: int,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Interval of a statistic of mean profiles, such as where each is highest, when rows are resampled together.

    Args:
        samples: one row per sequence, k profiles of `width` numbers each; all finite.
        statistic: from resampled mean profiles to one number for each.
        seed: of the resampling.
    """
    n, k, width = samples.shape
    at_once, lo, hi = max(1, _COLUMNS_AT_ONCE // max(1, width)), np.full(k, np.nan), np.full(k, np.nan)
    for start in range(0, k, at_once):
        part = slice(start, start + at_once)
        drawn = resampled_means(samples[:, part].reshape(n, -1), seed=seed)
        lo[part], hi[part] = ends(statistic(drawn.reshape(len(drawn), -1, width)), tail_frac(n))
    return lo, hi


def ratio_of_means(top: Float[np.ndarray, " n"], bottom: Float[np.ndarray, " n"], *, seed: int) -> Triple:
    """(value, lo, hi) of one mean over another of the same sequences, resampled together; all finite."""
    resampled = resampled_means(np.stack([top, bottom], axis=1), seed=seed)
    lo, hi = _finite_ends(resampled[:, 0] / resampled[:, 1], tail_frac(len(top)))
    return float(top.mean() / bottom.mean()), lo, hi


def two_sample_interval(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " m"],
    of: Callable[[Any, Any], Any],
    *,
    seed: int,
    relative: bool = False,
) -> Triple:
    """(value, lo, hi) of a function of two means whose samples are no pairs and are resampled apart.

    Args:
        a, b: the samples.
        of: the function of their means, such as a difference or a ratio.
        seed: of the resampling.
        relative: whether it is a ratio: spreads then count as shares of their means.
    """
    samples = (a, b)
    draws = [product(_apart(len(x), seed, stream), x) / len(x) for stream, x in enumerate(samples)]
    with np.errstate(divide="ignore", invalid="ignore"):  # the mean of b may be 0
        value, drawn = of(a.mean(), b.mean()), of(*draws)
        tail = two_sample_tail_frac(*(x / x.mean() for x in samples) if relative else samples)
    lo, hi = np.percentile(drawn, [100 * tail, 100 * (1 - tail)])
    return float(value), float(lo), float(hi)


@lru_cache(maxsize=16)
def _apart(n: int, seed: int, stream: int) -> Float[np.ndarray, "draws n"]:
    """How often each row of one of two samples is drawn in each resample."""
    counts = np.random.default_rng([seed, stream, n]).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    return counts.astype(np.float64)


def resampled_means(
    samples: Float[np.ndarray, "n k"], *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Float[np.ndarray, "draws k"]:
    """Mean of each column in each resample of the rows; the same rows for every array of as many rows.

    Args:
        samples: one row per sequence; NaN means undefined for that sequence.
        seed: of the resampling.
        n_resamples: draws.
    """
    finite = np.isfinite(samples)
    filled = np.where(finite, samples, 0.0).astype(np.float64)
    return _resampled_means(_resampling(samples.shape[0], seed, n_resamples), filled, finite)


@lru_cache(maxsize=16)
def _resampling(n: int, seed: int, n_resamples: int) -> Float[np.ndarray, "draws n"]:
    """How often each row is drawn in each resample; the same for every quantity measured on the same sequences."""
    return _draw_counts(n, seed, n_resamples)


@lru_cache(maxsize=2)
def _block_weights(n: int, seed: int) -> Float[np.ndarray, "draws n"]:
    """The same of a corpus' blocks: 16 MiB for 1,024 of them, so that few are cached."""
    return _draw_counts(n, seed, N_RESAMPLES)


def _draw_counts(n: int, seed: int, n_resamples: int) -> Float[np.ndarray, "draws n"]:
    counts = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return counts.astype(np.float64)


def _resampled_means(
    weights: Float[np.ndarray, "draws n"], filled: Float[np.ndarray, "n k"], finite: Bool[np.ndarray, "n k"]
) -> Float[np.ndarray, "draws k"]:
    if finite.all():
        return product(weights, filled) / filled.shape[0]
    drawn = product(weights, finite.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = product(weights, filled) / drawn
    empty = ~finite.any(0)
    means[:, empty] = 0.0  # no column may be all-NaN in a percentile; `bootstrap_mean` makes it NaN again
    return means


def held_out_best(
    samples: Float[np.ndarray, "n k"],
) -> tuple[int, Float[np.ndarray, " n"]]:
    """The column with the highest mean, and values of the best column that its own choice does not raise.

    The highest of many noisy means is too high, the more so the more columns are near the top. So every second row
    gets the value of the column that is best on the other rows, and the other way round. Where one column is clearly
    best, these are its own values.

    Args:
        samples: one row per sequence; NaN means undefined for that sequence.

    Returns:
        Index of the best column over all rows, and one value per row.
    """
    return int(_top_columns(samples, 1)[0]), cross_fitted_top(samples, 1)


def cross_fitted_top(samples: Float[np.ndarray, "n k"], top: int) -> Float[np.ndarray, " n"]:
    """Mean of the highest columns per row, each half of the rows read where the other half says they are highest.

    Args:
        samples: one row per sequence; NaN means undefined for that sequence.
        top: how many columns; all where there are fewer.
    """
    if len(samples) < 4:
        return np.asarray(samples[:, _top_columns(samples, top)].mean(1))
    out = np.empty(len(samples))
    for mine, others in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        out[mine] = samples[mine][:, _top_columns(samples[others], top)].mean(1)
    return out


def _top_columns(samples: Float[np.ndarray, "n k"], top: int) -> Int[np.ndarray, " top"]:
    """Columns with the highest means, the highest first; ties go to the earlier one."""
    finite = np.isfinite(samples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(finite, samples, 0.0).sum(0) / finite.sum(0)
    return np.argsort(-np.where(np.isfinite(means), means, -np.inf), kind="stable")[:top]


def p_greater(samples: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """One-sided p that each column's mean is above 0 (t-test over the finite rows); 1 where it cannot be tested."""
    return _t_test(samples, alternative="greater")


def p_two_sided(samples: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Two-sided p that each column's mean is 0 (t-test over the finite rows); 1 where it cannot be tested."""
    return _t_test(samples, alternative="two-sided")


def _t_test(samples: np.ndarray, *, alternative: str) -> np.ndarray:
    from scipy import special

    finite = np.isfinite(samples)
    n = finite.sum(0)
    filled = np.where(finite, samples, 0.0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(0) / n
        variance = np.where(finite, (filled - mean) ** 2, 0.0).sum(0) / (n - 1)
        # Rounding leaves a column of equal values with a variance near 1e-33; that is not evidence of spread.
        spread = np.sqrt(variance) > 1e-12 * np.maximum(1.0, np.abs(mean))
        t = mean / np.sqrt(variance / n)
        p = special.stdtr(n - 1, -t) if alternative == "greater" else 2 * special.stdtr(n - 1, -np.abs(t))
    constant = (mean > 0) if alternative == "greater" else (mean != 0)
    p = np.where(spread, p, np.where(constant, 0.0, 1.0))
    return np.where(n >= 2, p, 1.0)


def benjamini_hochberg(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Adjusted p values (Benjamini and Hochberg 1995) over the finite entries; NaN stays NaN."""
    adjusted = np.full_like(p, np.nan)
    finite = np.flatnonzero(np.isfinite(p))
    m = len(finite)
    if m:
        order = finite[np.argsort(p[finite], kind="stable")]
        scaled = p[order] * m / np.arange(1, m + 1)
        adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def holm(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Adjusted p values (Holm 1979) over the finite entries, which bound the chance of any false alarm; NaN stays NaN."""
    adjusted = np.full_like(p, np.nan)
    finite = np.flatnonzero(np.isfinite(p))
    order = finite[np.argsort(p[finite], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else scaled
    return adjusted


def normal_sf(z: Any) -> Any:
    """Share of a standard normal above z, a number or an array."""
    from scipy import special

    return special.ndtr(-np.asarray(z, dtype=np.float64))


def ratio_intervals(
    numerator: Num[np.ndarray, "blocks k"], denominator: Num[np.ndarray, "blocks k"], *, seed: int
) -> list[Triple]:
    """(value, lo, hi) of sum(numerator) / sum(denominator) per column; NaN where it is not defined."""
    top, bottom = numerator.astype(np.float64), denominator.astype(np.float64)
    value = _divide(top.sum(0), bottom.sum(0))
    if len(top) < 2:
        return [(float(v), np.nan, np.nan) for v in value]
    weights = _block_weights(len(top), seed)
    draws = _divide(product(weights, top), product(weights, bottom))
    tail = tail_frac(len(top))
    return [(float(v), *_finite_ends(d, tail)) for v, d in zip(value, draws.T, strict=True)]


def quotient_interval(
    top: tuple[Num[np.ndarray, " a"], Num[np.ndarray, " a"]],
    bottom: tuple[Num[np.ndarray, " b"], Num[np.ndarray, " b"]],
    *,
    seed: int,
) -> Triple:
    """(value, lo, hi) of one ratio of sums over another from other blocks, both resampled.

    Args:
        top: numerator and denominator per block of the first ratio.
        bottom: the same of the second.
        seed: of the resampling.
    """
    parts = [(n.astype(np.float64), d.astype(np.float64)) for n, d in (top, bottom)]
    ((value,),) = _divide(*(_divide(n.sum(keepdims=True), d.sum(keepdims=True)) for n, d in parts))[None]
    if min(len(n) for n, _ in parts) < 2:
        return float(value), np.nan, np.nan
    draws, influence = [], []
    for i, (n, d) in enumerate(parts):
        weights = _block_weights(len(n), seed + i)
        draws.append(_divide(product(weights, n), product(weights, d)))
        influence.append(_divide(n, n.mean(keepdims=True)) - _divide(d, d.mean(keepdims=True)))
    return float(value), *_finite_ends(_divide(*draws), two_sample_tail_frac(*influence))


def linearised_interval(value: float, left_out: Sequence[Float[np.ndarray, " _"]], *, seed: int) -> Triple:
    """(value, lo, hi) of a smooth statistic.

    Args:
        value: of all blocks.
        left_out: for the one or two samples the statistic depends on (the corpus; the reference), its value without
            each block.
        seed: of the resampling.
    """
    if any(len(part) < 2 for part in left_out) or not np.isfinite(value):
        return value, np.nan, np.nan
    pseudo = [(len(part) - 1) * (part.mean() - part) for part in left_out]  # the pseudo-values, centred
    shift = np.zeros(N_RESAMPLES)
    for i, part in enumerate(pseudo):
        shift += product(_block_weights(len(part), seed + i), part) / len(part)
    tail = two_sample_tail_frac(*pseudo) if len(pseudo) == 2 else tail_frac(len(pseudo[0]))
    return value, *_finite_ends(value + shift, tail)


def sample_interval(
    values: Float[np.ndarray, " n"], statistic: Callable[[np.ndarray], np.ndarray], *, seed: int
) -> Triple:
    """(value, lo, hi) of a statistic of a sample of documents, by resampling the documents.

    Args:
        values: one per document.
        statistic: from [..., n] to [...], such as a quantile over the last axis.
        seed: of the resampling.
    """
    value = float(statistic(values))
    if len(values) < 2:
        return value, np.nan, np.nan
    return value, *_finite_ends(_redrawn(statistic, values, seed=seed), tail_frac(len(values)))


def pair_interval(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " m"],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    seed: int,
) -> Triple:
    """(value, lo, hi) of a statistic of two samples, by resampling both.

    Args:
        a, b: one value per document of either.
        statistic: from [..., n] and [..., m] to [...].
        seed: of the resampling.
    """
    value, least = float(statistic(a, b)), min(len(a), len(b))
    if least < 2:
        return value, np.nan, np.nan
    return value, *_finite_ends(_redrawn(statistic, a, b, seed=seed), tail_frac(least))


def _redrawn(statistic: Callable[..., np.ndarray], *samples: np.ndarray, seed: int) -> np.ndarray:
    """The statistic in each resample of the samples, which are drawn apart."""
    rng = np.random.default_rng([seed, *map(len, samples)])
    draws = [
        statistic(*(rows[rng.integers(len(rows), size=(_DRAWS_AT_ONCE, len(rows)))] for rows in samples))
        for _ in range(N_RESAMPLES // _DRAWS_AT_ONCE)
    ]
    return np.concatenate(draws)


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom != 0, np.divide(top, bottom), np.nan)


def _finite_ends(draws: np.ndarray, tail: float) -> tuple[float, float]:
    """The percentiles that leave out `tail` at either end."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return np.nan, np.nan
    lo, hi = np.percentile(finite, (100 * tail, 100 - 100 * tail))
    return float(lo), float(hi)
