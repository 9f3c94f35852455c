"""Arms of repeated data and their controls. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.part import Corpus, Part, Placed


@dataclass(frozen=True)
class Unique(Part):
    """Fresh data alone."""

    name: ClassVar[str] = "unique"
    about: ClassVar[str] = "every sequence new"
    words: ClassVar[str] = "unique data"
    control: ClassVar[str] = "none: it is the control of most arms"
    rank: ClassVar[int] = 3
    by_repeat_frac: ClassVar[bool] = True


@dataclass(frozen=True)
class Control(Placed):
    """The fresh part of another arm's batches, alone."""

    name: ClassVar[str] = "control"
    about: ClassVar[str] = (
        "the unique part of the repeated arm's batches, alone: the same unique tokens, no repeats"
    )
    words: ClassVar[str] = "control (the unique {rest} of the data alone, none repeated)"
    control: ClassVar[str] = "none: it is a control, of arms that take a share of each batch"
    rank: ClassVar[int] = 2
    left_out: ClassVar[bool] = True
    by_repeat_frac: ClassVar[bool] = True


@dataclass(frozen=True)
class Repeated(Placed):
    """A share of each batch from a small pool.

    Attributes:
        pool_size: sequences in the pool, drawn from the source.
    """

    name: ClassVar[str] = "repeated"
    about: ClassVar[str] = "a share of each batch comes from a small pool"
    words: ClassVar[str] = "{share} of the data repeated, from a pool of {pool_size}"
    control: ClassVar[str] = "control: the unique part alone; unique: the same number of tokens, all new"
    paper: ClassVar[str] = "Hernandez et al. 2022, arXiv:2205.10487"
    rank: ClassVar[int] = 0
    repeats: ClassVar[bool] = True
    by_repeat_frac: ClassVar[bool] = True

    pool_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.pool_size >= 1, "pool_size", "at least 1 sequence, such as 64")

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """The unique part alone, and unique data."""
        return {"control": (Control(self.share),), "unique": ()}

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Refuse a pool that training does not use up."""
        super().check(batch=batch, steps=steps)
        n_repeated = self.n_places(batch)
        if steps is not None and self.pool_size > n_repeated * steps:
            raise ByroteError(
                f"a pool of {self.pool_size} is not used up by {steps} steps of {n_repeated} repeated sequences",
                help=f"use a pool of at most {n_repeated * steps}, or train longer",
            )

    def pool(self, places: Any) -> Any:
        """The pool, drawn from the source's stream for it."""
        return places.source.draw(seed=places.seed, stream="pool", index=0, n=self.pool_size)

    def members(self, places: Any, first_step: int, n_steps: int) -> Any:
        """Which pool sequences each step repeats, [n_steps, n_places].

        The pool is gone through in one seeded order after another, so that at any step no sequence has been used more
        than once oftener than another.
        """
        return places.in_rounds("pool_order", first_step, n_steps, size=self.pool_size)

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """The pool sequences that each step repeats."""
        return places.pool.wide[self.members(places, first_step, n_steps)]

    def counts(self, places: Any, n_steps: int) -> Any:
        """How often each pool sequence has been trained on."""
        return places.rounds_counted("pool_order", n_steps, size=self.pool_size)


@dataclass(frozen=True)
class Epochs(Corpus):
    """Real data of a fixed size, several times over."""

    name: ClassVar[str] = "epochs"
    about: ClassVar[str] = "several epochs over a corpus of the source"
    words: ClassVar[str] = "{share} of the data from a corpus of {corpus} sequences, over and over"
    control: ClassVar[str] = "unique: as many tokens, all new"
    paper: ClassVar[str] = "Muennighoff et al. 2023, arXiv:2305.16264"
    rank: ClassVar[int] = 1
    repeats: ClassVar[bool] = True

    corpus: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.corpus >= 1, "corpus", "at least 1 sequence")

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """Sequences of the corpus: the first of the source's stream for training, in seeded orders."""
        rows = places.rows(first_step, n_steps, corpus=self.corpus)
        return places.originals(self.corpus).wide[rows]
