"""What a source of sequences is: its settings, and by name the module that draws from it. No numpy: help reads it too."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.settings import Configured

MECHANISMS: Mapping[str, str] = {
    "bos": "the beginning of the sequence, which nothing predicts",
    "free": "drawn independently of what precedes it",
    "table": "follows the token before it by the source's table: known from the weights",
    "rare_table": "the table lets anything follow: known from the weights, and rare",
    "fact": "follows the two tokens before it by a fact of the source: known from the weights",
    "first_mention": "inside something of this sequence alone, for the first time",
    "copy_start": "the first token of a copy, which nothing predicts",
    "copy": "inside a copy: an earlier occurrence in the sequence predicts it",
    "in_context": "by statistics of the sequence alone: counts of what followed the token before it",
    "unlabelled": "real text, whose generating process is unknown",
}
"""Which mechanism can predict a token; the code in `Sequences.mechanism` is the place in this table."""
CODES: Mapping[str, int] = {name: code for code, name in enumerate(MECHANISMS)}
NOT_LEARNED_BY_HEART = ("bos", "copy_start", "copy")
"""What a memory of the sequence is not needed for; what is left is what a member's loss is taken over."""
INDUCIBLE = ("copy", "in_context")
N_FOR_SHARE = 4096  # sequences on which a share is counted where no formula gives it

# What no lab run needs and would only fill memory: a manifest may say anything, and so may a slip of the hand.
MAX_CONTEXT, MAX_TABLE = 1 << 16, 1 << 26


