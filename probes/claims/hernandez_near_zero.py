"""Claim 2: test loss is worst where the loss on what is repeated nears zero."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.hernandez_grids import DOSES, TILED
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import final_values
from byrote.probes.degrade.verdicts import Rule
from byrote.probes.rules import NEAR_ZERO_FRAC

_DOSES = TILED.places(*DOSES)
_LOSSES = ("pool_whole_loss", "fresh_whole_loss")


def distance(runs: Runs) -> Effects:
    """Grid steps from the pool whose loss first nears zero, as pools get smaller, to the worst pool."""
    seeds = runs.seeds(*_DOSES)
    test, pool, fresh = (final_values(runs, _DOSES, metric, seeds) for metric in ("test_loss", *_LOSSES))
    near = pool < NEAR_ZERO_FRAC * fresh
    first = np.where(near.any(1), near.argmax(1), len(_DOSES))
    worst = test.argmax(1)
    return Effects(
        (worst - first).astype(np.float64),
        f"worst at pools of {_named(worst)}, loss on the pool below {NEAR_ZERO_FRAC:g} of that on fresh sequences from {_named(first)} on",
    )


def _named(places: np.ndarray) -> str:
    return ", ".join(
        dict.fromkeys("none" if i == len(DOSES) else DOSES[i][1:] for i in sorted(places.tolist()))
    )


CLAIMS = (
    Claim(
        2,
        "hernandez-near-zero",
        "hernandez",
        "Test loss is worst where the loss on the repeated data approaches zero.",
        "The peak coincides with a near-zero loss on the repeated subset (figure 2); no threshold is printed",
        "steps of the grid of pools from the first one whose loss is below a tenth of that on fresh sequences, all tokens counted in "
        "both, to the one with the worst test loss",
        "test_loss",
        "steps of the grid",
        Rule("stays", 1.5),
        "within one step; pools lie between steps, so that half a step is added",
        (TILED.name,),
        distance,
        exchange=_DOSES,
        exchanged=_LOSSES,
        picture=Picture("doses", "pool_whole_loss", _DOSES),
        revised="the loss on the pool was that of tokens which no copy predicts, compared with the loss of all tokens on fresh data, and "
        "the claim was not reproduced by it (-2.8 steps); now both are of all tokens, as the paper's training loss on the repeated "
        "data is. Losses of all tokens in the logs of runs that were already trained had been seen",
    ),
)
