"""Claim 7: at the worst number of repeats further copies of a text do not help."""

from __future__ import annotations

from byrote.probes.claims.hernandez_grids import HEADS_4
from byrote.probes.claims.record import Claim, Picture
from byrote.probes.claims.seed_effects import against_worst
from byrote.probes.degrade.verdicts import Rule

_DOSES = HEADS_4.places("P256", "P128", "P64", "P32", "P16", "P4")
_CONTROL = HEADS_4.places("none")[0]

CLAIMS = (
    Claim(
        7,
        "hernandez-copies",
        "hernandez",
        "A model without repeats predicts further copies of a paragraph better than the first; at the worst number of repeats it does "
        "not.",
        "2 layers, f 50%: loss does not fall from copy to copy (figure 7)",
        "loss on later copies minus loss on the first at the worst pool inside the range, chosen on the other seeds, minus the same "
        "without repeats; from the second copy on there is no difference to compare, since the control needs no third one",
        "copy_gain",
        "nats",
        Rule("rises", 0.05),
        "e^0.05: the probability of each token changes by a twentieth",
        (HEADS_4.name,),
        lambda runs: against_worst(runs, _CONTROL, _DOSES, "copy_gain"),
        exchange=(_CONTROL, *_DOSES),
        revised="the effect was the gain from the second copy on, until one run without repeats showed that it needs no third copy; no run "
        "with repeats had been seen",
        picture=Picture("arms", "copy_gain", (_CONTROL, *_DOSES)),
    ),
)
