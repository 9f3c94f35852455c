"""Claims 14 and 15: induction takes two layers, or one whose keys see the token before."""

from __future__ import annotations

import math

from byrote.probes.claims.induction_grids import LAYERS
from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import difference, onset_ratio
from byrote.probes.degrade.verdicts import Rule

_ONE, _TWO, _SMEARED = LAYERS.places("unique")
_REASON = "e^0.05: the probability of each token changes by a twentieth"
_PICTURE = Picture(
    "steps", "copy_loss", (_ONE, _TWO, _SMEARED), labels=("1 layer", "2 layers", "1 layer, smeared keys")
)

CLAIMS = (
    Claim(
        14,
        "olsson-two-layers",
        "olsson",
        "Models of two layers undergo a phase change in which they come to copy in context; models of one layer do not.",
        "In-context learning score from above -0.15 to about -0.4 nats within a window; 1 layer: no change",
        "loss on copied tokens of one layer minus that of two; onset: where it falls below half of guessing",
        "copy_loss",
        "nats",
        Rule("rises", 0.05),
        _REASON,
        (LAYERS.name,),
        lambda runs: difference(runs, _TWO, _ONE, "copy_loss"),
        lambda runs: onset_ratio(runs, _TWO, _ONE),
        Rule("rises", math.log(1.1), kind="ranks"),
        exchange=(_ONE, _TWO),
        picture=_PICTURE,
    ),
    Claim(
        15,
        "olsson-smeared-keys",
        "olsson",
        "One layer suffices for the phase change where each key is mixed with the one before it.",
        "1 layer with smeared keys: the phase change appears",
        "loss on copied tokens of one layer with smeared keys minus that of one layer; onset: where it falls below half of guessing",
        "copy_loss",
        "nats",
        Rule("falls", 0.05),
        _REASON,
        (LAYERS.name,),
        lambda runs: difference(runs, _ONE, _SMEARED, "copy_loss"),
        lambda runs: onset_ratio(runs, _ONE, _SMEARED),
        Rule("falls", math.log(1.1), kind="ranks"),
        exchange=(_ONE, _SMEARED),
        picture=_PICTURE,
    ),
)
