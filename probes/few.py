"""Exact intervals: of yes and no, and of numbers from 0 to 1 on few sequences, where resampling is too narrow.

It cannot draw what it has not seen. docs/calibration.md has the coverage of what was tried. numpy and scipy.special only.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Num

from byrote.probes.statistics import LEVEL, N_RESAMPLES, Interval, bootstrap_mean

FEW_N = 32  # below it the bootstrap of a skewed score in [0, 1] is too narrow
SampleKind = Literal["binary", "share", "other"]


def mean_interval(
    samples: Float[np.ndarray, "n k"], kind: SampleKind, *, seed: int = 0, level: float = LEVEL
) -> Interval:
    """`bootstrap_mean`, but exact for yes and no, and for fewer than `FEW_N` numbers from 0 to 1.

    Clopper and Pearson (1934). A share of few is given the effective n = p (1 - p) n / s^2, times (z / t)^2 for the n - 1
    degrees of freedom of s (Korn and Graubard 1998); n where s is 0.

    Args:
        samples, seed, level: as there.
        kind: "share" is of numbers from 0 to 1 that are no differences.
    """
    defined = np.isfinite(samples).sum(0)
    few = (defined > 0) & ((kind == "binary") | ((kind == "share") & (defined < FEW_N)))
    draws = 1 if few.all() else N_RESAMPLES  # their ends are not those of resampling
    found = bootstrap_mean(samples, seed=seed, level=level, n_resamples=draws)
    if not few.any():
        return found
    from scipy import special

    own, n = samples[:, few].astype(np.float64), found.n[few]
    p, effective = np.clip(found.value[few], 0, 1), n.copy()
    if kind == "share":
        varies = np.nanmax(own, axis=0) > np.nanmin(own, axis=0)
        spread = np.where(varies, np.nansum((own - p) ** 2, axis=0) / np.maximum(n - 1, 1), 1.0)
        shrunk = special.ndtri((1 - level) / 2) / special.stdtrit(np.maximum(n - 1, 1), (1 - level) / 2)
        effective = np.where(varies & (p > 0) & (p < 1), p * (1 - p) * n / spread * shrunk**2, n)
    lo, hi = found.lo.copy(), found.hi.copy()
    lo[few], hi[few] = exact_ends(p * effective, effective, level=level)
    return Interval(found.value, lo, hi, found.n)


def exact_ends(
    count: Num[np.ndarray, "*k"], n: Num[np.ndarray, "*k"], *, level: float = LEVEL
) -> tuple[Float[np.ndarray, "*k"], Float[np.ndarray, "*k"]]:
    """Interval of a share of which `count` of `n` were seen (Clopper and Pearson 1934); neither need be whole."""
    from scipy import special

    tail, rest = (1 - level) / 2, n - count
    lo = special.betaincinv(np.where(count > 0, count, 1), rest + 1, tail)
    hi = special.betaincinv(count + 1, np.where(rest > 0, rest, 1), 1 - tail)
    return np.where(count > 0, lo, 0.0), np.where(rest > 0, hi, 1.0)
