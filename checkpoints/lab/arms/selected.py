"""Real data chosen by models: difference sampling. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.arms.part import Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Epochs

CHOSEN_BY = ("difference", "random")


@dataclass(frozen=True)
class Selected(Corpus):
    """Of several real sequences for each place, those that a larger model finds likelier than a smaller one (MiniPLM).

    The score of a sequence is log P_large - log P_small, summed over its tokens.

    Attributes:
        large, small: the runs of the two models.
        candidates: real sequences for each that is chosen, 2 or more: the first of the source's stream for training.
        by: "difference", or "random" (a random part of the same candidates, the control).
    """

    name: ClassVar[str] = "selected"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.difference"
    about: ClassVar[str] = "real sequences that a larger model finds likelier than a smaller one"
    words: ClassVar[str] = "{share} of the data chosen from {candidates} times as much, by {by}"
    control: ClassVar[str] = "a random part of the same candidates"
    paper: ClassVar[str] = "Gu et al. 2024 (MiniPLM), arXiv:2410.17215"
    rank: ClassVar[int] = 1
    runs: ClassVar[tuple[str, ...]] = ("large", "small")

    large: str = ""
    small: str = ""
    candidates: int = 4
    by: str = "difference"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.large != "", "large", "the run of the larger model")
        self.require(self.small != "", "small", "the run of the smaller model")
        self.require(2 <= self.candidates <= 64, "candidates", "2 to 64")
        self.require(self.by in CHOSEN_BY, "by", " or ".join(CHOSEN_BY))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """A random part of the same candidates, and the source as it comes."""
        settings = {name: getattr(self, name) for name in self.settings()}
        as_it_comes = (Epochs(self.share, self.corpus),) if self.corpus else ()
        return {"a random part": (type(self)(**{**settings, "by": "random"}),), "the source": as_it_comes}
