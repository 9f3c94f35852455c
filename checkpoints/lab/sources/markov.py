"""In-context Markov chains (Edelman et al. 2024): each sequence has a transition matrix of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.sources.contract import Source


@dataclass(frozen=True)
class Markov(Source):
    """Each row of a sequence's transition matrix is drawn from a symmetric Dirichlet; the first token is uniform.

    Attributes:
        d_vocab: number of token ids, BOS included: one more than the chain has states.
        n_ctx: tokens per sequence, BOS included.
        concentration: of the Dirichlet, the same for every state; 1 is uniform over matrices.
        bos_token_id: the first token of every sequence, and nowhere else.

    Raises:
        ByroteError: values that cannot make such a sequence.
    """

    name: ClassVar[str] = "markov"
    about: ClassVar[str] = (
        "a Markov chain whose matrix is drawn afresh for every sequence (Edelman et al. 2024)"
    )
    drawn_by: ClassVar[str] = "byrote.checkpoints.lab.sources.chains"
    purpose: ClassVar[str] = "markov/{stream}"

    d_vocab: int = 5
    n_ctx: int = 48
    concentration: float = 1.0
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        self.require_shape(table=self.d_vocab)
        self.require(self.d_vocab <= 1025, "d_vocab", "at most 1025")
        self.require(0.01 <= self.concentration <= 1000, "concentration", "0.01 to 1000")
