"""Claim 26, in two parts: without a loss on tokens that a copy predicts, induction heads are weaker and the rest is learned as well."""

from __future__ import annotations

from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import difference
from byrote.probes.claims.synthetic_grids import MASKED
from byrote.probes.degrade.verdicts import Rule

_RANDOM, _MASKED = MASKED.places("random", "masked")
_ALL = MASKED.places("unique", "random", "masked")

CLAIMS = (
    Claim(
        26,
        "hapax-heads",
        "hapax",
        "Where tokens that a copy predicts are left out of the loss, induction heads are weaker.",
        "Fewer and weaker induction heads; inductive copying reduced",
        "highest prefix matching of the heads, minus that with as many tokens of each sequence left out at random; this recipe has one "
        "head a layer, so that there is no other head to compare with",
        "prefix_matching",
        "attention fraction",
        Rule("falls", 0.05),
        "one in twenty: a twentieth of the full range",
        (MASKED.name,),
        lambda runs: difference(runs, _RANDOM, _MASKED, "prefix_matching"),
        exchange=(_RANDOM, _MASKED),
        picture=Picture("arms", "prefix_matching", _ALL),
    ),
    Claim(
        26,
        "hapax-rest",
        "hapax",
        "The loss on all other tokens is then no higher.",
        "Loss on tokens that no copy predicts is at most that of the usual training",
        "loss on tokens that follow by the table, minus that with as many tokens of each sequence left out at random",
        "table_part_loss",
        "nats",
        Rule("falls", 0.0),
        "any fall: the claim is that it does not rise",
        (MASKED.name,),
        lambda runs: difference(runs, _RANDOM, _MASKED, "table_part_loss"),
        exchange=(_RANDOM, _MASKED),
        picture=Picture("arms", "table_part_loss", _ALL),
    ),
)
