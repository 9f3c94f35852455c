"""Claim 16: without its induction heads a small model does not copy in context."""

from __future__ import annotations

from byrote.probes.claims.induction_grids import HEADS
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.degrade.verdicts import Rule

_PLACE = HEADS.places("unique")[0]


def _most(runs: Runs) -> Effects:
    """Loss that is missing without the induction heads, beyond half of what copying is worth."""
    seeds = runs.seeds(_PLACE)
    change, gain = (runs.final(_PLACE, metric, seeds) for metric in ("joint_change", "load_gain"))
    return Effects(
        change - 0.5 * gain,
        f"copying is worth {gain.mean():.2f} nats, of which {change.mean():.2f} are lost without these heads",
    )


CLAIMS = (
    Claim(
        16,
        "olsson-ablation",
        "olsson",
        "In small models of attention alone, induction heads do most of the in-context learning: without them it is lost.",
        "Pattern-preserving ablation: induction heads account for most of the in-context learning score",
        "rise of the loss on repeated tokens without the heads that match prefixes and raise what followed (means in place of their "
        "output), minus half of what copying is worth",
        "joint_change",
        "nats",
        Rule("rises", 0.05),
        "e^0.05: the probability of each token changes by a twentieth",
        (HEADS.name,),
        _most,
        revised="heads were removed one at a time, until one run of the recipe showed that four redundant heads hide what each is worth",
        picture=Picture("steps", "joint_change", (_PLACE,)),
    ),
)
