"""Prefix aggregates: prefix matching of all heads as one number per model, each way a paper may have meant. No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, figures 6 and 21, print one prefix-matching score per model and do not say how
heads are put together; so all usual ways stand here, each by its name.

1. prefix_matching per sequence and head, on `repeated_random`
2. mean = over all heads; sum = over all heads, which is the induction mass when chance is subtracted
   (`byrote.probes.trajectory.total_mass` follows that over steps)
3. max = the strongest head; top_k = mean of the 4 strongest. Which heads these are is chosen on every second sequence and
   read on the others, both ways: the highest of many noisy means is too high
4. count = heads whose mean score is above 0.4; its interval counts them again in every resample of the sequences
5. chance = uniform attention: the mean over heads of prefix matching's chance, for sum their sum
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.results.schema import Measured, from_samples, not_measured
from byrote.probes.rules import PREFIX_MATCHING
from byrote.probes.spec import probe
from byrote.probes.statistics import cross_fitted_top, ends, resampled_means, tail_frac

TOP_K = 4


@probe(
    unit="attention fraction",
    better="higher",
    inputs={"prefix": ("prefix_matching", "score")},
    summary="Prefix matching of all heads as one number per model: max, mean, top 4, sum, and heads above 0.4.",
    chance="uniform causal attention in every head; no head above 0.4",
    metrics={
        "max": "score of the strongest head, chosen on other sequences than it is read on",
        "mean": "mean score over all heads",
        "top_k": "mean score of the 4 strongest heads, chosen as for max",
        "sum": "sum of the scores of all heads",
        "count": "heads with a mean score above 0.4",
        "heads": "heads there are",
    },
    main_metric="max",
    units={"sum": "attention fraction, summed over heads", "count": "heads", "heads": "heads"},
    undirected=("heads",),
    settings=("heads",),
    reads_as="max and count say whether a head matches prefixes, sum and mean how much of it the model does in all. Means over "
    "models of different numbers of heads are not comparable: compare max or top_k there. An aggregate cannot show that heads "
    "traded places: see turnover",
    not_measured="prefix matching was not measured on every head",
    undefined="no token of the stimulus has an earlier copy",
    order=12,
)
def prefix_aggregates(prefix: Float[np.ndarray, "n heads"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Put the heads of one step together, per sequence.

    Args:
        prefix: prefix_matching per sequence and head, attention fractions.

    Returns:
        `max`, `mean`, `top_k` and `sum`; `count` is no mean over sequences and is made in `finish`.
    """
    return {
        "max": cross_fitted_top(prefix, 1),  # 3.
        "mean": prefix.mean(1),  # 2.
        "top_k": cross_fitted_top(prefix, TOP_K),
        "sum": prefix.sum(1),
    }


@prefix_aggregates.finish
def finish(rows: Mapping[str, pd.DataFrame]) -> list[Measured]:
    """The aggregates of one step from the stored rows of prefix_matching."""
    info, stored = prefix_aggregates.info, rows["prefix"].sort_values(["layer", "head"])
    if stored["head"].isna().any() or not stored["valid"].all():
        why = next((reason for reason in stored["reason"] if reason), "it has no heads")
        return [
            not_measured(info, metric, f"prefix matching was not measured on every head: {why}")
            for metric in info.metrics
        ]
    samples = np.stack(stored["samples"].to_list(), axis=1).astype(np.float64)
    chance = stored["chance"].to_numpy(dtype=np.float64)
    levels = {"sum": chance.sum(), "max": chance.mean(), "mean": chance.mean(), "top_k": chance.mean()}
    found = prefix_aggregates(samples)
    measured = [
        from_samples(info, name, own, axes=(), chance=levels[name], seed=0) for name, own in found.items()
    ]
    n, n_heads = samples.shape
    draws = (resampled_means(samples) > PREFIX_MATCHING).sum(1)  # 4.
    lo, hi = ends(draws, tail_frac(n), outward=True)
    count = int((samples.mean(0) > PREFIX_MATCHING).sum())
    return [
        *measured,
        _number("count", count, lo, hi, 0.0, n),
        _number("heads", n_heads, n_heads, n_heads, np.nan, n),
    ]


def _number(metric: str, *numbers: object) -> Measured:
    value, lo, hi, chance, n = (np.asarray(number, dtype=np.float64) for number in numbers)
    return Measured(prefix_aggregates.info.name, metric, value, lo, hi, chance, n, ())
