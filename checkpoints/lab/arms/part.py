"""What a part of an arm is: its settings, its control, and what it does with the batches. No numpy: help reads it too.

An arm is a list of parts. Fresh sequences of the source come first in every batch; each part that takes places has the next
ones, in the order of the list. A part may also change whole batches: the tokens, or which of them count in the loss.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.settings import Configured

MAX_CORPUS = 1 << 22  # sequences


class Part(Configured):
    """One part of an arm: a frozen dataclass of settings derives from it. Whatever it draws is a function of step number and seed.

    Attributes:
        about: what it does with batches, for the command line.
        words: what a run was trained on, for report and dashboard; `{name}` stands for a setting.
        control: what runs of it are compared with, in words; `controls` has the same as parts.
        paper: where it comes from.
        rank: where its runs stand among those of other arms, the lowest first.
        repeats: it repeats sequences on purpose.
        left_out: what would stand in its places is left out of the batch.
        synthetic: what stands in its places was sampled from a model.
        by_repeat_frac: its settings are `share` and perhaps `pool_size` alone, the `repeat_frac` and `pool_size` of an `Arm`.
        runs: names of the settings that name other runs, which have to be complete before it is trained.
        holds_control: what its runs are compared with is part of them, so that they need no other arm.
        reads_weights: what is made of the runs it names depends on their weights, and not on what they were trained on alone.
        gives_weights: what is made before training are the weights that it begins with, by their names.
        changes_model: `install(part, model)` of `made_by` changes what the model computes in training; such runs are not stacked.
        changes_last: it leaves out tokens of whole batches, whatever stands there after all other parts have changed them.
        stored: its sequences are made before training although no run is named.
        newer: settings that came later: at their default a series does not name them, as those before it did not.
        chained: in a grid, `iterations = n` makes a chain of n arms of it, each with the one before as its `generator`.
        made_by: dotted name of the module that does the work, imported when it is first needed: `inputs(part, places, runs)`
            where runs are named or sequences are stored, else `change(part, batches, places, first_step)`.
    """

    what: ClassVar[str] = "arm"
    about: ClassVar[str]
    words: ClassVar[str]
    control: ClassVar[str]
    paper: ClassVar[str] = ""
    rank: ClassVar[int] = 1
    repeats: ClassVar[bool] = False
    left_out: ClassVar[bool] = False
    synthetic: ClassVar[bool] = False
    by_repeat_frac: ClassVar[bool] = False
    runs: ClassVar[tuple[str, ...]] = ()
    made_by: ClassVar[str] = ""
    reads_weights: ClassVar[bool] = True
    gives_weights: ClassVar[bool] = False
    holds_control: ClassVar[bool] = False
    changes_model: ClassVar[bool] = False
    changes_last: ClassVar[bool] = False
    stored: ClassVar[bool] = False
    chained: ClassVar[bool] = False
    newer: ClassVar[tuple[str, ...]] = ()

    def definition(self) -> dict[str, Any]:
        """What the manifest of a series says of it."""
        definition = self.values()
        for setting in fields(self):  # type: ignore[arg-type]
            if setting.name in self.newer and definition[setting.name] == setting.default:
                del definition[setting.name]
        return {"kind": self.name, **definition}

    @property
    def fresh_frac_taken(self) -> float:
        """Share of each batch, 0 to 1, that is not fresh sequences because of it."""
        return 0.0

    @property
    def made_before(self) -> bool:
        """Whether something is made for it before training."""
        return bool(self.runs) or self.stored

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """What runs of it are compared with: what it is called -> the parts of an arm; none is the unique arm."""
        return {"unique": ()}

    def n_places(self, batch: int) -> int:
        """Places of a batch of this size that are its own."""
        return 0

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Raise a ByroteError where this batch size, or this length of training, cannot realise it."""

    def n_stored(self, places: Any) -> int:
        """Sequences that are made before training and stored with the series; weights apart."""
        return 0

    def inputs(self, places: Any, runs: Any) -> Any:
        """What has to be made before training, once: it is written to the series' `data/` and read from there.

        Args:
            places: `Places`, without inputs.
            runs: (value of a setting in `runs`, step or 0 for the last) -> `OtherRun`.

        Returns:
            `Made`, or None where nothing is needed.
        """
        return importlib.import_module(self.made_by).inputs(self, places, runs) if self.made_before else None

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """What stands in its places in each of some steps: token ids [n_steps, n_places, n_ctx + 1]."""
        raise NotImplementedError(f"the part {self.name} fills no places")

    def change(self, batches: Any, places: Any, first_step: int) -> Any:
        """Whole batches as they are trained on.

        Args:
            batches: `Batches`, after every part has its places.
            places: `Places`; `n` is 0 where it takes none.
            first_step: of the batches.
        """
        if self.made_before or not self.made_by:
            return batches
        return importlib.import_module(self.made_by).change(self, batches, places, first_step)

    def pool(self, places: Any) -> Any:
        """`Sequences` of which the series says how often each was trained on; None where there are none."""
        return None

    def counts(self, places: Any, n_steps: int) -> Any:
        """How often each sequence of its pool has been trained on after some steps: [pool]."""
        raise NotImplementedError(f"the part {self.name} has no pool")


@dataclass(frozen=True)
class Placed(Part):
    """A part that takes places.

    Attributes:
        share: of each batch, above 0 and at most 1; places are rounded to whole ones.

    Raises:
        ByroteError: another share.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        self.require(0.0 < self.share <= 1.0, "share", "a share above 0 and at most 1")

    @property
    def fresh_frac_taken(self) -> float:
        """Its share."""
        return self.share

    def n_places(self, batch: int) -> int:
        """Its share of the batch, rounded."""
        return round(self.share * batch)

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Refuse a share of less than one place."""
        if self.n_places(batch) < 1:
            raise ByroteError(
                f"a share of {self.share} of a batch of {batch} is less than one sequence",
                help="use a larger batch or another share",
            )


@dataclass(frozen=True)
class Corpus(Placed):
    """A part whose places show sequences of a corpus.

    Attributes:
        share: see `Placed`.
        corpus: sequences in it, gone through in one seeded order after another; 0 for as many as training shows, each once.

    Raises:
        ByroteError: a corpus of no size.
    """

    share: float = 1.0
    corpus: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.corpus <= MAX_CORPUS, "corpus", f"0 to {MAX_CORPUS}")

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Refuse a corpus that training does not go through once, or that is too large to be made."""
        super().check(batch=batch, steps=steps)
        if steps is None:
            return
        shown = self.n_places(batch) * steps
        if self.corpus > shown:
            raise ByroteError(
                f"a corpus of {self.corpus} is not used up by {steps} steps of {self.n_places(batch)} sequences",
                help=f"use a corpus of at most {shown}, or train longer",
            )
        if not self.corpus and self.made_before and shown > MAX_CORPUS:
            raise ByroteError(
                f"{steps} steps of {self.n_places(batch)} sequences are {shown:,}, more than the lab generates beforehand",
                help=f"set corpus to at most {MAX_CORPUS:,}; it is then used for several epochs",
            )

    def fill(self, places: Any, first_step: int, n_steps: int) -> Any:
        """Sequences that were made before training."""
        return places.stored("tokens", places.rows(first_step, n_steps, corpus=self.corpus))

    def size(self, places: Any) -> int:
        """Sequences in the corpus; where each is shown once, also those of the batch that would follow the last step."""
        return self.corpus or places.n * places.n_batches

    def n_stored(self, places: Any) -> int:
        """The corpus, where it is made before training."""
        return self.size(places) if self.made_before else 0
