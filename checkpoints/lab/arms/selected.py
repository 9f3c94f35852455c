"""Real data chosen from more: by two models, or by how much they repeat themselves. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.arms.part import Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Epochs

CHOSEN_BY = ("difference", "fewest_repeats", "most_repeats", "random")


@dataclass(frozen=True)
class Selected(Corpus):
    """Of several real sequences for each place, those with the highest score.

    Attributes:
        large, small: the runs of the two models of "difference", which no other score needs.
        candidates: real sequences for each that is chosen, 2 or more: the first of the source's stream for training.
        by: "difference", log P_large - log P_small over all tokens (MiniPLM); "fewest_repeats" and "most_repeats", by
            the number of tokens whose bigram stood earlier in the sequence; or "random", the control.
    """

    name: ClassVar[str] = "selected"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.difference"
    about: ClassVar[str] = "real sequences chosen from more, by two models or by their repeats"
    words: ClassVar[str] = "{share} of the data chosen from {candidates} times as much, by {by}"
    control: ClassVar[str] = "a random part of the same candidates"
    paper: ClassVar[str] = "Gu et al. 2024 (MiniPLM), arXiv:2410.17215; Li et al. 2023, arXiv:2310.10226"
    rank: ClassVar[int] = 1
    runs: ClassVar[tuple[str, ...]] = ("large", "small")

    large: str = ""
    small: str = ""
    candidates: int = 4
    by: str = "difference"

    def __post_init__(self) -> None:
        super().__post_init__()
        by_models = self.by == "difference"
        self.require(bool(self.large) or not by_models, "large", "the run of the larger model")
        self.require(bool(self.small) or not by_models, "small", "the run of the smaller model")
        self.require(2 <= self.candidates <= 64, "candidates", "2 to 64")
        self.require(self.by in CHOSEN_BY, "by", " or ".join(CHOSEN_BY))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """A random part of the same candidates, and the source as it comes."""
        settings = {name: getattr(self, name) for name in self.settings()}
        as_it_comes = (Epochs(self.share, self.corpus),) if self.corpus else ()
        return {
            "a random part": (type(self)(**{**settings, "by": "random", "large": "", "small": ""}),),
            "the source": as_it_comes,
        }
