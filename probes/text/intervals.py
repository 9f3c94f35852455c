"""Intervals of corpus statistics, from sums per block of consecutive documents (or windows).

Two kinds. A ratio of sums is bootstrapped directly: blocks are drawn with replacement and numerator and denominator
summed again (percentile bootstrap). A statistic that a resample with ties would bias (an entropy, a divergence, a
coverage) is linearised first: every block's pseudo-value comes from leaving it out (Tukey's jackknife), the mean of
the pseudo-values is bootstrapped, and the interval is centred on the statistic itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Num

from probes.statistics import LEVEL

N_RESAMPLES = 2000
_AT_ONCE = 200
_TAILS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
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
    return [(float(v), *_tails(d)) for v, d in zip(value, draws.T, strict=True)]


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
    draws = []
    for i, (n, d) in enumerate(parts):
        weights = draw_weights(len(n), seed + i)
        draws.append(_divide(weights @ n, weights @ d))
    return float(value), *_tails(_divide(*draws))


def linearised_interval(value: float, left_out: Sequence[Float[np.ndarray, " _"]], *, seed: int) -> Triple:
    """(value, lo, hi) of a smooth statistic.

    Args:
        value: of all blocks.
        left_out: per sample the statistic depends on (the corpus; the reference), its value without each block.
        seed: of the resampling.
    """
    if any(len(part) < 2 for part in left_out) or not np.isfinite(value):
        return value, np.nan, np.nan
    shift = np.zeros(N_RESAMPLES)
    for i, part in enumerate(left_out):
        pseudo = (len(part) - 1) * (part.mean() - part)  # the pseudo-values, centred
        shift += draw_weights(len(part), seed + i) @ pseudo / len(part)
    return value, *_tails(value + shift)


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
    return value, *_tails(np.concatenate(draws))


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom != 0, np.divide(top, bottom), np.nan)


def _tails(draws: np.ndarray) -> tuple[float, float]:
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return np.nan, np.nan
    lo, hi = np.percentile(finite, _TAILS)
    return float(lo), float(hi)
