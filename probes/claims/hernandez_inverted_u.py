"""Claim 1: damage is an inverted U in how often data are repeated."""

from __future__ import annotations

import math

from byrote.probes.claims.hernandez_grids import DOSES, TILED
from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import inverted_u, inverted_u_onsets
from byrote.probes.degrade.verdicts import Rule

_DOSES = TILED.places(*DOSES)

CLAIMS = (
    Claim(
        1,
        "hernandez-inverted-u",
        "hernandez",
        "At a fixed share of repeated data, few repeats of much data and very many repeats of little data harm least; test loss is "
        "worst in between.",
        "800M parameters, a tenth of the data repeated 100 times: test loss of a model half that size",
        "test loss at the worst pool inside the range (chosen on the other seeds) minus the higher one of both ends, P512 and P1",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        "e^0.05: the probability of each token changes by a twentieth",
        (TILED.name,),
        lambda runs: inverted_u(runs, _DOSES, "test_loss"),
        lambda runs: inverted_u_onsets(runs, _DOSES, "test_loss"),
        Rule("rises", math.log(1.1), kind="ranks"),
        exchange=_DOSES,
        picture=Picture("doses", "test_loss", (*TILED.places("none"), *_DOSES)),
    ),
)
