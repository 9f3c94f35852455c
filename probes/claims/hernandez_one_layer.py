"""Claim 9: the inverted U shows in models of one layer too."""

from __future__ import annotations

import math

from byrote.probes.claims.hernandez_grids import DOSES, ONE_LAYER
from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import inverted_u, inverted_u_onsets
from byrote.probes.degrade.verdicts import Rule

_DOSES = ONE_LAYER.places(*DOSES)

CLAIMS = (
    Claim(
        9,
        "hernandez-one-layer",
        "hernandez",
        "Models of one layer of attention, which have no induction heads, are harmed most by an intermediate number of repeats too.",
        "1 layer, attention alone: double descent in the number of repeats (figure 19)",
        "test loss at the worst pool inside the range (chosen on the other seeds) minus the higher one of both ends, P512 and P1",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        "e^0.05: the probability of each token changes by a twentieth",
        (ONE_LAYER.name,),
        lambda runs: inverted_u(runs, _DOSES, "test_loss"),
        lambda runs: inverted_u_onsets(runs, _DOSES, "test_loss"),
        Rule("rises", math.log(1.1), kind="ranks"),
        exchange=_DOSES,
        picture=Picture("doses", "test_loss", (*ONE_LAYER.places("none"), *_DOSES)),
    ),
)
