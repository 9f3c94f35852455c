"""How much of a text stands there a second time: `inducible`, `repeats` and `rep`.

`inducible`: how much of a text could an induction head predict? The rule of Olsson et al. 2022 ([A][B] ... [A] -> [B]),
counted on data, for n-grams of 2 to 7 tokens.

1. The text is cut into windows of the context length.
2. A token is inducible at n when the n-1 tokens before it stood earlier in its window and were followed there by this
   same token; that is, when the n-gram it ends has been seen earlier in the window.
3. `share` is inducible tokens over all tokens of the windows.
4. `hit_rate` is inducible tokens over tokens whose n-1 tokens before stood earlier at all: how often looking back is
   right.

`repeats`: how much of a document was said before in it, by the length of what is said again? The share of repeated
n-grams, as in Li et al. 2023 (arXiv:2310.10226), on whole documents and for long n-grams.

1. Documents longer than a piece (16,384 tokens, rounded up to whole windows) are cut into pieces.
2. `share` is n-grams that stood earlier in their piece over all n-grams of the pieces, summed over the corpus.

`rep`: the scores rep-n, rep-w and rep-r of Li et al. 2023, "Repetition In Repetition Out" (arXiv:2310.10226), as their
code computes them; there in percent, here as fractions. A text is one window of the context length.

1. `rep_n` for n = 2, 3, 4: n-grams already seen earlier in the same text over all n-grams, pooled over the corpus.
2. `rep_w`: tokens that occur among the 16 tokens before them in the same text, over all tokens.
3. `rep_r`: tokens covered by a bigram that occurs more than once in the text, over all tokens.

Chance is the same on the tokens of each window (of each piece for `repeats`) in random order: what their frequencies
alone give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Num

from byrote.checkpoints.ngrams import positions
from byrote.probes.statistics import ratio_intervals
from byrote.probes.text.blocks import Blocks, sums_by
from byrote.probes.text.report import Number
from byrote.probes.text.windows import PIECE_ORDERS, Batch

INDUCIBLE_ORDERS = (2, 3, 4, 5, 6, 7)
REP_ORDERS = (2, 3, 4)
REACH = 16


class Repetition:
    """Sums of one measure over windows or pieces; `numbers` gives its scores with their intervals.

    Args:
        name: "inducible", "repeats" or "rep".
        seed: of the bootstrap.
        resampled: what the units of the bootstrap are.
    """

    def __init__(self, name: str, *, seed: int, resampled: str) -> None:
        self.name, self.seed, self.resampled = name, seed, resampled
        self._count, self._scores = _MEASURES[name]
        self._blocks = Blocks(2 * len(self._scores))
        self._null = np.zeros(2 * len(self._scores))

    def add(self, batch: Batch) -> None:
        """Count one batch and, where it has one, its null."""
        in_pieces = self.name == "repeats"
        self._blocks.add(batch.piece_units if in_pieces else batch.window_units, self._count(batch))
        if batch.has_null:
            shuffled = batch.shuffled_pieces if in_pieces else batch.shuffled_windows
            self._null += self._count(shuffled).sum(0)

    def numbers(self) -> Iterator[Number]:
        """Every score."""
        k, sums = len(self._scores), self._blocks.sums
        intervals = ratio_intervals(sums[:, :k], sums[:, k:], seed=self.seed)
        for i, (metric, n) in enumerate(self._scores):
            chance = float(self._null[i] / self._null[k + i]) if self._null[k + i] else np.nan
            yield Number(
                self.name, metric, intervals[i], "fraction", chance, n,
                n=self._blocks.n, resampled=self.resampled,
            )  # fmt: skip


Counts = Num[np.ndarray, "stretches twice_the_scores"]


def _inducible(batch: Batch) -> Counts:
    """Per window: inducible tokens at each n, twice; then tokens, and tokens whose context was seen at each n."""
    seen = {found.n: found.seen for found in batch.window_repeats}
    context = []
    for n in INDUCIBLE_ORDERS:
        before = np.zeros_like(seen[n])
        before[1:] = seen[n - 1][:-1]
        before[batch.windows] = False  # what precedes a window's first token is not in the window
        context.append(before)
    hits = sums_by([seen[n] for n in INDUCIBLE_ORDERS], batch.windows)
    tokens = np.repeat(_lengths(batch.windows, batch), len(INDUCIBLE_ORDERS), axis=1)
    return np.concatenate([hits, hits, tokens, sums_by(context, batch.windows)], axis=1)


def _repeats(batch: Batch) -> Counts:
    """Per piece: repeated n-grams of each length, then n-grams of each length."""
    again = sums_by([found.seen for found in batch.piece_repeats], batch.pieces)
    below = np.maximum(0, _lengths(batch.pieces, batch) - np.asarray(PIECE_ORDERS) + 1)
    return np.concatenate([again, below], axis=1)


def _rep(batch: Batch) -> Counts:
    """Per window: what counts for each score, then what it is divided by."""
    found = {one.n: one for one in batch.window_repeats}
    covered = found[2].shared.copy()  # the bigram that ends here, and below the one that starts here
    covered[:-1] |= found[2].shared[1:]
    flags = [*(found[n].seen for n in REP_ORDERS), _nearby(batch), covered]
    counted = sums_by(flags, batch.windows)
    shorter_by = np.asarray([n - 1 for n in REP_ORDERS] + [0, 0])
    return np.concatenate([counted, np.maximum(0, _lengths(batch.windows, batch) - shorter_by)], axis=1)


def _lengths(starts: np.ndarray, batch: Batch) -> np.ndarray:
    return np.diff(starts, append=len(batch.tokens))[:, None]


def _nearby(batch: Batch) -> np.ndarray:
    """Whether each token occurs among the `REACH` tokens before it in its window."""
    tokens, position = batch.tokens, positions(batch.windows, len(batch.tokens))
    near = np.zeros(len(tokens), dtype=bool)
    for distance in range(1, min(REACH, len(tokens) - 1) + 1):
        equal = tokens[distance:] == tokens[:-distance]
        near[distance:] |= equal & (position[distance:] >= distance)
    return near


# name -> (numerators, then denominators; the metric and the n of each)
_MEASURES: dict[str, tuple[Callable[[Batch], Counts], list[tuple[str, int | None]]]] = {
    "inducible": (_inducible, [(metric, n) for metric in ("share", "hit_rate") for n in INDUCIBLE_ORDERS]),
    "repeats": (_repeats, [("share", n) for n in PIECE_ORDERS]),
    "rep": (_rep, [*(("rep_n", n) for n in REP_ORDERS), ("rep_w", None), ("rep_r", None)]),
}
