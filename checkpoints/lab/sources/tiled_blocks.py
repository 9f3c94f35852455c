"""One random block, tiled to the end of the context: the first can only be guessed, every later one can be copied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.sources.contract import MAX_CONTEXT, MAX_TABLE, Source
from byrote.checkpoints.setting import shown


@dataclass(frozen=True)
class SourceConfig(Source):
    """One source of sequences.

    Attributes:
        d_vocab: number of token ids, BOS included.
        n_ctx: tokens per sequence, BOS included.
        block_min: shortest block, tokens.
        block_max: longest block, tokens; block lengths are uniform between the two.
        bigram_frac: probability, 0 to 1, that the next token of the first block comes from the bigram table.
        bigram_successors: successors each token has in that table, equally likely.
        bos_token_id: the first token of every sequence; never inside a block.

    Raises:
        ByroteError: values that cannot make such a sequence.
    """

    name: ClassVar[str] = "tiled_blocks"
    about: ClassVar[str] = "one random block of tokens, tiled to the end of the context"
    drawn_by: ClassVar[str] = "byrote.checkpoints.lab.sources.tiling"
    purpose: ClassVar[str] = "sequences/{stream}"

    d_vocab: int = 128
    n_ctx: int = 48
    block_min: int = 12
    block_max: int = 24
    bigram_frac: float = field(
        default=0.0,
        metadata=shown("Share of first-block tokens that follow a fixed bigram table.", metavar="X"),
    )
    bigram_successors: int = 4
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        if self.n_ctx > MAX_CONTEXT or self.d_vocab * max(1, self.bigram_successors) > MAX_TABLE:
            raise ByroteError(
                f"a context of {self.n_ctx} and {self.d_vocab} token ids of {self.bigram_successors} successors are "
                "more than fit in memory",
                help=f"n_ctx is at most {MAX_CONTEXT}, d_vocab times bigram_successors at most {MAX_TABLE}",
            )
        if self.d_vocab < 3:
            raise ByroteError(f"d_vocab is {self.d_vocab}", help="the lab needs at least 3 token ids")
        if not 0 <= self.bos_token_id < self.d_vocab:
            raise ByroteError(
                f"bos_token_id {self.bos_token_id} is not one of the {self.d_vocab} token ids",
                help=f"choose 0 to {self.d_vocab - 1}",
            )
        if not 2 <= self.block_min <= self.block_max:
            raise ByroteError(
                f"block lengths {self.block_min} to {self.block_max} are not a range",
                help="use 2 <= block_min <= block_max",
            )
        if self.block_max > self.n_ctx - 3:
            raise ByroteError(
                f"a block of {self.block_max} tokens leaves no room to copy in a context of {self.n_ctx}",
                help=f"use block_max <= {self.n_ctx - 3}, or a longer context",
            )
        if not 0.0 <= self.bigram_frac <= 1.0:
            raise ByroteError(f"bigram_frac is {self.bigram_frac}", help="it is a probability, 0 to 1")
        if not 1 <= self.bigram_successors <= self.d_vocab - 1:
            raise ByroteError(
                f"bigram_successors is {self.bigram_successors}", help=f"choose 1 to {self.d_vocab - 1}"
            )

    @property
    def inducible_frac(self) -> float:
        """Share of predicted tokens inside the second or a later block, but for the first of the second."""
        lengths = range(self.block_min, self.block_max + 1)
        return sum((self.n_ctx - length - 1) / self.n_ctx for length in lengths) / len(lengths)
