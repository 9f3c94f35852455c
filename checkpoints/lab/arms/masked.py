"""Loss masks, noise and unreliable copies: parts that change whole batches. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.arms.part import Part

MASKED = ("inducible", "random")


@dataclass(frozen=True)
class Masked(Part):
    """Tokens that an induction head could predict do not count in the loss (Hapax).

    Attributes:
        masked: "inducible", tokens whose bigram stood earlier in their sequence; "random", as many tokens of each sequence,
            anywhere in it, the control.
    """

    name: ClassVar[str] = "masked"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.masks"
    about: ClassVar[str] = "tokens that a copy predicts do not count in the loss"
    words: ClassVar[str] = "unique data, {masked} tokens left out of the loss"
    control: ClassVar[str] = "as many tokens of each sequence left out at random"
    paper: ClassVar[str] = "Sahin et al. 2025 (Hapax), arXiv:2511.05743"
    rank: ClassVar[int] = 1

    masked: str = "inducible"

    def __post_init__(self) -> None:
        self.require(self.masked in MASKED, "masked", " or ".join(MASKED))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """As many tokens at random, and every token."""
        return {"as many at random": (type(self)("random"),), "unique": ()}


@dataclass(frozen=True)
class Noisy(Part):
    """Every token but BOS is, with some probability, one drawn uniformly.

    Attributes:
        noise_frac: that probability, above 0 and at most 1; a draw may give the token that was there.
    """

    name: ClassVar[str] = "noisy"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.noise"
    about: ClassVar[str] = "tokens are replaced by random ones"
    words: ClassVar[str] = "{noise_frac} of the tokens replaced by random ones"
    control: ClassVar[str] = "unique: the same sequences without noise"
    paper: ClassVar[str] = ""
    rank: ClassVar[int] = 1

    noise_frac: float = 0.1

    def __post_init__(self) -> None:
        self.require(0 < self.noise_frac <= 1, "noise_frac", "a probability above 0")


@dataclass(frozen=True)
class Unreliable(Part):
    """Copies are left in a share of the sequences, and there a token is what it was before with some probability.

    A copy is a token whose bigram stood earlier in its sequence; what takes its place is drawn uniformly from all tokens but BOS.

    Attributes:
        repeating: share of the sequences that keep copies, 0 to 1; in the others every copy is replaced.
        reliability: probability, 0 to 1, that a copy is kept where copies are; a draw may give the token that was there.
    """

    name: ClassVar[str] = "unreliable"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.noise"
    about: ClassVar[str] = "copies are left in a share of the sequences, and not in all their places"
    words: ClassVar[str] = "copies in {repeating} of the sequences, of reliability {reliability}"
    control: ClassVar[str] = "unique: every copy; or none, both settings 0"
    paper: ClassVar[str] = "Aoyama et al. 2025, arXiv:2511.16893"
    rank: ClassVar[int] = 1

    repeating: float = 0.1
    reliability: float = 1.0

    def __post_init__(self) -> None:
        self.require(0 <= self.repeating <= 1, "repeating", "a share, 0 to 1")
        self.require(0 <= self.reliability <= 1, "reliability", "a probability, 0 to 1")
