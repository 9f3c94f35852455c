"""Preferential damage: is one ability hit harder than another, in sizes? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, figures 5 and 6: multipliers of copying and of prefix matching beside that of test
loss. The difference and its interval are byrote's own; the ratio's is Fieller's (1954).

1. effective size of both metrics, on the same runs, with the same resampled seeds
2. difference = ln m of the metric minus ln m of the reference; below 0 the metric is hit harder. It decides
3. ratio = ln(1/m) over ln(1/m_reference), the paper's way of speaking, with Fieller's interval, which is unbounded where the
   reference may not be damaged at all
4. where a multiplier is clipped at an end of its ladder it is a bound, and so are difference and ratio: flagged, and their intervals
   are open on that side. A ratio whose reference is clipped is bounded by nothing
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.effective_size import EffectiveSize
from byrote.probes.degrade.run_cells import half_width
from byrote.probes.seed_statistics import fieller
from byrote.probes.statistics import LEVEL

PREFERENTIAL_COLUMNS = (
    "arm", "size", "multiplier", "reference", "difference", "lo", "hi", "ratio", "ratio_lo", "ratio_hi", "seeds", "clipped",
    "multiplier_lo", "multiplier_hi", "reference_lo", "reference_hi",
)  # fmt: skip


def preferential_damage(metric: EffectiveSize, reference: EffectiveSize) -> pd.DataFrame:
    """Is copying hit harder than the loss? One row per arm and size, and one per arm over its sizes (size NaN).

    Args:
        metric: multipliers of the ability in question, such as copying.
        reference: of what it is held against, such as test loss, of the same runs.

    Returns:
        `PREFERENTIAL_COLUMNS`: both multipliers with their 95% intervals over seeds and sequences (multiplier_lo, ...), the
        difference of their logarithms with its own, and the ratio of their logarithms with Fieller's.

    Raises:
        ByroteError: the two are not of the same arms and sizes, or count sizes differently.
    """
    if (
        metric.draws.keys() != reference.draws.keys()
        or metric.ladder.counted_by != reference.ladder.counted_by
    ):
        raise ByroteError(
            "the two metrics were not measured on the same arms and sizes",
            help="compute both effective sizes from the same runs, with the same definition of size",
        )
    rows = []
    for a, b in zip(metric.rows.itertuples(), reference.rows.itertuples(), strict=True):
        key = (a.arm, None if np.isnan(a.size) else a.size)
        rows.append(_row(a, b, metric.draws[key], reference.draws[key], min(metric.seeds, reference.seeds)))
    return pd.DataFrame(rows, columns=list(PREFERENTIAL_COLUMNS))


def _row(a: Any, b: Any, draws_a: np.ndarray, draws_b: np.ndarray, seeds: int) -> tuple[object, ...]:
    from scipy import special

    x, y = np.log(a.multiplier), np.log(b.multiplier)
    half = half_width(draws_a - draws_b, seeds)
    ends = (np.nan, np.nan)
    if seeds > 1:
        covariance = np.cov(draws_a, draws_b) * seeds / (seeds - 1)
        ends = fieller(float(x), float(y), covariance, float(special.stdtrit(seeds - 1, (1 + LEVEL) / 2)))
    clipped = " and ".join(
        f"{name} {one.clipped}" for name, one in (("metric", a), ("reference", b)) if one.clipped
    )
    ratio = float(x / y) if y else np.nan
    lo, hi = _opened(float(x - y - half), float(x - y + half), a.clipped, b.clipped)
    return (
        a.arm, a.size, a.multiplier, b.multiplier, float(x - y), lo, hi,
        ratio, *_opened_ratio(*ends, a.clipped, b.clipped, reference_log=float(y)), a.seeds, clipped, a.lo, a.hi, b.lo, b.hi,
    )  # fmt: skip


def _opened(lo: float, hi: float, metric: str, reference: str) -> tuple[float, float]:
    """The interval of a difference, open on the side to which what was clipped may lie further."""
    lower = metric == "below" or reference == "above"
    upper = metric == "above" or reference == "below"
    return (-np.inf if lower else lo), (np.inf if upper else hi)


def _opened_ratio(
    lo: float, hi: float, metric: str, reference: str, *, reference_log: float
) -> tuple[float, float]:
    """The same of the ratio: the metric's logarithm over the reference's, which is below 0 where that is damaged."""
    if reference:
        return -np.inf, np.inf
    if not metric:
        return lo, hi
    further = (metric == "below") == (reference_log < 0)
    return (lo, np.inf) if further else (-np.inf, hi)
