"""Text of graded difficulty: a table, facts about two tokens, rare tokens, and private phrases in ids of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.sources.contract import Source


@dataclass(frozen=True)
class Graded(Source):
    """What a larger model learns more of (facts, by how often they come up) beside what is copied.

    After two tokens of the table's ids, the next is the fact of these two with `fact_frac`, drawn by odds 1 / (rank + 1)^zipf
    with `background_frac`, and otherwise one of the last token's `successors` (odds 8:4:2:1). After one such token there is
    no fact, and its share is the successors'; after BOS or a phrase there is the background alone. Outside a phrase, and
    not right after one, a position starts a mention of one of the document's `phrases` with `start_frac`. Phrases use the
    highest `n_phrase_ids` ids and nothing else does, so that copying and the table cannot be confused.

    Attributes:
        d_vocab: number of token ids, BOS included.
        n_ctx: tokens per sequence, BOS included.
        n_phrase_ids: ids of phrases.
        successors: that each token has in the table.
        zipf: exponent of the odds by rank.
        fact_frac: probability, 0 to 1, of the fact.
        background_frac: probability, 0 to 1, that the token before decides nothing.
        start_frac: probability, 0 to 1, of a mention.
        phrases: private phrases of a document, 1 to 4.
        phrase_min, phrase_max: shortest and longest phrase, tokens.
        table: which table and facts; other numbers are other languages.
        bos_token_id: the first token of every sequence, and nowhere else.

    Raises:
        ByroteError: values that cannot make such a sequence.
    """

    name: ClassVar[str] = "graded"
    about: ClassVar[str] = (
        "a table, facts about two tokens, rare tokens, and private phrases in ids of their own"
    )
    drawn_by: ClassVar[str] = "byrote.checkpoints.lab.sources.facts"
    purpose: ClassVar[str] = "graded/{stream}"

    d_vocab: int = 128
    n_ctx: int = 32
    n_phrase_ids: int = 32
    successors: int = 4
    zipf: float = 0.7
    fact_frac: float = 0.2
    background_frac: float = 0.1
    start_frac: float = 0.25
    phrases: int = 2
    phrase_min: int = 3
    phrase_max: int = 6
    table: int = 0
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        self.require_shape(table=2 * self.d_vocab)
        self.require(2 <= self.n_phrase_ids <= self.d_vocab - 3, "n_phrase_ids", f"2 to {self.d_vocab - 3}")
        self.require(
            self.bos_token_id < self.n_table_ids, "bos_token_id", "an id below those of phrases, such as 0"
        )
        self.require(1 <= self.successors < self.n_table_ids, "successors", f"1 to {self.n_table_ids - 1}")
        self.require(0 <= self.zipf <= 8, "zipf", "0 to 8")
        self.require(0 <= self.fact_frac <= 1 - self.background_frac, "fact_frac", "0 to 1 - background_frac")
        self.require(0 <= self.background_frac <= 1, "background_frac", "a probability, 0 to 1")
        self.require(0 <= self.start_frac <= 1, "start_frac", "a probability, 0 to 1")
        self.require(1 <= self.phrases <= 4, "phrases", "1 to 4")
        self.require(1 <= self.phrase_min <= self.phrase_max, "phrase_min", "1 to phrase_max")
        self.require(
            self.phrase_max <= min(self.n_ctx - 2, 64), "phrase_max", f"at most {min(self.n_ctx - 2, 64)}"
        )
        self.require(0 <= self.table < 1 << 31, "table", "0 or more")

    @property
    def n_table_ids(self) -> int:
        """Ids below those of phrases, BOS among them."""
        return self.d_vocab - self.n_phrase_ids

    def token_name(self, token: int) -> str:
        """`BOS`, `t` and the number of an id of the table, `p` and that of an id of phrases."""
        known = super().token_name(token)
        return known if not known.isdigit() else f"{'p' if token >= self.n_table_ids else 't'}{token}"
