"""Claim 13, in two parts: training on repeats leaves a model that learns other data more slowly, and it catches up late."""

from __future__ import annotations

import math

import numpy as np

from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import difference, onset_ratio
from byrote.probes.claims.synthetic_grids import NATS
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "ossification",
    "2 layers of attention on text from one table, then on text from another",
    file="ossification",
    sizes=("d24",),
    seconds=2.5,
)
_SCRATCH, _UNIQUE, _REPEATED = GRID.places("scratch", "after-unique", "after-repeated")
_EARLY = 0.25  # of training on the new data
_PICTURE = Picture("steps", "test_loss", (_SCRATCH, _UNIQUE, _REPEATED))


def against_scratch(runs: Runs) -> Effects:
    """Test loss on the new data after repeats, minus that of fresh weights."""
    seeds = runs.seeds(_SCRATCH, _UNIQUE, _REPEATED)
    scratch, unique, repeated = (
        runs.final(place, "test_loss", seeds).mean() for place in (_SCRATCH, _UNIQUE, _REPEATED)
    )
    found = difference(runs, _SCRATCH, _REPEATED, "test_loss")
    return Effects(
        found.values,
        f"at the end {scratch:.3f} from fresh weights, {unique:.3f} after unique data, {repeated:.3f} after repeats",
    )


def catching_up(runs: Runs) -> Effects:
    """By how much the gap between repeats and unique data before shrinks from a quarter of the training to its end."""
    effects, early = [], []
    for seed in runs.seeds(_UNIQUE, _REPEATED):
        (steps, before), (_, after) = (runs.curve(place, "test_loss", seed) for place in (_UNIQUE, _REPEATED))
        at = int(np.searchsorted(steps, _EARLY * steps[-1]))
        gaps = after - before
        effects.append(gaps[at] - gaps[-1])
        early.append(gaps[at])
    values = np.array(effects)
    return Effects(
        values,
        f"the gap is {np.mean(early):.3f} nats at a quarter of the training and {np.mean(early) - values.mean():.3f} at its end",
    )


CLAIMS = (
    Claim(
        13,
        "hernandez-ossification",
        "hernandez",
        "A model trained on repeats and then on other data does worse than one trained on the other data alone.",
        "f 90% at the worst number of repeats, then Python: 1.6 times smaller in effect than training from scratch",
        "test loss on the other table after as many steps on it, minus that of fresh weights; onset: where copying appears",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (GRID.name,),
        against_scratch,
        lambda runs: onset_ratio(runs, _SCRATCH, _REPEATED),
        Rule("rises", math.log(1.1), kind="ranks"),
        exchange=(_SCRATCH, _REPEATED),
        picture=_PICTURE,
    ),
    Claim(
        13,
        "hernandez-catching-up",
        "hernandez",
        "A model trained on repeats and then on other data catches up with one that was first trained on unique data.",
        "After several billion tokens it eventually does (figure 12)",
        "gap of test loss between repeats and unique data before, at a quarter of the training on the other table, minus the gap at its end",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (GRID.name,),
        catching_up,
        exchange=(_UNIQUE, _REPEATED),
        picture=_PICTURE,
    ),
)
