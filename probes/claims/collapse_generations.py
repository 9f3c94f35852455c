"""Claim 31, in two parts: over generations, replacing data degrades a model and accumulating them does not."""

from __future__ import annotations

import math

from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import difference, onset_ratio
from byrote.probes.claims.synthetic_grids import GENERATIONS, NATS
from byrote.probes.degrade.verdicts import Rule

_REAL = GENERATIONS.places("real")[0]
_REPLACE = GENERATIONS.places(*(f"replace-g{n}" for n in range(1, 5)))
_ACCUMULATE = GENERATIONS.places(*(f"accumulate-g{n}" for n in range(1, 5)))


def _last(runs: Runs, places: tuple[Place, ...], what: str) -> Effects:
    found = difference(runs, _REAL, places[-1], "test_loss")
    seeds = runs.seeds(_REAL, *places)
    means = [runs.final(place, "test_loss", seeds).mean() for place in (_REAL, *places)]
    return Effects(
        found.values, f"{what}: " + ", ".join(f"{mean:.3f}" for mean in means) + " at generations 0 to 4"
    )


CLAIMS = (
    Claim(
        31,
        "collapse-replace",
        "collapse",
        "Where each generation is trained on nothing but samples of the one before, loss on real text rises from generation to generation.",
        "GPT-2 9M and Llama-2 12M to 126M on TinyStories: test loss rises with every iteration",
        "test loss of generation 4 minus that of generation 0; onset: where copying appears",
        "test_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (GENERATIONS.name,),
        lambda runs: _last(runs, _REPLACE, "replaced"),
        lambda runs: onset_ratio(runs, _REAL, _REPLACE[-1]),
        Rule("rises", math.log(1.1), kind="ranks"),
        exchange=(_REAL, _REPLACE[-1]),
        picture=Picture("arms", "test_loss", (_REAL, *_REPLACE)),
    ),
    Claim(
        31,
        "collapse-accumulate",
        "collapse",
        "Where samples are added to all earlier data, loss on real text stays where it was.",
        "The same models: test loss stays flat",
        "test loss of generation 4 minus that of generation 0",
        "test_loss",
        "nats",
        Rule("stays", 0.05),
        NATS,
        (GENERATIONS.name,),
        lambda runs: _last(runs, _ACCUMULATE, "accumulated"),
        picture=Picture("arms", "test_loss", (_REAL, *_ACCUMULATE)),
    ),
)
