"""Claim 3: with much of the data repeated, test loss falls, rises and falls again over training."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.hernandez_grids import DESCENT
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import rise_and_fall
from byrote.probes.degrade.verdicts import Rule

_CONTROL, _ARM = DESCENT.places("none", "P32")


def descents(runs: Runs) -> Effects:
    """The smaller of rise and second fall in the arm, minus the same in the control."""
    seeds = runs.seeds(_CONTROL, _ARM)
    control, arm = (
        np.array([rise_and_fall(runs.curve(place, "test_loss", seed)[1]) for seed in seeds])
        for place in (_CONTROL, _ARM)
    )
    return Effects(arm - control, _words(runs, _ARM, seeds))


def _words(runs: Runs, place: Place, seeds: list[tuple[int, int]]) -> str:
    curves = [runs.curve(place, "test_loss", seed) for seed in seeds]
    mean, steps = np.mean([values for _, values in curves], axis=0), curves[0][0]
    top = 1 + int(mean[1:].argmax())
    dip = int(mean[:top].argmin())
    return f"test loss {mean[dip]:.2f} at step {steps[dip]:,.0f}, {mean[top]:.2f} at {steps[top]:,.0f}, {mean[-1]:.2f} at the end"


CLAIMS = (
    Claim(
        3,
        "hernandez-double-descent",
        "hernandez",
        "With nine tenths of the data repeated, test loss falls, rises and falls again over training.",
        "800M parameters, f 90%, 100 to 10,000 repeats: down, up, down (figure 3); f 50%: a long plateau",
        "the smallest of the first fall, the rise after it and the second fall, at a pool of 32, minus the same without repeats",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        "e^0.05: the probability of each token changes by a twentieth",
        (DESCENT.name,),
        descents,
        exchange=(_CONTROL, _ARM),
        picture=Picture("steps", "test_loss", (_CONTROL, _ARM)),
    ),
)
