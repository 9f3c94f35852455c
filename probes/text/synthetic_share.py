"""What share of a mixture's documents is synthetic, given human text and synthetic text of the mixture's two sources?

Source: the proportion of a mixture from the mean of a score whose means in both components are known: the method of moments
(Pearson 1894), as in quantification by adjusted counts (Forman 2008); the score is DSIR's (Xie et al. 2023, arXiv:2302.03169) on
the buckets of Zhu et al. 2024, arXiv:2412.14689. The estimate is byrote's own, and so is its calibration.

1. Documents (pieces of long ones) are counted in 10,000 buckets of uni- and bigrams, up to 1,024 of each corpus (concentration).
2. The weight of a bucket is ln(share in the synthetic / share in the human text), 1 added to every bucket, from every second
   document of either; the score of a document is the mean weight of its n-grams.
3. share = (mean score of the mixture - of the human text) / (of the synthetic - of the human text), the other half of the two
   giving their means: what was learned from is not judged by. It is cut to 0 .. 1.
4. The interval resamples the documents of all three. Where the two means do not significantly differ there is no estimate.
5. `separation`: share of pairs of a synthetic and a human document (the halves not learned from) whose scores stand in the right
   order; 0.5 where the two look alike. Single documents are not judged, only their number.

It holds for a mixture of these two sources. Text of a third source is counted as one or the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from byrote.probes.statistics import ends, linearised_interval, resampled_means, tail_frac
from byrote.probes.text.concentration import Concentration, smoothed_shares
from byrote.probes.text.report import Number

NAME = "synthetic_share"
MIN_DOCUMENTS = 8


def numbers(
    mixture: Concentration, human: Concentration, synthetic: Concentration, *, seed: int
) -> Iterator[Number]:
    """The share of one corpus, and how well its two sources can be distinguished.

    Args:
        mixture: what is estimated.
        human, synthetic: the two sources.
        seed: of the resampling.
    """
    samples = [list(one.documents) for one in (mixture, human, synthetic)]
    number = partial(Number, NAME, n=len(samples[0]), resampled=mixture.resampled_documents)
    if min(map(len, samples)) < 2 * MIN_DOCUMENTS:
        yield number("share", reason=f"it needs {2 * MIN_DOCUMENTS} documents of each of the three corpora")
        return
    own, human_scores, synthetic_scores = scores_of(*samples)
    found = share(own, human_scores, synthetic_scores, seed=seed)
    if np.isnan(found[0]):
        yield number("share", reason="the two sources cannot be distinguished by their words")
    else:
        yield number("share", found, "fraction")
    yield number("separation", separation(synthetic_scores, human_scores, seed=seed), "fraction", 0.5)


def scores_of(
    mixture: Sequence[np.ndarray], human: Sequence[np.ndarray], synthetic: Sequence[np.ndarray]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " a"], Float[np.ndarray, " b"]]:
    """Mean weight of the n-grams of the mixture's documents, and of those of either source that nothing was learned from.

    Args:
        mixture, human, synthetic: the buckets of every document's n-grams.
    """
    learned = [np.log(smoothed_shares(part[0::2])) for part in (synthetic, human)]
    weights = learned[0] - learned[1]  # 2.

    def scored(documents: Sequence[np.ndarray]) -> Float[np.ndarray, " n"]:
        return np.array([weights[buckets].mean() if len(buckets) else 0.0 for buckets in documents])

    return scored(mixture), scored(human[1::2]), scored(synthetic[1::2])


def share(
    mixture: Float[np.ndarray, " n"],
    human: Float[np.ndarray, " a"],
    synthetic: Float[np.ndarray, " b"],
    *,
    seed: int,
) -> tuple[float, float, float]:
    """(value, lo, hi) of the mixture's share of synthetic documents; NaN where the sources do not significantly differ."""
    parts = (mixture, human, synthetic)
    drawn = [resampled_means(one[:, None], seed=seed + i)[:, 0] for i, one in enumerate(parts)]
    tail = tail_frac(min(map(len, parts)))
    if not ends(drawn[2] - drawn[1], tail)[0] > 0:  # 4.
        return np.nan, np.nan, np.nan
    mean = [float(one.mean()) for one in parts]
    value = (mean[0] - mean[1]) / (mean[2] - mean[1])  # 3.
    lo, hi = ends((drawn[0] - drawn[1]) / (drawn[2] - drawn[1]), tail)
    cut = np.clip([value, lo, hi], 0.0, 1.0)
    return float(cut[0]), float(cut[1]), float(cut[2])


def separation(
    synthetic: Float[np.ndarray, " b"], human: Float[np.ndarray, " a"], *, seed: int
) -> tuple[float, float, float]:
    """(value, lo, hi) of the share of pairs in which the synthetic document scores higher, ties half."""  # 5.
    wins = (np.sign(synthetic[:, None] - human[None]) + 1) / 2
    value, (b, a) = float(wins.mean()), wins.shape
    left_out = [(b * value - wins.mean(1)) / (b - 1), (a * value - wins.mean(0)) / (a - 1)]
    return linearised_interval(value, left_out, seed=seed)
