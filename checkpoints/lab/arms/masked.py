"""Loss masks, noise and unreliable copies: parts that change whole batches. No numpy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.lab.arms.part import Part

MASKED = ("inducible", "random")
DROPPED_FROM, DROPPED = ("attention", "input", "loss"), ("repeated", "random")
MAX_NGRAM = 64


@dataclass(frozen=True)
class Masked(Part):
    """Tokens that an induction head could predict do not count in the loss (Hapax).

    Attributes:
        masked: "inducible", tokens whose bigram stood earlier in their sequence; "random", as many tokens of each sequence,
            anywhere in it, the control.
    """

    name: ClassVar[str] = "masked"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.masks"
    about: ClassVar[str] = "tokens that a copy predicts are left out of the loss"
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
class RepetitionDropout(Part):
    """Tokens that end an n-gram which stood earlier in their sequence are left out, each with some probability, in every step.

    Attributes:
        rate: that probability, above 0 and at most 1; 0.6 in the paper.
        n: length of the n-grams, 2 or more.
        how: "attention" (no position attends to the token, itself included: the paper's), "input" (BOS is read in its place,
            which stands nowhere else but at the beginning; what is predicted stays) or "loss" (predicting it does not count).
        dropped: "repeated"; or "random", as many tokens of each sequence, anywhere in it, the control.
    """

    name: ClassVar[str] = "repetition_dropout"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.masks"
    about: ClassVar[str] = "tokens that repeat an n-gram of their sequence are left out with some probability"
    words: ClassVar[str] = "unique data, {rate} of the {dropped} tokens ({n}-grams) dropped from the {how}"
    control: ClassVar[str] = "as many tokens of each sequence dropped at random; unique"
    paper: ClassVar[str] = "Li et al. 2023 (Repetition In Repetition Out), arXiv:2310.10226"
    rank: ClassVar[int] = 1
    changes_last: ClassVar[bool] = True

    rate: float = 0.6
    n: int = 2
    how: str = "attention"
    dropped: str = "repeated"

    def __post_init__(self) -> None:
        self.require(0 < self.rate <= 1, "rate", "a probability above 0")
        self.require(2 <= self.n <= MAX_NGRAM, "n", f"2 to {MAX_NGRAM}")
        self.require(self.how in DROPPED_FROM, "how", " or ".join(DROPPED_FROM))
        self.require(self.dropped in DROPPED, "dropped", " or ".join(DROPPED))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """As many tokens at random, and every token."""
        at_random = type(self)(**{**self.values(), "dropped": "random"})
        return {"as many at random": (at_random,), "unique": ()}

    def change(self, batches: Any, places: Any, first_step: int) -> Any:
        """Batches with these tokens left out."""
        return importlib.import_module(self.made_by).drop_repetition(self, batches, places, first_step)


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
    about: ClassVar[str] = "copies remain in a share of the sequences, and only in some of their places"
    words: ClassVar[str] = "copies in {repeating} of the sequences, of reliability {reliability}"
    control: ClassVar[str] = "unique: every copy; or none, both settings 0"
    paper: ClassVar[str] = "Aoyama et al. 2025, arXiv:2511.16893"
    rank: ClassVar[int] = 1

    repeating: float = 0.1
    reliability: float = 1.0

    def __post_init__(self) -> None:
        self.require(0 <= self.repeating <= 1, "repeating", "a share, 0 to 1")
        self.require(0 <= self.reliability <= 1, "reliability", "a probability, 0 to 1")
