"""Effects of arms of the grids of made text, in every table and width: what several findings compare."""

from __future__ import annotations

import math
from collections.abc import Callable

from byrote.probes.claims.finding_grids import MADE
from byrote.probes.claims.record import Effects, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import compared, in_every_setting, onset_ratio
from byrote.probes.degrade.verdicts import Rule

LATER = Rule("rises", math.log(1.1), kind="ranks")


def places(*arms: str) -> tuple[Place, ...]:
    """The places of some arms in every setting."""
    return tuple(place for grid in MADE for place in grid.places(*arms))


def final(control: str, arm: str, metric: str) -> Callable[[Runs], Effects]:
    """The arm's final value minus the control's, in every setting."""
    return lambda runs: in_every_setting(MADE, lambda at: compared(runs, at(control), at(arm), metric))


def onset(control: str, arm: str) -> Callable[[Runs], Effects]:
    """How many times later copying appears in the arm, in every setting."""
    return lambda runs: in_every_setting(MADE, lambda at: onset_ratio(runs, at(control), at(arm)))


def by_arm(metric: str, *arms: str) -> Picture:
    """Final values of arms, in the first of the settings.

    Args:
        metric: drawn.
        arms: in order.
    """
    return Picture("arms", metric, MADE[0].places(*arms))
