"""How many documents of a corpus are near copies of another one in it?

Source: MinHash (Broder 1997) by one permutation (Li, Owen and Zhang 2012) with rotation for empty bins (Shrivastava
and Li 2014), and banding (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3). Own code in numpy: an
index of Python objects holds several KiB per document, this one half a KiB.

1. A document (or piece of a long one; a window where there are few documents) is the set of its 5-grams.
2. Its signature is the smallest 32-bit hash in each of 128 bins; equal entries of two signatures estimate the Jaccard
   similarity of the sets.
3. Documents that agree in all 8 entries of one of 16 bands are compared; those with an estimate of at least 0.8 are
   linked, and clusters are what is linked.
4. `clustered_share` is documents in clusters of two or more over all; `redundant_share` is documents beyond one per
   cluster over all: what removing duplicates would remove.
5. Intervals resample clusters. Beyond 65,536 documents a sample is compared, chosen by a document's own smallest
   hash: exact copies are always sampled together, near copies with a probability of about their similarity, so the
   shares then lean low.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt32, UInt64

from probes.text.intervals import ratio_intervals
from probes.text.ngrams import hashes, mix, sequence_of
from probes.text.report import Number
from probes.text.windows import Batch

SHINGLE = 5
BINS, BANDS = 128, 16
SIMILAR = 0.8
MAX_DOCUMENTS = 65_536
_EMPTY = np.uint32(0xFFFFFFFF)
_CLUSTER_BLOCKS = 2048
_PAIRS_AT_ONCE = 1 << 14
_FILLED_AT_ONCE = 1 << 12


class NearDuplicates:
    """Signatures of documents, and clusters of those that are alike."""

    name = "near_duplicates"

    def __init__(self, *, seed: int, by_document: bool, max_documents: int = MAX_DOCUMENTS) -> None:
        self.seed, self._by_document, self._max = seed, by_document, max_documents
        self._kept: list[UInt32[np.ndarray, "n bins"]] = []
        self._count = self._level = 0
        self.largest = self.offered = 0

    def add(self, batch: Batch) -> None:
        """Sign the documents of one batch."""
        starts = batch.pieces if self._by_document else batch.windows
        ((_, ends, codes),) = hashes(batch.tokens, starts, (SHINGLE,))
        sequence = sequence_of(starts, len(batch.tokens))[ends]
        found = signatures(sequence, codes, len(starts))
        self.offered += len(found)
        self._kept.append(self._sampled(found))
        self._count += len(self._kept[-1])
        while self._count > self._max:
            self._level += 1
            self._kept = [self._sampled(part) for part in self._kept]
            self._count = sum(len(part) for part in self._kept)

    def _sampled(self, found: np.ndarray) -> np.ndarray:
        chosen = mix(found.min(1).astype(np.uint64)) & np.uint64((1 << self._level) - 1)
        return found[chosen == 0]

    def numbers(self) -> Iterator[Number]:
        """Share of documents in clusters, and share that is redundant."""
        what = "pieces" if self._by_document else "windows"
        found = np.concatenate(self._kept) if self._kept else np.zeros((0, BINS), dtype=np.uint32)
        sizes = np.bincount(clusters(found)) if len(found) else np.zeros(0, dtype=np.int64)
        self.largest = int(sizes.max(initial=0))
        per_cluster = np.stack([np.where(sizes > 1, sizes, 0), np.maximum(0, sizes - 1)], axis=1)
        order = np.random.default_rng([self.seed, len(sizes)]).permutation(len(sizes))
        block = np.arange(len(sizes)) * min(len(sizes), _CLUSTER_BLOCKS) // max(1, len(sizes))
        n_blocks = int(block.max(initial=-1)) + 1
        top, below = np.zeros((n_blocks, 2)), np.zeros((n_blocks, 2))
        np.add.at(top, block, per_cluster[order])
        np.add.at(below, block, np.repeat(sizes[order][:, None], 2, axis=1))
        metrics = ("clustered_share", "redundant_share")
        for metric, triple in zip(metrics, ratio_intervals(top, below, seed=self.seed), strict=True):
            yield Number(self.name, metric, *triple, n=len(found), unit="fraction", resampled=what)

    @property
    def note(self) -> str:
        """What the two shares do not say."""
        sampled = "" if not self._level else f", from a sample of {self._count:,} of {self.offered:,}"
        return (
            f"largest near-duplicate cluster: {self.largest:,} documents{sampled}" if self.largest > 1 else ""
        )


def signatures(
    sequence: Int[np.ndarray, " m"], codes: UInt64[np.ndarray, " m"], n: int
) -> UInt32[np.ndarray, "k bins"]:
    """Signatures of those of n sequences that have shingles, in order.

    Args:
        sequence: the sequence of each shingle.
        codes: its 64-bit hash.
        n: sequences.
    """
    signature = np.full(n * BINS, _EMPTY, dtype=np.uint32)
    place = sequence * BINS + (codes >> np.uint64(57)).astype(np.int64)
    np.minimum.at(signature, place, (codes >> np.uint64(20)).astype(np.uint32) & np.uint32(0x7FFFFFFF))
    signature = signature.reshape(n, BINS)
    signature = signature[(signature != _EMPTY).any(1)]
    for i in range(0, len(signature), _FILLED_AT_ONCE):
        signature[i : i + _FILLED_AT_ONCE] = _filled(signature[i : i + _FILLED_AT_ONCE])
    return signature


def _filled(signature: np.ndarray) -> np.ndarray:
    """Every empty bin takes the next full one's value, changed by how far away that is."""
    twice = np.concatenate([signature, signature], axis=1)
    where = np.where(twice != _EMPTY, np.arange(2 * BINS), 2 * BINS)
    nearest = np.minimum.accumulate(where[:, ::-1], axis=1)[:, ::-1][:, :BINS]
    distance = (nearest - np.arange(BINS)).astype(np.uint32)
    return np.take_along_axis(twice, nearest, axis=1) + distance * np.uint32(0x9E3779B1)


def clusters(signature: UInt32[np.ndarray, "n bins"]) -> Int[np.ndarray, " n"]:
    """Number of each document's cluster."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, rows = len(signature), BINS // BANDS
    links = []
    for band in range(BANDS):
        part = np.ascontiguousarray(signature[:, band * rows : (band + 1) * rows]).view(np.uint64)
        key = mix(part[:, 0])
        for column in part.T[1:]:
            key = mix(key ^ column)
        links.append(_linked(signature, key))
    left, right = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _linked(signature: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Pairs of documents in one bucket that are alike: each with the one before it, and with the bucket's first."""
    order = np.argsort(key, kind="stable")
    same = np.concatenate([[False], key[order][1:] == key[order][:-1]])
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(key))))
    at = np.flatnonzero(same)
    pairs = np.concatenate(
        [np.stack([order[at - 1], order[at]]), np.stack([order[first[at]], order[at]])], axis=1
    )
    alike = [
        (signature[pairs[0, i : i + _PAIRS_AT_ONCE]] == signature[pairs[1, i : i + _PAIRS_AT_ONCE]]).mean(1)
        for i in range(0, pairs.shape[1], _PAIRS_AT_ONCE)
    ]
    return pairs[:, np.concatenate(alike) >= SIMILAR] if alike else pairs
