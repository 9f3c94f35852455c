"""Bigrams with triggers (Bietti et al. 2023): after some tokens each sequence has a follower of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.sources.contract import Source


@dataclass(frozen=True)
class TriggerBigrams(Source):
    """Text from a bigram table, but that each of `triggers` tokens is always followed by one token of its sequence.

    The table is that of a Zipf background and `successors` tokens each, as of the source names (Bietti et al. take the
    characters of Shakespeare). What follows a trigger is drawn anew for every sequence, uniformly.

    Attributes:
        d_vocab: number of token ids, BOS included.
        n_ctx: tokens per sequence, BOS included.
        successors: that each token has in the table.
        zipf: exponent of the odds by rank.
        background_frac: probability, above 0 to 1, that the background and not the successors say what follows.
        triggers: tokens that are triggers.
        random_triggers: triggers are drawn anew for every sequence; otherwise they are the most frequent tokens.
        table: which table; other numbers are other languages.
        bos_token_id: the first token of every sequence, and nowhere else.

    Raises:
        ByroteError: values that cannot make such a sequence.
    """

    name: ClassVar[str] = "trigger_bigrams"
    about: ClassVar[str] = (
        "bigrams with triggers whose followers are each sequence's own (Bietti et al. 2023)"
    )
    drawn_by: ClassVar[str] = "byrote.checkpoints.lab.sources.triggers"
    purpose: ClassVar[str] = "trigger_bigrams/{stream}"

    d_vocab: int = 65
    n_ctx: int = 64
    successors: int = 4
    zipf: float = 1.0
    background_frac: float = 0.4
    triggers: int = 5
    random_triggers: bool = False
    table: int = 0
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        self.require_shape(table=self.d_vocab)
        self.require(1 <= self.successors < self.d_vocab, "successors", f"1 to {self.d_vocab - 1}")
        self.require(0 <= self.zipf <= 8, "zipf", "0 to 8")
        self.require(0 < self.background_frac <= 1, "background_frac", "a probability above 0, to 1")
        self.require(
            1 <= self.triggers <= min(64, self.d_vocab - 2), "triggers", f"1 to {min(64, self.d_vocab - 2)}"
        )
        self.require(0 <= self.table < 1 << 31, "table", "0 or more")
