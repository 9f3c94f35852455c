"""How evenly does a corpus use its words and pairs of words, and how far is that use from a reference's?

Source: Zhu et al. 2024, "How to Synthesize Text Data without Model Collapse?" (arXiv:2412.14689), hashing uni- and
bigrams into 10,000 buckets; weights of Xie et al. 2023, DSIR (arXiv:2302.03169).

1. Every unigram and bigram of a document is hashed into one of 10,000 buckets; p is the share of each bucket.
2. `entropy` is -sum p ln p in nats; `top_1pct_mass` is the mass of the 100 fullest buckets. Chance: all buckets alike.
3. `kl_to_reference` is sum p ln(p / q) in nats, q the reference's shares, 1 added to every bucket of both. Chance: the
   same between the reference's even and odd blocks of documents.
4. `log_weight` of a document is the sum over its uni- and bigrams of ln(q / p), smoothed as above: DSIR's importance
   weight of the document when the reference is the target. Mean and quantiles over a sample of documents;
   `log_weight_per_ngram` divides each by its number of n-grams. Chance 0: equal distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Num

from byrote.checkpoints.ngrams import entropy_nats, hashes, sequence_of, top_mass
from byrote.probes.statistics import linearised_interval, sample_interval
from byrote.probes.text.blocks import Blocks, Reservoir
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

BUCKETS = 10_000
TOP = BUCKETS // 100
SMOOTHING = 1.0
_BLOCKS = 128
_SAMPLE = 1024
QUANTILES = (5, 50, 95)


class Concentration:
    """Bucket counts per block of documents, and a sample of documents as bucket counts."""

    name = "concentration"

    def __init__(self, *, seed: int, resampled: str, by_document: bool) -> None:
        self.seed, self.resampled, self._by_document = seed, resampled, by_document
        self._blocks = Blocks(BUCKETS, capacity=_BLOCKS)
        self._sample = Reservoir(_SAMPLE, seed=seed)

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        starts = batch.pieces if self._by_document else batch.windows
        units = batch.piece_units if self._by_document else batch.window_units
        sequence = sequence_of(starts, len(batch.tokens))
        ends, buckets = [], []
        for _, end, code in hashes(batch.tokens, starts, (1, 2)):
            ends.append(end)
            buckets.append((code % np.uint64(BUCKETS)).astype(np.int64))
            self._blocks.add_counts(units[sequence[end]], buckets[-1])
        self._draw(starts, len(batch.tokens), ends, buckets)

    def _draw(self, starts: np.ndarray, n: int, ends: list[np.ndarray], buckets: list[np.ndarray]) -> None:
        stops = np.append(starts[1:], n)
        for item, place in self._sample.places(len(starts)):
            parts = [
                bucket[slice(*np.searchsorted(end, (starts[item], stops[item])))]
                for end, bucket in zip(ends, buckets, strict=True)
            ]
            self._sample.keep(place, np.concatenate(parts).astype(np.uint16))

    @property
    def documents(self) -> list[np.ndarray]:
        """The buckets of the n-grams of a sample of documents (or pieces, or windows)."""
        return list(self._sample.items)

    @property
    def resampled_documents(self) -> str:
        """What `documents` are: "pieces" or "windows"."""
        return "pieces" if self._by_document else "windows"

    @property
    def counts(self) -> Num[np.ndarray, "blocks buckets"]:
        """n-grams per block and bucket."""
        return self._blocks.sums

    def numbers(self, reference: Concentration | None) -> Iterator[Number]:
        """Entropy and top mass; with a reference, divergence and weights too."""
        number = partial(Number, self.name, n=self._blocks.n, resampled=self.resampled)
        total, without = _totals(self.counts)
        for metric, statistic, unit, chance in (
            ("entropy", entropy_nats, "nats", np.log(BUCKETS)),
            ("top_1pct_mass", top_mass, "fraction", TOP / BUCKETS),
        ):
            triple = linearised_interval(float(statistic(total)), [statistic(without)], seed=self.seed)
            yield number(metric, triple, unit, float(chance))
        if reference is not None:
            yield self._divergence(reference, number)
            yield from self._weights(reference)

    def _divergence(self, reference: Concentration, number: partial[Number]) -> Number:
        own, own_without = _totals(self.counts)
        other, other_without = _totals(reference.counts)
        left_out = [kl_nats(own_without, other), kl_nats(own, other_without)]
        triple = linearised_interval(float(kl_nats(own, other)), left_out, seed=self.seed)
        blocks = reference.counts
        chance = float(kl_nats(blocks[0::2].sum(0), blocks[1::2].sum(0))) if len(blocks) > 1 else np.nan
        return number("kl_to_reference", triple, "nats", chance)

    def _weights(self, reference: Concentration) -> Iterator[Number]:
        ratio = np.log(_smoothed(reference.counts.sum(0))) - np.log(_smoothed(self.counts.sum(0)))
        sums = np.asarray([ratio[item].sum() for item in self._sample.items])
        sizes = np.asarray([len(item) for item in self._sample.items])
        number = partial(Number, self.name, n=len(sums), resampled=self.resampled_documents)
        statistics = {"log_weight_mean": lambda v: v.mean(-1)}
        statistics |= {f"log_weight_p{q:02d}": partial(np.percentile, q=q, axis=-1) for q in QUANTILES}
        for metric, statistic in statistics.items():
            yield number(metric, sample_interval(sums, statistic, seed=self.seed), "nats", 0.0)
        per_ngram = sample_interval(sums / sizes, lambda v: v.mean(-1), seed=self.seed)
        yield number("log_weight_per_ngram_mean", per_ngram, "nats", 0.0)


def kl_nats(
    counts: Num[np.ndarray, "*batch buckets"], other: Num[np.ndarray, "*other buckets"]
) -> Float[np.ndarray, "*out"]:
    """Kullback-Leibler divergence from the other's shares in nats, 1 added to every bucket of both."""
    p, q = _smoothed(counts), _smoothed(other)
    return np.asarray((p * (np.log(p) - np.log(q))).sum(-1))


def smoothed_shares(documents: Sequence[np.ndarray]) -> Float[np.ndarray, " buckets"]:
    """Share of every bucket in some documents together, 1 added to each.

    Args:
        documents: the buckets of the n-grams of each.
    """
    return _smoothed(np.bincount(np.concatenate(list(documents)).astype(np.int64), minlength=BUCKETS))


def _smoothed(counts: np.ndarray) -> np.ndarray:
    raised = counts + SMOOTHING
    return raised / raised.sum(-1, keepdims=True)


def _totals(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over all blocks, and without each block; blocks that hold nothing else are left in."""
    total = counts.sum(0)
    without = total - counts
    return total, without[without.sum(1) > 0] if len(counts) > 1 else without[:0]
