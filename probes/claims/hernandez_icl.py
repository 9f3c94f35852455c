"""Claim 8: in-context learning that is no copying is harmed too, and less than copying."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.ladders import (
    COPY,
    HIGH,
    LADDER,
    LADDER_REVISED,
    NONE,
    RECALL,
    SIZE,
    SMALLEST,
    compared,
    pools_in_words,
    require_known,
    worst_places,
    worth,
)
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.degrade.verdicts import Rule


def both(runs: Runs) -> Effects:
    """Of two logarithms the one that shows less, seed by seed: the size that recall is worth, and that of copying over it."""
    seeds = runs.seeds(*NONE, *HIGH)
    worst = worst_places(runs, HIGH, seeds)
    recall, copying = (worth(runs, scale, worst, seeds) for scale in (RECALL, COPY))
    require_known(copying, recall)
    effects = np.maximum(recall.logs, copying.logs - recall.logs)
    return Effects(effects, f"worst at {pools_in_words(worst)}; {compared(copying, recall)}")


CLAIMS = (
    Claim(
        8,
        "hernandez-icl",
        "hernandez",
        "Repeated data harm in-context learning at large, and copying more, both as sizes of a model without repeats.",
        "2 layers, f 50% (figure 7, right): loss by position is harmed less than loss by copy",
        "the smaller of two harms, as logarithms of sizes: of recall, which is the loss on the first token of a phrase that is mentioned "
        "again (earlier mentions make it likely, and the token before it does not announce it), and of copying, the rest of that phrase, "
        "beyond recall; half of the data repeated, at the pool that is worst for test loss (chosen on the other seeds)",
        RECALL.metric,
        "as a logarithm of sizes",
        Rule("falls", SMALLEST),
        "a tenth of the size; the paper shows curves and no number",
        (LADDER.name,),
        both,
        exchange=(*(place for place in NONE if place.size == SIZE), *HIGH),
        revised=LADDER_REVISED,
        picture=Picture("ladder", RECALL.metric, NONE, beside=HIGH),
    ),
)
