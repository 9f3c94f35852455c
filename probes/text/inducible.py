"""How much of a text could an induction head predict?

Source: the rule of Olsson et al. 2022 ([A][B] ... [A] -> [B]), counted on data, for n-grams of 2 to 7 tokens.

1. The text is cut into windows of the context length.
2. A token is inducible at n when the n-1 tokens before it stood earlier in its window and were followed there by this
   same token; that is, when the n-gram it ends has been seen earlier in the window.
3. `share` is inducible tokens over all tokens of the windows.
4. `hit_rate` is inducible tokens over tokens whose n-1 tokens before stood earlier at all: how often looking back is
   right.
5. Chance is the same on the tokens of each window in random order: what their frequencies alone give.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from byrote.probes.text.blocks import Blocks, sums_by
from byrote.probes.text.intervals import ratio_intervals
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

ORDERS = (2, 3, 4, 5, 6, 7)


class Inducible:
    """Sums over windows; `numbers` gives shares with their intervals."""

    name = "inducible"

    def __init__(self, *, seed: int, resampled: str) -> None:
        self.seed, self.resampled = seed, resampled
        self._blocks = Blocks(2 * len(ORDERS) + 1)
        self._null = np.zeros(2 * len(ORDERS) + 1)

    def add(self, batch: Batch) -> None:
        """Count one batch and, where it has one, its null."""
        self._blocks.add(batch.window_units, _counts(batch))
        if batch.has_null:
            self._null += _counts(batch.shuffled_windows).sum(0)

    def numbers(self) -> Iterator[Number]:
        """Share and hit rate for every n."""
        sums, k = self._blocks.sums, len(ORDERS)
        hits, open_, tokens = sums[:, :k], sums[:, k : 2 * k], np.repeat(sums[:, -1:], k, axis=1)
        null_hits, null_open = self._null[:k], self._null[k : 2 * k]
        for metric, below, null_below in (
            ("share", tokens, np.full(k, self._null[-1])),
            ("hit_rate", open_, null_open),
        ):
            intervals = ratio_intervals(hits, below, seed=self.seed)
            for i, n in enumerate(ORDERS):
                chance = null_hits[i] / null_below[i] if null_below[i] else np.nan
                yield Number(
                    self.name, metric, *intervals[i], n=self._blocks.n, unit="fraction",
                    resampled=self.resampled, n_gram=n, chance=float(chance),
                )  # fmt: skip


def _counts(batch: Batch) -> np.ndarray:
    """Per window: inducible tokens at each n, tokens whose context was seen at each n, tokens."""
    seen = {found.n: found.seen for found in batch.window_repeats}
    hits, context = [], []
    for n in ORDERS:
        before = np.zeros_like(seen[n])
        before[1:] = seen[n - 1][:-1]
        before[batch.windows] = False  # what precedes a window's first token is not in the window
        hits.append(seen[n])
        context.append(before)
    lengths = np.diff(batch.windows, append=len(batch.tokens))[:, None]
    return np.concatenate([sums_by([*hits, *context], batch.windows), lengths], axis=1)