class Source(Configured):
    """One source of sequences: a frozen dataclass of settings derives from it, and a module draws.

    That module, `drawn_by`, has `n_words(source)` (random 64-bit words a sequence takes), `drawn(source, words)`
    (`Sequences` of [n, n_words] words) and, where `no_floor` is empty, `floor(source, wide)` (nats of each token). Where
    the first words of a sequence are what it is about (its phrases, its matrix) and the others how that is put, it has
    `n_private(source)`, how many these are.

    Attributes:
        name: in `SOURCES` and in manifests.
        about: one sentence, for the command line.
        drawn_by: dotted name of the module that draws.
        no_floor: why the exact Bayes floor is not known; empty where it is.
        redrawn: whether a manifest alone is enough to draw more: not where a file is needed.
        purpose: of the random words; `{stream}` stands for the stream.
        d_vocab: number of token ids, BOS included.
        n_ctx: tokens per sequence, BOS included.
        bos_token_id: the first token of every sequence, and nowhere else.
    """

    what: ClassVar[str] = "source"
    about: ClassVar[str]
    drawn_by: ClassVar[str]
    no_floor: ClassVar[str] = ""
    redrawn: ClassVar[bool] = True
    purpose: ClassVar[str]
    d_vocab: int
    n_ctx: int
    bos_token_id: int

    def draw(self, *, seed: int, stream: str, index: int, n: int) -> Any:
        """Sequences `index` to `index + n - 1` of a stream, the same however they are grouped into calls.

        Args:
            seed: 0 or more; other seeds give other sequences.
            stream: one of `STREAMS`; no two streams share their random numbers.
            index: position of the first sequence in the stream.
            n: how many sequences.

        Returns:
            `Sequences`.

        Raises:
            ByroteError: an unknown stream.
        """
        from byrote.checkpoints.lab.sequences import random_words, require_stream

        require_stream(stream)
        half = importlib.import_module(self.drawn_by)
        purpose = self.purpose.format(stream=stream)
        words = random_words(purpose, seed=seed, index=index, shape=(n, half.n_words(self)))
        return half.drawn(self, words)

    def rephrased(self, *, seed: int, stream: str, index: int, n: int, phrasing: int) -> Any:
        """Sequences of a stream rephrased: what each is about stays, all else is drawn anew.

        Given what a sequence is about, each phrasing is an independent draw of the source, so that labels and floors hold.

        Args:
            seed, stream, index, n: as for `draw`.
            phrasing: which one; 0 is the sequence itself.

        Returns:
            `Sequences`.

        Raises:
            ByroteError: an unknown stream, or a source whose sequences are about nothing that could be rephrased.
        """
        from byrote.checkpoints.lab.sequences import random_words, require_stream

        require_stream(stream)
        half = importlib.import_module(self.drawn_by)
        if not hasattr(half, "n_private"):
            raise ByroteError(
                f"sequences of the source {self.name} cannot be rephrased: what each is about is unknown",
                help="use a source with phrases, facts or matrices of each document, such as names or graded",
            )
        purpose = self.purpose.format(stream=stream)
        size = (n, half.n_words(self))
        words = random_words(purpose, seed=seed, index=index, shape=size)
        if phrasing:
            anew = random_words(f"{purpose}/phrasing/{phrasing}", seed=seed, index=index, shape=size)
            anew[:, : half.n_private(self)] = words[:, : half.n_private(self)]
            words = anew
        return half.drawn(self, words)

    def floor_nll(self, sequences: Any) -> Any:
        """The exact Bayes floor: -log P(token | the tokens before it, the source), for whoever knows the source.

        Args:
            sequences: `Sequences`, or token ids [n, width] that begin with BOS; the first `width` tokens decide.

        Returns:
            Nats [n, width]; NaN at BOS, from a token that the source cannot produce on, all NaN in a row with ids that
            are none of the source's, and everywhere where the floor is not known (`no_floor`).
        """
        from byrote.checkpoints.lab.sequences import floor_of

        wide = getattr(sequences, "wide", sequences)
        half = importlib.import_module(self.drawn_by)
        return floor_of(
            wide, None if self.no_floor else lambda rows: half.floor(self, rows), d_vocab=self.d_vocab
        )

    def resolved(self) -> Source:
        """What a manifest says of it; where that depends on a file, with the file's digest."""
        return self

    @property
    def inducible_frac(self) -> float:
        """Share of predicted tokens that the sequence itself predicts: copies, and in-context statistics."""
        from byrote.checkpoints.lab.sequences import share_of

        drawn = self.draw(seed=0, stream="held_out", index=0, n=N_FOR_SHARE)
        return share_of(drawn, [CODES[name] for name in INDUCIBLE])

    @property
    def words(self) -> Any:
        """Pairs of ids [n, 2] that belong together by the source's table; None where there is no such table."""
        half = importlib.import_module(self.drawn_by)
        pairs = getattr(half, "pairs", None)
        return None if pairs is None else pairs(self)

    def token_name(self, token: int) -> str:
        """What a token id is called where it is shown: `BOS`, else its number, behind a letter where the source has kinds of ids."""
        return "BOS" if token == self.bos_token_id else str(token)

    def require_shape(self, *, table: int = 1) -> None:
        """Refuse a vocabulary or context that no sequence, or no memory, can have.

        Args:
            table: numbers per token id that the source holds in memory.

        Raises:
            ByroteError: naming what is too small or too large.
        """
        if self.n_ctx > MAX_CONTEXT or self.d_vocab * max(1, table) > MAX_TABLE:
            raise ByroteError(
                f"a context of {self.n_ctx} and {self.d_vocab} token ids with {table} numbers each are more than fit in memory",
                help=f"n_ctx is at most {MAX_CONTEXT}, the numbers of all ids together at most {MAX_TABLE}",
            )
        self.require(self.d_vocab >= 3, "d_vocab", "at least 3 token ids")
        self.require(self.n_ctx >= 4, "n_ctx", "at least 4 tokens")
        if not 0 <= self.bos_token_id < self.d_vocab:
            raise ByroteError(
                f"bos_token_id {self.bos_token_id} is not one of the {self.d_vocab} token ids",
                help=f"choose 0 to {self.d_vocab - 1}",
            )
