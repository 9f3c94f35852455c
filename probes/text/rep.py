"""The repetition scores rep-n, rep-w and rep-r of a corpus.

Source: Li et al. 2023, "Repetition In Repetition Out" (arXiv:2310.10226), as their code computes them; there in
percent, here as fractions. A text is one window of the context length.

1. `rep_n` for n = 2, 3, 4: n-grams already seen earlier in the same text over all n-grams, pooled over the corpus.
2. `rep_w`: tokens that occur among the 16 tokens before them in the same text, over all tokens.
3. `rep_r`: tokens covered by a bigram that occurs more than once in the text, over all tokens.
4. Chance is the same on the tokens of each window in random order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from byrote.probes.text.blocks import Blocks, sums_by
from byrote.probes.text.intervals import ratio_intervals
from byrote.probes.text.ngrams import positions
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

ORDERS = (2, 3, 4)
REACH = 16


class Rep:
    """Sums over windows; `numbers` gives the scores with their intervals."""

    name = "rep"

    def __init__(self, *, seed: int, resampled: str) -> None:
        self.seed, self.resampled = seed, resampled
        self._blocks = Blocks(2 * (len(ORDERS) + 2))
        self._null = np.zeros(2 * (len(ORDERS) + 2))

    def add(self, batch: Batch) -> None:
        """Count one batch and, where it has one, its null."""
        self._blocks.add(batch.window_units, _counts(batch))
        if batch.has_null:
            self._null += _counts(batch.shuffled_windows).sum(0)

    def numbers(self) -> Iterator[Number]:
        """rep-2, rep-3, rep-4, rep-w, rep-r."""
        sums = self._blocks.sums
        k = sums.shape[1] // 2
        intervals = ratio_intervals(sums[:, :k], sums[:, k:], seed=self.seed)
        names = [("rep_n", n) for n in ORDERS] + [("rep_w", None), ("rep_r", None)]
        for i, (metric, n) in enumerate(names):
            chance = self._null[i] / self._null[k + i] if self._null[k + i] else np.nan
            yield Number(
                self.name, metric, *intervals[i], n=self._blocks.n, unit="fraction",
                resampled=self.resampled, n_gram=n, chance=float(chance),
            )  # fmt: skip


def _counts(batch: Batch) -> np.ndarray:
    """Per window: what counts for each score, then what it is divided by."""
    found = {one.n: one for one in batch.window_repeats}
    covered = found[2].shared.copy()  # the bigram that ends here, and below the one that starts here
    covered[:-1] |= found[2].shared[1:]
    flags = [*(found[n].seen for n in ORDERS), _nearby(batch), covered]
    counted = sums_by(flags, batch.windows)
    lengths = np.diff(batch.windows, append=len(batch.tokens))[:, None]
    below = np.maximum(0, lengths - np.asarray([n - 1 for n in ORDERS] + [0, 0]))
    return np.concatenate([counted, below], axis=1)


def _nearby(batch: Batch) -> np.ndarray:
    """Whether each token occurs among the `REACH` tokens before it in its window."""
    tokens, position = batch.tokens, positions(batch.windows, len(batch.tokens))
    near = np.zeros(len(tokens), dtype=bool)
    for distance in range(1, min(REACH, len(tokens) - 1) + 1):
        equal = tokens[distance:] == tokens[:-distance]
        near[distance:] |= equal & (position[distance:] >= distance)
    return near
