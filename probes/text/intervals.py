"""Intervals of corpus statistics, from sums per block of consecutive documents (or windows).

Two kinds. A ratio of sums is bootstrapped directly: blocks are drawn with replacement and numerator and denominator
summed again (percentile bootstrap). A statistic that a resample with ties would bias (an entropy, a divergence, a
coverage) is linearised first: every block's pseudo-value comes from leaving it out (Tukey's jackknife), the mean of
the pseudo-values is bootstrapped, and the interval is centred on the statistic itself. The percentiles are expanded for
few blocks, as everywhere in `byrote.probes.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Num

from byrote.probes.statistics import N_RESAMPLES, tail_frac, two_sample_tail_frac

_AT_ONCE = 200
Triple = tuple[float, float, float]


@lru_cache(maxsize=2)
def draw_weights(n: int, seed: int) -> Float[np.ndarray, "draws n"]:
    """How often each of n blocks is drawn in each resample."""
    rng = np.random.default_rng([seed, n])
    return rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(np.float64)


def ratio_intervals(
    numerator: Num[np.ndarray, "blocks k"], denominator: Num[np.ndarray, "blocks k"], *, seed: int
) -> list[Triple]:
    """(value, lo, hi) of sum(numerator) / sum(denominator) per column; NaN where it is not defined."""
    top, bottom = numerator.astype(np.float64), denominator.astype(np.float64)
    value = _divide(top.sum(0), bottom.sum(0))
    if len(top) < 2:
        return [(float(v), np.nan, np.nan) for v in value]
    weights = draw_weights(len(top), seed)
    draws = _divide(weights @ top, weights @ bottom)
    tail = tail_frac(len(top))
    return [(float(v), *_ends(d, tail)) for v, d in zip(value, draws.T, strict=True)]


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
        weights = draw_weights(len(n), seed + i)
        draws.append(_divide(weights @ n, weights @ d))
        influence.append(_divide(n, n.mean(keepdims=True)) - _divide(d, d.mean(keepdims=True)))
    return float(value), *_ends(_divide(*draws), two_sample_tail_frac(*influence))


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
        shift += draw_weights(len(part), seed + i) @ part / len(part)
    tail = two_sample_tail_frac(*pseudo) if len(pseudo) == 2 else tail_frac(len(pseudo[0]))
    return value, *_ends(value + shift, tail)


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
    rng = np.random.default_rng([seed, len(values)])
    draws = [
        statistic(values[rng.integers(len(values), size=(_AT_ONCE, len(values)))])
        for _ in range(N_RESAMPLES // _AT_ONCE)
    ]
    return value, *_ends(np.concatenate(draws), tail_frac(len(values)))


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
    rng = np.random.default_rng([seed, len(a), len(b)])
    draws = [
        statistic(*(rows[rng.integers(len(rows), size=(_AT_ONCE, len(rows)))] for rows in (a, b)))
        for _ in range(N_RESAMPLES // _AT_ONCE)
    ]
    return value, *_ends(np.concatenate(draws), tail_frac(least))


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom != 0, np.divide(top, bottom), np.nan)


def _ends(draws: np.ndarray, tail: float) -> tuple[float, float]:
    """The percentiles that leave out `tail` at either end."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return np.nan, np.nan
    lo, hi = np.percentile(finite, (100 * tail, 100 - 100 * tail))
    return float(lo), float(hi)
