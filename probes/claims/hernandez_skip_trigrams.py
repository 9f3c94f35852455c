"""Claim 10: models of one layer lose the copying that skip-trigrams do."""

from __future__ import annotations

from byrote.probes.claims.hernandez_grids import DOSES, ONE_LAYER
from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import against_worst
from byrote.probes.degrade.verdicts import Rule

_DOSES = ONE_LAYER.places(*DOSES)
_CONTROL = ONE_LAYER.places("none")[0]

CLAIMS = (
    Claim(
        10,
        "hernandez-skip-trigrams",
        "hernandez",
        "Models of one layer trained on repeated data lose the copying by skip-trigrams that models without repeats have.",
        "1 layer, f 10%: the second half of a name that occurred before, P above 97% without repeats, below 4% with them (figure 8)",
        "log odds of b after [a][b] ... [a] against a context without b, at the worst pool inside the range, minus the same without "
        "repeats",
        "pair_log_odds",
        "nats of log odds",
        Rule("falls", 0.05),
        "e^0.05: the odds change by a twentieth",
        (ONE_LAYER.name,),
        lambda runs: against_worst(runs, _CONTROL, _DOSES, "pair_log_odds"),
        exchange=(_CONTROL, *_DOSES),
        picture=Picture("arms", "pair_log_odds", (_CONTROL, *_DOSES)),
    ),
)
