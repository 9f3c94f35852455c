"""Members and canaries planted in fresh data, each at a count of its own: many experiments in one run. No numpy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.part import Part

TOKENS, PLANTED = ("random", "source"), ("all", "even", "odd")
MAX_MEMBERS = 1 << 16


class _Members(Part):
    """What parts with members of their own have in common; each says how many places they take, `n_uses`."""

    made_by: ClassVar[str] = "byrote.checkpoints.lab.planted_members"

    @property
    def n_uses(self) -> int:
        """Places of the whole run that members take, all together."""
        raise NotImplementedError

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Refuse members that would take more than half of all places."""
        _require_room(self.n_uses, batch=batch, steps=steps)

    def pool(self, places: Any) -> Any:
        """The members, those that are not trained on among them."""
        return importlib.import_module(self.made_by).members(self, places)

    def counts(self, places: Any, n_steps: int) -> Any:
        """How often each member has been trained on."""
        return importlib.import_module(self.made_by).counted(self, places, n_steps)


@dataclass(frozen=True)
class Planted(_Members):
    """Sequences that stand in place of fresh ones 0, 1, 2, 4, ... `most` times, at random places of the whole run.

    The first `per_count` members are never planted: they are what the others are compared with. The next are planted once, and
    each group after it twice as often as the one before. Where each stands depends on seed, length of training and these
    settings but for `planted`: what `even` and `odd` plant stands where it stands in `all`.

    Attributes:
        most: the highest count, a power of two.
        per_count: members of each count.
        tokens: "random" (canaries: uniform token ids) or "source" (sequences of the source's stream for pools).
        planted: "all", or those of "even" or "odd" number alone: whether members depend on one another is what the
            difference between the two says (Bordt and Pawelczyk 2025).
    """

    name: ClassVar[str] = "planted"
    about: ClassVar[str] = "members or canaries are planted in fresh data 1, 2, 4, ... times each"
    words: ClassVar[str] = "unique data with {tokens} sequences planted 1 to {most} times ({planted})"
    control: ClassVar[str] = "members of count 0; unique; every other member alone (even, odd)"
    paper: ClassVar[str] = "Carlini et al. 2019, arXiv:1802.08232; Bordt and Pawelczyk 2025, arXiv:2509.23383"
    rank: ClassVar[int] = 0
    repeats: ClassVar[bool] = True
    holds_control: ClassVar[bool] = True

    most: int = 256
    per_count: int = 16
    tokens: str = "random"
    planted: str = "all"

    def __post_init__(self) -> None:
        power = self.most >= 1 and self.most & (self.most - 1) == 0
        self.require(power and self.most <= MAX_MEMBERS, "most", f"a power of two up to {MAX_MEMBERS}")
        self.require(1 <= self.per_count <= MAX_MEMBERS, "per_count", f"1 to {MAX_MEMBERS}")
        self.require(
            self.n_members <= MAX_MEMBERS, "per_count", f"fewer: at most {MAX_MEMBERS} members in all"
        )
        self.require(self.tokens in TOKENS, "tokens", " or ".join(TOKENS))
        self.require(self.planted in PLANTED, "planted", " or ".join(PLANTED))

    @property
    def n_members(self) -> int:
        """Members of all counts, those that are never planted among them."""
        return self.per_count * (1 + self.most.bit_length())

    @property
    def n_uses(self) -> int:
        """Places of the whole run that they take, all together."""
        return self.per_count * (2 * self.most - 1)

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """No member, and every other one."""
        settings = {name: getattr(self, name) for name in self.settings()}
        halves = {half: (type(self)(**{**settings, "planted": half}),) for half in PLANTED[1:]}
        return {"unique": (), **halves}


@dataclass(frozen=True)
class Subsets(_Members):
    """Members that are the same for all seeds, of which each run is trained on a random part: which ones, its seed says.

    What a model knows of a member because it was trained on it is the difference between runs with it and runs without it
    (counterfactual memorisation). Members stand in place of fresh sequences, `times` each, at random places of the whole run.

    With `experiments` members are in or out together, in so many groups. Which of them the run of an even seed has is a row of a
    Hadamard matrix, and the run of the odd seed after it has just those that this one lacks, so that 12 seeds in a row tell 4
    experiments apart. What each does to every other one is read off all runs (`byrote degrade --measure dependence_matrix`).

    Attributes:
        members: how many there are.
        times: how often a run is trained on each that it has.
        included: share of them that a run has, above 0 and below 1; rounded to whole members. One half with `experiments`.
        tokens: "random" (uniform token ids) or "source" (sequences of the source's stream for pools).
        table: which members; other numbers are others.
        experiments: groups of as many members, those of the first group first; 0 draws every member by itself.
    """

    name: ClassVar[str] = "subsets"
    about: ClassVar[str] = (
        "all seeds share a set of members, and each run is trained on a random subset of it"
    )
    words: ClassVar[str] = (
        "unique data with {included} of {members} shared members, {times} times each ({tokens})"
    )
    control: ClassVar[str] = (
        "runs of other seeds without the member: byrote degrade --measure counterfactual; unique"
    )
    paper: ClassVar[str] = "Zhang et al. 2021, arXiv:2112.12938; Feldman and Zhang 2020, arXiv:2008.03703"
    rank: ClassVar[int] = 0
    repeats: ClassVar[bool] = True
    holds_control: ClassVar[bool] = True

    newer: ClassVar[tuple[str, ...]] = ("experiments",)

    members: int = 64
    times: int = 8
    included: float = 0.5
    tokens: str = "random"
    table: int = 0
    experiments: int = 0

    def __post_init__(self) -> None:
        self.require(2 <= self.members <= MAX_MEMBERS, "members", f"2 to {MAX_MEMBERS}")
        self.require(1 <= self.times <= MAX_MEMBERS, "times", f"1 to {MAX_MEMBERS}")
        self.require(0 < self.included < 1, "included", "a share above 0 and below 1")
        self.require(
            0 < round(self.included * self.members) < self.members,
            "included",
            "a share that leaves members in and out",
        )
        groups = self.experiments == 0 or (
            2 <= self.experiments <= self.members and self.members % self.experiments == 0
        )
        self.require(groups, "experiments", f"0, or 2 or more that divide the {self.members} members evenly")
        self.require(
            self.included == 0.5 or not self.experiments, "included", "0.5 where members are in experiments"
        )
        self.require(self.tokens in TOKENS, "tokens", " or ".join(TOKENS))
        self.require(0 <= self.table < 1 << 31, "table", "0 or more")

    @property
    def n_members(self) -> int:
        """Members, those that a run is not trained on among them."""
        return self.members

    @property
    def n_included(self) -> int:
        """Members that a run is trained on, at most: with experiments a run may have all of them."""
        return self.members if self.experiments else round(self.included * self.members)

    @property
    def n_uses(self) -> int:
        """Places of the whole run that they take, all together and at most."""
        return self.n_included * self.times


def _require_room(n_uses: int, *, batch: int, steps: int | None) -> None:
    if steps is not None and 2 * n_uses > batch * steps:
        raise ByroteError(
            f"{n_uses:,} planted sequences are more than half of the {batch * steps:,} that are trained on",
            help="use a lower count, fewer members of each, or train longer",
        )
