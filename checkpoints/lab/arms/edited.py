"""Token editing: what a prior model finds too predictable is drawn anew. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.arms.part import Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Epochs

EDITED = ("any", "no_copies", "no_repeats", "repeats", "as_many_elsewhere")


@dataclass(frozen=True)
class Edited(Corpus):
    """Sequences of the source in which tokens that a prior expects are drawn anew from it (Zhu et al. 2024, ToEdit).

    A token x_t with P(x_t | x_<t) >= `threshold` under the prior, which reads the unedited sequence, is replaced by a draw from
    the prior's `top_k` likeliest tokens, renormalised. BOS is neither edited nor drawn.

    Attributes:
        prior: the run whose model is the prior.
        step: written step of it; 0 for its last.
        threshold: p, above 0 and at most 1.
        top_k: tokens that a new one is drawn from.
        edited: which tokens may be: "any"; "no_copies", all but those that the source's labels call copies; "no_repeats",
            all but those whose bigram stood earlier in the sequence, what a copy predicts (no labels needed);
            "repeats", only those; "as_many_elsewhere", as many as "any" edits of each 512 sequences, none of them a repeat: those that the prior finds
            most probable.
        again: the sequences are those that the prior was trained on, edited before, and not those of the source.
    """

    name: ClassVar[str] = "edited"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.editing"
    about: ClassVar[str] = "tokens that a trained run finds too predictable are resampled from it"
    words: ClassVar[str] = "{share} of the data edited where {prior} is at least {threshold} sure ({edited})"
    control: ClassVar[str] = "the same sequences without edits"
    paper: ClassVar[str] = "Zhu et al. 2024 (ToEdit), arXiv:2412.14689"
    rank: ClassVar[int] = 0
    synthetic: ClassVar[bool] = False
    runs: ClassVar[tuple[str, ...]] = ("prior",)

    prior: str = ""
    step: int = 0
    threshold: float = 0.99
    top_k: int = 8
    edited: str = "any"
    again: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.prior != "", "prior", "the run whose model is the prior")
        self.require(self.step >= 0, "step", "a written step, or 0 for the last")
        self.require(0 < self.threshold <= 1, "threshold", "a probability above 0")
        self.require(self.top_k >= 1, "top_k", "1 or more")
        self.require(self.edited in EDITED, "edited", " or ".join(EDITED))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """The same sequences, unedited."""
        return {"unedited": (Epochs(self.share, self.corpus),) if self.corpus else ()}
