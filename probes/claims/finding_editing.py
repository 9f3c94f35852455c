"""Finding 2, in three parts: token editing hurts copying, the more the oftener, and not where it leaves repeats alone."""

from __future__ import annotations

from byrote.probes.claims.finding_grids import MADE, SETTINGS_REVISED, names_of
from byrote.probes.claims.finding_made_text import LATER, by_arm, final, onset, places
from byrote.probes.claims.record import Claim
from byrote.probes.claims.synthetic_grids import NATS
from byrote.probes.degrade.verdicts import Rule

_WHERE = "in the table and width where that is least"

CLAIMS = (
    Claim(
        0,
        "finding-editing-copying",
        "findings",
        "Token editing, which resamples tokens that a model gives at least half of the probability, hurts copying.",
        "another trainer, 6 seeds, one table: +0.22 +- 0.08 nats, onset 1.3 times later",
        f"loss on copied tokens at the end, edited text minus the same unedited, {_WHERE}; onset: where copying appears",
        "copy_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        names_of(MADE),
        final("human", "edited", "copy_loss"),
        onset("human", "edited"),
        LATER,
        exchange=places("human", "edited"),
        picture=by_arm("copy_loss", "human", "spared", "edited", "edited-twice"),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-editing-accumulates",
        "findings",
        "Editing the text of a model trained on edited text hurts copying more.",
        "the same trials: +0.22 nats after one round, +0.69 +- 0.07 after three",
        f"loss on copied tokens at the end, twice edited minus once edited, {_WHERE}; onset: where copying appears",
        "copy_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        names_of(MADE),
        final("edited", "edited-twice", "copy_loss"),
        onset("edited", "edited-twice"),
        LATER,
        exchange=places("edited", "edited-twice"),
        picture=by_arm("copy_loss", "human", "edited", "edited-twice"),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-editing-spared",
        "findings",
        "Editing that spares what occurred earlier in the document does not hurt copying.",
        "the same trials: within 0.01 nats, and few tokens are left to edit",
        "loss on copied tokens at the end, text edited where its bigram had not occurred before minus unedited, in the table and width where "
        "it differs most",
        "copy_loss",
        "nats",
        Rule("stays", 0.05),
        NATS,
        names_of(MADE),
        final("human", "spared", "copy_loss"),
        picture=by_arm("copy_loss", "human", "spared", "edited"),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
)
