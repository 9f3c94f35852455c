"""How alike are the documents of a corpus to one another, and to those of a reference, near copies or not?

Source: density of a document by a table of 1,000 rows and 20,000 columns of locality-sensitive hashes: Coleman and Shrivastava
2020, arXiv:1912.02283 (RACE sketches), at that size for text: Sachdeva et al. 2024, arXiv:2402.09668, and Zhu et al. 2024,
arXiv:2412.14689, who compare human and synthetic text by it. They hash embeddings of a model; here it is MinHash (Broder 1997) of
the n-grams themselves, so that no model's taste decides and the answer is known: it is a Jaccard similarity.

1. A document (or piece of a long one; a window where there are few documents) is the set of its uni- and bigrams. 1,024 drawn
   at random are hashed.
2. Row r of the table has a hash function of its own; a document counts in the column of its smallest hash, modulo 20,000. Two
   documents share a column with a probability of their Jaccard similarity J, and by accident with 1 in 20,000.
3. The density of a document is the mean over rows of the share of the other documents in its column, with that accident taken
   off: an estimate of its mean similarity to them, with a standard error of at most 0.016 / sqrt(documents).
4. `mean` over documents; `p05`, `p50`, `p95`. Synthetic text is denser: its documents are variations of one another.
5. `to_reference`: density of the corpus's documents in the reference's table. Chance: the reference's own density.

The interval of `mean` resamples documents, of which every pair has two (linearised); that of `to_reference` both corpora's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float, Int, UInt64

from byrote.checkpoints.ngrams import hashes, mix
from byrote.probes.statistics import linearised_interval, sample_interval
from byrote.probes.text.blocks import Reservoir
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

ROWS, COLUMNS = 1000, 20_000
QUANTILES = (5, 50, 95)
_SAMPLE = 1024
_ROWS_AT_ONCE = 50
_FACTORS = np.random.default_rng(1912).integers(1 << 63, size=ROWS, dtype=np.uint64) | np.uint64(1)


class Density:
    """The columns of a sample of documents in every row of the table."""

    name = "density"

    def __init__(self, *, seed: int, by_document: bool) -> None:
        self.seed, self._by_document = seed, by_document
        self._sample = Reservoir(_SAMPLE, seed=seed)

    def add(self, batch: Batch) -> None:
        """Hash those documents of one batch that are drawn."""
        starts = batch.pieces if self._by_document else batch.windows
        stops = np.append(starts[1:], len(batch.tokens))
        orders = [(ends, codes) for _, ends, codes in hashes(batch.tokens, starts, (1, 2))]
        for item, place in self._sample.places(len(starts)):
            parts = [c[slice(*np.searchsorted(e, (starts[item], stops[item])))] for e, c in orders]
            self._sample.keep(place, columns_of(np.unique(np.concatenate(parts))))

    @cached_property
    def columns(self) -> Int[np.ndarray, "n rows"]:
        """Column of every document in every row."""
        return np.asarray(self._sample.items, dtype=np.int64).reshape(-1, ROWS)

    @cached_property
    def table(self) -> Int[np.ndarray, "rows columns"]:
        """Documents per row and column."""
        return np.stack([np.bincount(row, minlength=COLUMNS) for row in self.columns.T]).astype(np.int32)

    def numbers(self, reference: Density | None) -> Iterator[Number]:
        """Density among its own kind; with a reference, among the reference's documents too."""
        own, n = self.columns, len(self.columns)
        number = partial(Number, self.name, n=n, resampled="pieces" if self._by_document else "windows")
        if n < 3:
            yield number("mean", reason="density needs three documents")
            return
        inside = among_others(self.table, own)
        value = float(inside.mean())
        left_out = [(n * value - 2 * inside) / (n - 2)]
        yield number("mean", linearised_interval(value, left_out, seed=self.seed), "fraction")
        for q in QUANTILES:
            found = sample_interval(inside, partial(np.percentile, q=q, axis=-1), seed=self.seed)
            yield number(f"p{q:02d}", found, "fraction")
        m = len(reference.columns) if reference is not None else 0
        if reference is None or m < 3:
            return
        across, back = among(reference.table, own, m), among(self.table, reference.columns, n)
        value = float(across.mean())
        left_out = [(k * value - each) / (k - 1) for k, each in ((n, across), (m, back))]
        chance = float(among_others(reference.table, reference.columns).mean())
        yield number("to_reference", linearised_interval(value, left_out, seed=self.seed), "fraction", chance)


def columns_of(codes: UInt64[np.ndarray, " m"]) -> Int[np.ndarray, " rows"]:
    """Where a set of 64-bit hashes falls in each row; all of an empty set in column 0."""
    if not len(codes):
        return np.zeros(ROWS, dtype=np.int64)
    found = [
        mix((codes[None] * factors[:, None]).ravel()).reshape(len(factors), -1).min(1)
        for factors in np.split(_FACTORS, range(_ROWS_AT_ONCE, ROWS, _ROWS_AT_ONCE))
    ]
    return (mix(np.concatenate(found)) % np.uint64(COLUMNS)).astype(np.int64)


def among(
    table: Int[np.ndarray, "rows columns"], columns: Int[np.ndarray, "n rows"], n_documents: int
) -> Float[np.ndarray, " n"]:
    """Mean similarity of documents to those in a table, without accidental neighbours."""
    shared = table[np.arange(ROWS), columns].mean(1) / n_documents
    return np.asarray((shared - 1 / COLUMNS) / (1 - 1 / COLUMNS))


def among_others(
    table: Int[np.ndarray, "rows columns"], columns: Int[np.ndarray, "n rows"]
) -> Float[np.ndarray, " n"]:
    """The same of documents that are in the table themselves, each without itself."""
    others = (table[np.arange(ROWS), columns].mean(1) - 1) / (len(columns) - 1)
    return np.asarray((others - 1 / COLUMNS) / (1 - 1 / COLUMNS))
