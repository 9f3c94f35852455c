"""How much of a document has been said before in it, by the length of what is said again?

Source: share of repeated n-grams, as in Li et al. 2023 (arXiv:2310.10226), on whole documents and for long n-grams.

1. Documents longer than a piece (16,384 tokens, rounded up to whole windows) are cut into pieces.
2. `share` is n-grams that stood earlier in their piece over all n-grams of the pieces, summed over the corpus.
3. Chance is the same on the tokens of each piece in random order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from byrote.probes.text.blocks import Blocks, sums_by
from byrote.probes.text.intervals import ratio_intervals
from byrote.probes.text.report import Number
from byrote.probes.text.windows import PIECE_ORDERS, Batch


class Repeats:
    """Sums over pieces; `numbers` gives shares with their intervals."""

    name = "repeats"

    def __init__(self, *, seed: int, resampled: str) -> None:
        self.seed, self.resampled = seed, resampled
        self._blocks = Blocks(2 * len(PIECE_ORDERS))
        self._null = np.zeros(2 * len(PIECE_ORDERS))

    def add(self, batch: Batch) -> None:
        """Count one batch and, where it has one, its null."""
        self._blocks.add(batch.piece_units, _counts(batch))
        if batch.has_null:
            self._null += _counts(batch.shuffled_pieces).sum(0)

    def numbers(self) -> Iterator[Number]:
        """The share for every n."""
        k = len(PIECE_ORDERS)
        sums = self._blocks.sums
        intervals = ratio_intervals(sums[:, :k], sums[:, k:], seed=self.seed)
        for i, n in enumerate(PIECE_ORDERS):
            chance = self._null[i] / self._null[k + i] if self._null[k + i] else np.nan
            yield Number(
                self.name, "share", *intervals[i], n=self._blocks.n, unit="fraction",
                resampled=self.resampled, n_gram=n, chance=float(chance),
            )  # fmt: skip


def _counts(batch: Batch) -> np.ndarray:
    """Per piece: repeated n-grams of each length, then n-grams of each length."""
    again = sums_by([found.seen for found in batch.piece_repeats], batch.pieces)
    lengths = np.diff(batch.pieces, append=len(batch.tokens))[:, None]
    return np.concatenate([again, np.maximum(0, lengths - np.asarray(PIECE_ORDERS) + 1)], axis=1)
