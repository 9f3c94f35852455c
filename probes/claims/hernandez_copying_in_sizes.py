"""Claim 5: copying is hit harder than test loss, both as sizes of a model."""

from __future__ import annotations

from byrote.probes.claims.ladders import (
    COPY,
    HIGH,
    LADDER,
    LADDER_REVISED,
    LOW,
    NONE,
    SIZE,
    SMALLEST,
    against_test_loss,
)
from byrote.probes.claims.record import Claim, Effects, NotTestable, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.degrade.verdicts import Rule


def preferred(runs: Runs) -> Effects:
    """Copying against test loss at the low share; what the high one shows stands in the words."""
    found = against_test_loss(runs, COPY, LOW)
    try:
        more = against_test_loss(runs, COPY, HIGH).words
    except NotTestable as why:
        more = why.reason
    return Effects(found.values, f"{found.words}. At a share of one half: {more}")


CLAIMS = (
    Claim(
        5,
        "hernandez-copying-in-sizes",
        "hernandez",
        "Repeated data cost copying more than test loss, both as the size of a model without repeats that does as well.",
        "f 3%, at the worst number of repeats: a third of the size on copying, 1/1.15 of it on test loss",
        "size of a model without repeats that copies as well, over the size of one whose test loss is as low, as a logarithm; one "
        "sixteenth of the data repeated, at the pool that is worst for test loss (chosen on the other seeds)",
        "copy_loss",
        "as a logarithm of sizes",
        Rule("falls", SMALLEST),
        "a tenth of the size: the paper's effect is ten times as large",
        (LADDER.name,),
        preferred,
        exchange=(*(place for place in NONE if place.size == SIZE), *LOW),
        revised=LADDER_REVISED,
        picture=Picture("ladder", "copy_loss", NONE, beside=(*LOW, *HIGH)),
    ),
)
