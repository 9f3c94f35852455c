"""How many documents of a corpus are near copies of another one in it?

Source: MinHash (Broder 1997) by one permutation (Li, Owen and Zhang 2012), empty bins filled from full ones in a fixed
random order (Shrivastava 2017, arXiv:1703.04664), and banding (Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, chapter 3). Own code in numpy: an index of Python objects holds several KiB per document, this one half a KiB.

1. A document (or piece of a long one; a window where there are few documents) is the set of its 5-grams.
2. Its signature is the smallest 31-bit hash in each of 128 bins; the share of equal entries of two signatures estimates
   the Jaccard similarity J of the sets, with a standard error of sqrt(J (1 - J) / 128), somewhat more for documents of
   fewer than about 40 5-grams.
3. Documents that agree in all 8 entries of one of 16 bands are compared; those with an estimate of at least 0.8 are
   linked, and clusters are what is linked. Two long documents with J = 0.9 are missed 5 times in 10,000, with J = 0.85
   7 times in 100, with J = 0.8 every second time; with J = 0.75 they are linked 9 times in 100, with 0.7 5 in 1,000.
4. `clustered_share` is documents in clusters of two or more over all; `redundant_share` is documents beyond one per
   cluster over all: what removing duplicates would remove.
5. Intervals resample clusters. Beyond 65,536 documents a sample is compared, chosen by a document's own smallest
   hash: exact copies are always sampled together, near copies with a probability of about their similarity, so the
   shares then lean low.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Int, UInt32, UInt64

from byrote.checkpoints.ngrams import hashes, mix, sequence_of
from byrote.probes.statistics import ratio_intervals
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

SHINGLE = 5
BINS, BANDS = 128, 16
SIMILAR = 0.8
MAX_DOCUMENTS = 65_536
_EMPTY = np.uint32(0xFFFFFFFF)
_CLUSTER_BLOCKS = 1024
_PAIRS_AT_ONCE = 1 << 14
_SIGNED_AT_ONCE = 1 << 12
_FEW_BINS = 32
_PROBES = np.argsort(
    np.random.default_rng(1703).random((BINS, BINS)), axis=1
)  # bins an empty one probes, in order
_RANKS = np.argsort(_PROBES, axis=1).astype(np.uint8)  # and when it probes each


class NearDuplicates:
    """Signatures of documents, and clusters of those that are alike."""

    name = "near_duplicates"

    def __init__(self, *, seed: int, by_document: bool, max_documents: int = MAX_DOCUMENTS) -> None:
        self.seed, self._by_document, self._max = seed, by_document, max_documents
        self._signatures = np.empty((max_documents + _SIGNED_AT_ONCE, BINS), dtype=np.uint32)
        self._count = self._level = 0
        self.largest = self.offered = 0

    def add(self, batch: Batch) -> None:
        """Sign the documents of one batch."""
        starts = batch.pieces if self._by_document else batch.windows
        ((_, ends, codes),) = hashes(batch.tokens, starts, (SHINGLE,))
        sequence = sequence_of(starts, len(batch.tokens))[ends]
        firsts = np.flatnonzero(np.diff(sequence, prepend=-1))[::_SIGNED_AT_ONCE]
        for start, stop in pairwise([*firsts, len(sequence)]):
            self._keep(signatures(sequence[start:stop], codes[start:stop]))

    def _keep(self, found: np.ndarray) -> None:
        self.offered += len(found)
        found = self._sampled(found)
        self._signatures[self._count : self._count + len(found)] = found
        self._count += len(found)
        while self._count > self._max:
            self._level += 1
            found = self._sampled(self._signatures[: self._count])
            self._count = len(found)
            self._signatures[: self._count] = found

    def _sampled(self, found: np.ndarray) -> np.ndarray:
        chosen = mix(found.min(1).astype(np.uint64)) & np.uint64((1 << self._level) - 1)
        return found[chosen == 0]

    def numbers(self) -> Iterator[Number]:
        """Share of documents in clusters, and share that is redundant."""
        what = "pieces" if self._by_document else "windows"
        found = self._signatures[: self._count]
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
            yield Number(self.name, metric, triple, "fraction", n=len(found), resampled=what)

    @property
    def note(self) -> str:
        """What the two shares do not say."""
        what = "documents" if self._by_document else "windows"
        text = f"largest near-duplicate cluster: {self.largest:,} {what}" if self.largest > 1 else ""
        if not self._level:
            return text
        sample = f"near-duplicates are from a sample of {self._count:,} of {self.offered:,} {what}"
        return f"{sample}; {text}" if text else sample


def signatures(
    sequence: Int[np.ndarray, " m"], codes: UInt64[np.ndarray, " m"]
) -> UInt32[np.ndarray, "k bins"]:
    """Signatures of sequences, in order; those without shingles have none.

    Args:
        sequence: the sequence of each shingle, never falling.
        codes: its 64-bit hash.
    """
    row = np.cumsum(np.diff(sequence, prepend=sequence[:1]) > 0)
    signature = np.full((int(row[-1]) + 1 if len(row) else 0, BINS), _EMPTY, dtype=np.uint32)
    place = row * BINS + (codes >> np.uint64(57)).astype(np.int64)
    value = (codes >> np.uint64(20)).astype(np.uint32) & np.uint32(0x7FFFFFFF)
    np.minimum.at(signature.reshape(-1), place, value)
    _fill(signature)
    return signature


def _fill(signature: np.ndarray) -> None:
    """Every empty bin takes the value of the first full one in its own order of probing."""
    full = signature != _EMPTY
    few = np.flatnonzero(full.sum(1) <= _FEW_BINS)
    signature[few] = _filled_from_few(signature[few], full[few])
    rows, bins = np.nonzero(signature == _EMPTY)
    for probed in _PROBES.T:
        if not len(rows):
            return
        hit = full[rows, probed[bins]]
        signature[rows[hit], bins[hit]] = signature[rows[hit], probed[bins[hit]]]
        rows, bins = rows[~hit], bins[~hit]


def _filled_from_few(signature: np.ndarray, full: np.ndarray) -> np.ndarray:
    """The same where most bins are empty: each full bin is offered to all, and the one probed first is taken."""
    rows, bins = np.nonzero(full)
    first = np.searchsorted(rows, np.arange(len(signature)))
    nth = np.arange(len(rows)) - first[rows]
    best = np.full(signature.shape, BINS, dtype=np.uint8)
    filled = signature.copy()
    for i in range(int(nth.max(initial=-1)) + 1):
        row, offered = rows[nth == i], bins[nth == i]
        rank = _RANKS[:, offered].T
        rank[np.arange(len(row)), offered] = 0
        sooner = rank < best[row]
        best[row] = np.where(sooner, rank, best[row])
        filled[row] = np.where(sooner, signature[row, offered][:, None], filled[row])
    return np.where(full, signature, filled)


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
