"""What would a corpus teach a model to look back for, that it cannot know by heart?

Source: a first look at 35 ways to make training text, in which this share ranked when induction formed; whether it does is judged by
`byrote reproduce finding-signal-onset --full`. The repeats are those of `inducible` (Olsson et al. 2022, [A][B] ... [A] -> [B]); what
is new is the table they are compared with.

1. Windows are drawn at random, up to 1,048,576 tokens in all; a smaller corpus is looked at whole.
2. A token is a repeat at n when the n-gram it ends ended earlier in its window: what `inducible` counts.
3. The table at n gives P(token | the n-1 tokens before it) by the n-grams of all *other* documents (windows, where there are
   few documents): a document cannot be learned by heart from itself, and neither can a name that only it mentions.
4. `share` is repeats to which the table gives less than 0.1, over all tokens: looking back predicts them, and memory does not.
5. Chance: documents of the same lengths drawn from the text's own bigrams (each token follows one that stood there somewhere
   in the text, drawn at random), compared with the table of the whole text. They have the text's repeats that its bigrams
   explain, and no others.

The interval resamples documents; the table is not drawn anew. A high share says that induction would be worth learning, not how well
it would be learned, and nothing of whole documents that stand there twice: those are in the table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt64

from byrote.checkpoints.ngrams import NgramTable, mix, ngrams, repeats, unexpected_repeats
from byrote.probes.statistics import ratio_intervals
from byrote.probes.text.blocks import Blocks, sums_by
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

ORDERS = (2, 3, 4)
MAX_TOKENS = 1 << 20


class InductionSignal:
    """A sample of windows, chosen by their number in the corpus; `numbers` compares their repeats with their n-gram tables.

    Args:
        seed: of the sample, the bootstrap and the null.
        resampled: what the units of the bootstrap are.
        max_tokens: of the sample.
    """

    name = "induction_signal"

    def __init__(self, *, seed: int, resampled: str, max_tokens: int = MAX_TOKENS) -> None:
        self.seed, self.resampled, self._max = seed, resampled, max_tokens
        self._tokens = np.zeros(0, dtype=np.uint64)
        self._lengths, self._units = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._rank = np.zeros(0, dtype=np.uint64)
        self._last = np.uint64(np.iinfo(np.uint64).max)  # the highest rank that has room
        self.offered = 0

    def add(self, batch: Batch) -> None:
        """Keep the windows of one batch that are in the sample."""
        lengths = np.diff(batch.windows, append=len(batch.tokens))
        rank = _ranks(self.offered, len(lengths), self.seed)
        self.offered += len(lengths)
        kept = rank <= self._last
        self._tokens = np.concatenate([self._tokens, batch.tokens[np.repeat(kept, lengths)]])
        self._lengths = np.concatenate([self._lengths, lengths[kept]])
        self._units = np.concatenate([self._units, batch.window_units[kept]])
        self._rank = np.concatenate([self._rank, rank[kept]])
        if len(self._tokens) > 2 * self._max:
            self._thin()

    def _thin(self) -> None:
        """Let go of the windows of highest rank, as many as it takes; which ones are left does not depend on when it is done."""
        if len(self._tokens) <= self._max:
            return
        order = np.argsort(self._rank)
        room = max(1, int(np.searchsorted(np.cumsum(self._lengths[order]), self._max, side="right")))
        self._last = self._rank[order[room - 1]]
        kept = self._rank <= self._last
        self._tokens = self._tokens[np.repeat(kept, self._lengths)]
        self._lengths, self._units, self._rank = self._lengths[kept], self._units[kept], self._rank[kept]

    def numbers(self) -> Iterator[Number]:
        """`share` at every n."""
        self._thin()
        starts = np.cumsum(self._lengths) - self._lengths
        _, units = np.unique(self._units, return_inverse=True)
        drawn = drawn_from_bigrams(self._tokens, starts, seed=self.seed)
        flags, chance = [], []
        for n, found, table in unexpected_repeats(self._tokens, starts, units, ORDERS):
            flags.append(found)
            chance.append(_share(drawn, starts, n, table))
        blocks = Blocks(2 * len(ORDERS))
        tokens = np.repeat(self._lengths[:, None], len(ORDERS), axis=1)
        blocks.add(units, np.concatenate([sums_by(flags, starts), tokens], axis=1))
        k, sums = len(ORDERS), blocks.sums
        intervals = ratio_intervals(sums[:, :k], sums[:, k:], seed=self.seed)
        for n, interval, null in zip(ORDERS, intervals, chance, strict=True):
            yield Number(
                self.name, "share", interval, "fraction", null, n, n=blocks.n, resampled=self.resampled
            )

    @property
    def note(self) -> str:
        """Of how many windows the numbers are, where not of all."""
        if len(self._lengths) == self.offered:
            return ""
        return f"induction_signal is from a sample of {len(self._lengths):,} of {self.offered:,} windows"


def _ranks(first: int, n: int, seed: int) -> UInt64[np.ndarray, " n"]:
    """A random number for each window, by its place in the corpus: no two are the same."""
    salt = mix(np.array([seed], dtype=np.uint64))
    return mix(np.arange(first, first + n, dtype=np.uint64) ^ salt)


def _share(
    tokens: UInt64[np.ndarray, " n"], starts: Int[np.ndarray, " s"], n: int, table: NgramTable
) -> float:
    """Share of tokens that repeat an n-gram of their sequence that a table of other text does not expect."""
    *_, found = repeats(tokens, starts, range(1, n + 1))
    ((_, ends, codes, contexts),) = ngrams(tokens, starts, (n,))
    again = found.seen[ends]
    return float((~table.expects(codes[again], contexts[again])).sum()) / len(tokens)


def drawn_from_bigrams(
    tokens: UInt64[np.ndarray, " n"], starts: Int[np.ndarray, " s"], *, seed: int
) -> UInt64[np.ndarray, " n"]:
    """Sequences of the same lengths from a text's own bigrams: each begins as one of them does, and goes on with what follows an
    occurrence of its last token, drawn at random; where nothing does, with any token.

    Args:
        tokens: codes of all sequences, one after another.
        starts: where each sequence starts, at least one.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, len(tokens), len(starts)])
    lengths = np.diff(starts, append=len(tokens))
    codes, ids = np.unique(tokens, return_inverse=True)
    goes_on = np.ones(len(tokens), dtype=bool)
    goes_on[starts[1:] - 1] = goes_on[-1] = False
    here = np.flatnonzero(goes_on)
    here = here[np.argsort(ids[here], kind="stable")]
    first = np.searchsorted(ids[here], np.arange(len(codes) + 1))
    drawn = np.empty(len(tokens), dtype=np.int64)
    longest = np.argsort(-lengths, kind="stable")
    now = ids[starts[rng.integers(len(starts), size=len(starts))]]
    for step in range(int(lengths.max())):
        alive = longest[: int(np.searchsorted(-lengths[longest], -step, side="left"))]
        if step:
            last = now[alive]
            room = first[last + 1] - first[last]
            places = first[last] + np.floor(rng.random(len(alive)) * room).astype(np.int64)
            anywhere = ids[rng.integers(len(tokens), size=len(alive))]
            follows = ids[here[np.minimum(places, len(here) - 1)] + 1] if len(here) else anywhere
            now[alive] = np.where(room > 0, follows, anywhere)
        drawn[starts[alive] + step] = now[alive]
    return codes[drawn]
