"""Training that goes on from another run's weights, on another source, with or without what that run was trained on. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from byrote.checkpoints.lab.arms.part import Corpus, Part
from byrote.checkpoints.lab.arms.repeats import Control


@dataclass(frozen=True)
class Continued(Part):
    """Training begins with the weights of another run; the optimiser and the learning rate's schedule begin anew.

    Attributes:
        initial: the run, of a model of the same shape: in a grid the name of an arm, else its folder as seen from this run's.
        step: written step of it; 0 for its last.
    """

    name: ClassVar[str] = "continued"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.continuing"
    about: ClassVar[str] = "training begins with the weights of another run"
    words: ClassVar[str] = "continued from {initial}"
    control: ClassVar[str] = "unique: the same data from fresh weights"
    paper: ClassVar[str] = "Hernandez et al. 2022, arXiv:2205.10487; Ibrahim et al. 2024, arXiv:2403.08763"
    rank: ClassVar[int] = 1
    runs: ClassVar[tuple[str, ...]] = ("initial",)
    gives_weights: ClassVar[bool] = True

    initial: str = ""
    step: int = 0

    def __post_init__(self) -> None:
        self.require(self.initial != "", "initial", "the run whose weights it begins with")
        self.require(self.step >= 0, "step", "a written step, or 0 for the last")


@dataclass(frozen=True)
class Replay(Corpus):
    """A share of each batch from the source of another run, as that of `Continued`: its old data, drawn with this run's seed.

    Replay of what the old model itself writes is the part `synthetic`.

    Attributes:
        of: the run whose source is drawn from.
    """

    name: ClassVar[str] = "replay"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.continuing"
    about: ClassVar[str] = "a share of each batch comes from the source that another run was trained on"
    words: ClassVar[str] = "{share} of the data from the source of {of}"
    control: ClassVar[str] = "the new part alone; no replay"
    paper: ClassVar[str] = "Ibrahim et al. 2024, arXiv:2403.08763"
    rank: ClassVar[int] = 1
    runs: ClassVar[tuple[str, ...]] = ("of",)
    reads_weights: ClassVar[bool] = False

    of: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.of != "", "of", "the run whose source is drawn from")

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """The new part alone, and new data in its place."""
        return {"the new part alone": (Control(self.share),), "no replay": ()}
