"""What a claim is: a sentence of a paper, what would show it here, and the rule it is judged by, all fixed before the runs. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.degrade.verdicts import Rule

Row = dict[str, Any]
QUICK_SEEDS, FULL_SEEDS = 5, 8


@dataclass(frozen=True)
class Paper:
    """A paper whose claims are judged together, corrected for being several.

    Attributes:
        key: what `byrote reproduce` is called with.
        title: authors, year and title.
        arxiv: its number; "" where it has none.
    """

    key: str
    title: str
    arxiv: str = ""


@dataclass(frozen=True)
class Grid:
    """Runs that claims share; they are made once.

    Attributes:
        name: of the grid.
        what: in a sentence, what is trained on what.
        rows: of one seed, all arms, where runs are computed and nothing is trained: (seed) -> rows of the table.
        file: name of the lab's grid, where runs are trained.
        sizes: names of its sizes; others of the file are left out.
        probes: measured on the steps `measured`.
        measured: how many steps of each run the probes see, evenly spaced among those written, the last among them.
        members: whether its planted members are places of their own, see `byrote.probes.claims.members_table`.
        seeds, full_seeds: how many, quick and in full.
        seconds: of one core for one run, quick; a guess for the plan.
    """

    name: str
    what: str
    rows: Callable[[int], Sequence[Row]] | None = None
    file: str = ""
    sizes: tuple[str, ...] = ("",)
    probes: tuple[str, ...] = ()
    measured: int = 1
    members: bool = False
    seeds: int = QUICK_SEEDS
    full_seeds: int = FULL_SEEDS
    seconds: float = 1.0

    def places(self, *arms: str) -> tuple[Place, ...]:
        """The places of some arms, of every size."""
        return tuple(Place(self.name, arm, size) for size in self.sizes for arm in arms)

    def n_seeds(self, *, full: bool) -> int:
        """How many seeds are trained."""
        return self.full_seeds if full else self.seeds


class NotTestable(Exception):
    """Runs that a claim cannot be judged by, whatever they say of it, such as a ladder of sizes that is not monotone.

    Attributes:
        reason: what was measured that rules it out, in a clause.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Effects:
    """What a claim is judged by.

    Attributes:
        values: the effect of each seed, in the claim's unit; of onsets the logarithm of a ratio, infinite for never.
        words: what else the runs show, in a sentence; "" where nothing is to be added.
        others: the same effect in other settings, in which the claim has to hold too.
    """

    values: Float[np.ndarray, " seeds"]
    words: str = ""
    others: tuple[Float[np.ndarray, " seeds"], ...] = ()


@dataclass(frozen=True)
class Picture:
    """How a claim is drawn.

    Attributes:
        kind: "doses" (final value against a fact of the arms), "steps" (curves over training), "arms" (final values), "onsets" (the
            step at which copying appears against the metric, a fact of each arm's data), "extraction" (share extracted against
            duplicates, with its threshold), "capacity" (bits per parameter against the data) or "ladder" (final value against the
            size of the model).
        metric: drawn.
        places: whose runs, in order; of "extraction" members that were never planted are passed over; of a ladder those that others
            are placed on.
        fact: on the x axis of doses.
        labels: what the places are called, in order; the arms' own names where empty.
        step: what steps are, where nothing is trained.
        beside: of a ladder, whose runs are placed on it.
    """

    kind: Literal["doses", "steps", "arms", "onsets", "extraction", "capacity", "ladder"]
    metric: str
    places: tuple[Place, ...]
    fact: str = "epochs"
    labels: tuple[str, ...] = ()
    step: str = "training step"
    beside: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        number: in the list of claims that byrote keeps; 0 for a finding of its own.
        name: what `byrote reproduce` is called with.
        paper: key of the paper.
        statement: the claim, in a sentence.
        reported: what the paper measured, with its number.
        compared: what is compared here, and what the effect is.
        metric: the primary one.
        unit: of the effect.
        rule: direction and smallest effect of interest of the final value.
        reason: why that is the smallest effect.
        grids: names of the grids it needs.
        final: the effect on final values, seed by seed; None where the claim is about onsets alone. It raises `NotTestable` where the
            runs cannot show it.
        onset: the effect on when something appears; None where nothing appears over training.
        onset_rule: of the onset.
        primary: which of the two decides.
        exchange: places whose labels mean nothing under the null; () where the rule compares no arms.
        exchanged: metrics that are exchanged in null comparisons; () exchanges all.
        picture: how it is drawn.
        untestable: why it cannot be judged at this scale; "" where it can.
        revised: what of the rule was chosen after a look at runs, and at which; "" where nothing was.
        full_only: whether its runs take too long for a quick look, so that it is judged in full or not at all.

    Raises:
        ByroteError: a claim that can be judged lacks its effect or its grid.
    """

    number: int
    name: str
    paper: str
    statement: str
    reported: str
    compared: str = ""
    metric: str = ""
    unit: str = ""
    rule: Rule | None = None
    reason: str = ""
    grids: tuple[str, ...] = ()
    final: Callable[[Runs], Effects] | None = None
    onset: Callable[[Runs], Effects] | None = None
    onset_rule: Rule | None = None
    primary: Literal["final", "onset"] = "final"
    exchange: tuple[Place, ...] = ()
    exchanged: tuple[str, ...] = ()
    picture: Picture | None = None
    untestable: str = ""
    revised: str = ""
    full_only: bool = False

    def __post_init__(self) -> None:
        if self.untestable:
            return
        deciding = (self.final, self.rule) if self.primary == "final" else (self.onset, self.onset_rule)
        parts = (*deciding, self.grids, self.reason, self.compared, self.picture)
        if (
            not all(parts)
            or (self.final is None) != (self.rule is None)
            or (self.onset is None) != (self.onset_rule is None)
        ):
            raise ByroteError(
                f"the claim {self.name!r} cannot be judged: it lacks a rule, an effect, a reason, a picture or a grid",
                help="give them, or say in `untestable` why not",
            )
