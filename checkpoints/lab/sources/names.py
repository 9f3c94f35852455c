"""Text from a table in which one private phrase per document recurs: an in-weights part and an in-context part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from byrote.checkpoints.lab.sources.contract import Source
from byrote.checkpoints.setting import shown


@dataclass(frozen=True)
class Names(Source):
    """A Zipf-Markov table, and one private phrase a document that no table predicts.

    Every token is followed by one of `successors` tokens of its own (odds 2^(successors-1) : ... : 2 : 1), or, with
    `background_frac`, by any token with odds 1 / (rank + 1)^zipf. Outside the phrase each position starts a mention of it
    with `start_frac`; the phrase is `phrase_min` to `phrase_max` tokens, uniform in length and in tokens, and the same
    throughout its document.

    Attributes:
        d_vocab: number of token ids, BOS included.
        n_ctx: tokens per sequence, BOS included.
        successors: that each token has in the table.
        zipf: exponent of the background's and the successors' odds by rank.
        background_frac: probability, 0 to 1, that the background and not the successors say what follows.
        start_frac: probability, 0 to 1, that a position outside the phrase starts a mention.
        phrase_min, phrase_max: shortest and longest phrase, tokens.
        table: which table; other numbers are other languages.
        bos_token_id: the first token of every sequence, and nowhere else.

    Raises:
        ByroteError: values that cannot make such a sequence.
    """

    name: ClassVar[str] = "names"
    about: ClassVar[str] = "text from a bigram table in which one private phrase per document recurs"
    drawn_by: ClassVar[str] = "byrote.checkpoints.lab.sources.mentions"
    purpose: ClassVar[str] = "names/{stream}"

    d_vocab: int = 32
    n_ctx: int = 32
    successors: int = 4
    zipf: float = 1.0
    background_frac: float = 0.1
    start_frac: float = 0.2
    phrase_min: int = 3
    phrase_max: int = 6
    table: int = field(default=0, metadata=shown("Which of the source's tables.", metavar="N"))
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        self.require_shape(table=self.d_vocab)
        self.require(1 <= self.successors < self.d_vocab, "successors", f"1 to {self.d_vocab - 1}")
        self.require(0 <= self.zipf <= 8, "zipf", "0 to 8")
        self.require(0 <= self.background_frac <= 1, "background_frac", "a probability, 0 to 1")
        self.require(0 <= self.start_frac <= 1, "start_frac", "a probability, 0 to 1")
        self.require(1 <= self.phrase_min <= self.phrase_max, "phrase_min", "1 to phrase_max")
        self.require(
            self.phrase_max <= min(self.n_ctx - 2, 64), "phrase_max", f"at most {min(self.n_ctx - 2, 64)}"
        )
        self.require(0 <= self.table < 1 << 31, "table", "0 or more")
