"""Claim 32: what is rare is lost first over generations."""

from __future__ import annotations

from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import difference
from byrote.probes.claims.synthetic_grids import GENERATIONS, NATS
from byrote.probes.degrade.verdicts import Rule

_REAL, _LAST = GENERATIONS.places("real", "replace-g4")


def _tails(runs: Runs) -> Effects:
    """Rise of the loss on rare bigrams, beyond that on common ones."""
    rare, common, copies = (
        difference(runs, _REAL, _LAST, metric).values
        for metric in ("rare_table_part_loss", "table_part_loss", "copy_part_loss")
    )
    return Effects(
        rare - common,
        f"loss on rare bigrams {rare.mean():+.2f}, on common ones {common.mean():+.2f}, on copied tokens {copies.mean():+.2f}",
    )


CLAIMS = (
    Claim(
        32,
        "collapse-tails",
        "collapse",
        "Over generations of models trained on each other's text, the tails of the distribution vanish first.",
        "OPT-125m on wikitext2: later generations write more of what the first finds probable; tails are cut (a theorem for discrete "
        "states)",
        "rise, from generation 0 to 4, of the loss on tokens that the table lets anything follow, minus that on tokens that follow by the table",
        "rare_table_part_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (GENERATIONS.name,),
        _tails,
        exchange=(_REAL, _LAST),
        picture=Picture(
            "arms",
            "rare_table_part_loss",
            GENERATIONS.places("real", "replace-g1", "replace-g2", "replace-g3", "replace-g4"),
        ),
    ),
)
