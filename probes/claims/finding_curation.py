"""Finding 3, in two parts: curation by a bigram table takes away copying, curation by the generator does not."""

from __future__ import annotations

from byrote.probes.claims.finding_grids import COPYING, COPYING_NATS, MADE, SETTINGS_REVISED, names_of
from byrote.probes.claims.finding_made_text import LATER, by_arm, final, onset, places
from byrote.probes.claims.record import Claim
from byrote.probes.degrade.verdicts import Rule

_PICTURE = by_arm("copy_loss", "warm", "by-generator", "by-table")

CLAIMS = (
    Claim(
        0,
        "finding-curation-table",
        "findings",
        "Of synthetic text, the half that a bigram table finds likely teaches copying worse than a random half.",
        "another trainer, 6 seeds, one table: loss on copied tokens 2.18 against 0.69 after one round; after three no head at all",
        "loss on copied tokens at the end, the half chosen by a bigram table minus a random half, in the table and width where that is "
        "least; onset: where copying appears",
        "copy_loss",
        "nats",
        Rule("rises", COPYING_NATS),
        COPYING,
        names_of(MADE),
        final("warm", "by-table", "copy_loss"),
        onset("warm", "by-table"),
        LATER,
        exchange=places("warm", "by-table"),
        picture=_PICTURE,
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-curation-generator",
        "findings",
        "The half that the generator itself finds likely teaches copying as a random half does.",
        "the same trials: loss on copied tokens 0.54 against 0.69, prefix matching 0.69 against 0.67",
        "loss on copied tokens at the end, the half that the generator finds likely minus a random half, in the table and width where it "
        "differs most",
        "copy_loss",
        "nats",
        Rule("stays", COPYING_NATS),
        COPYING,
        names_of(MADE),
        final("warm", "by-generator", "copy_loss"),
        picture=_PICTURE,
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
)
