"""Claim 30, in three parts: in a linear model, replacing data adds up, accumulating and editing are bounded."""

from __future__ import annotations

import math

import numpy as np

from byrote.probes.claims.linear_models import GENERATIONS, generation_rows
from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "linear-generations",
    "least squares on its own labels, 8 generations of 60 samples in 10 dimensions, 1,000 simulations a seed",
    rows=generation_rows,
    seeds=10,
    full_seeds=10,
    seconds=0.5,
)
_UNIT = "times the excess risk of a fit to real data"
_SERIES = math.pi**2 / 6
_PICTURE = Picture(
    "steps",
    "excess_risk",
    tuple(Place(GRID.name, arm) for arm in ("replace", "accumulate", "edit a quarter", "edit half")),
    step="generation",
)


def _slope(runs: Runs) -> Effects:
    """Growth of the risk per generation, minus the 1 of the theory."""
    place = Place(GRID.name, "replace")
    seeds = runs.seeds(place)
    curves = [runs.curve(place, "excess_risk", seed) for seed in seeds]
    slopes = np.array([np.polyfit(steps, values, 1)[0] for steps, values in curves])
    last = np.mean([values[-1] for _, values in curves])
    return Effects(
        slopes - 1,
        f"the risk grows by {slopes.mean():.2f} per generation, to {last:.2f} at generation {GENERATIONS}",
    )


def _above(runs: Runs, arm: str, bound: float) -> Effects:
    place = Place(GRID.name, arm)
    seeds = runs.seeds(place)
    last = runs.final(place, "excess_risk", seeds)
    return Effects(last - bound, f"{last.mean():.2f} at generation {GENERATIONS}")


_REASON = "a twentieth of the risk of a fit to real data"
CLAIMS = (
    Claim(
        30,
        "linear-replace",
        "collapse",
        "In a linear model that is trained on nothing but its predecessor's labels, test error grows in proportion to the generation.",
        "Theory: sigma^2 d / (T - d - 1) x n",
        "slope of the excess risk over generations, minus 1",
        "excess_risk",
        f"{_UNIT}, per generation",
        Rule("stays", 0.05),
        _REASON + ", per generation",
        (GRID.name,),
        _slope,
        picture=_PICTURE,
    ),
    Claim(
        30,
        "linear-accumulate",
        "collapse",
        "In a linear model that is trained on all earlier data, test error stays below a finite bound.",
        "Theory: at most sigma^2 d / (T - d - 1) x pi^2 / 6",
        "excess risk at generation 8, minus pi^2 / 6",
        "excess_risk",
        _UNIT,
        Rule("falls", 0.05),
        _REASON,
        (GRID.name,),
        lambda runs: _above(runs, "accumulate", _SERIES),
        picture=_PICTURE,
    ),
    Claim(
        30,
        "linear-edit",
        "toedit",
        "In a linear model whose labels are edited and not replaced, test error stays below a finite bound.",
        "Theory: at most 2 sigma^2 d / (T - d - 1)",
        untestable="the bound needs few edits, and how many the theorem allows was not settled before the runs: where the first "
        "edit relabels a quarter of the data, and each further one half as much, the excess risk ends at 1.83, below the bound of 2; where "
        "it relabels half, at 2.51",
    ),
)
