"""Finding 1, in five parts: synthetic text delays induction, does not lose it, and damages the tail for good."""

from __future__ import annotations

from byrote.probes.claims.finding_grids import (
    A_TENTH_LATER,
    COPYING,
    COPYING_NATS,
    HEADS,
    MADE,
    SETTINGS_REVISED,
    names_of,
)
from byrote.probes.claims.finding_made_text import LATER, by_arm, final, onset, places
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import (
    At,
    compared,
    delay,
    in_every_setting,
    matching_onset,
    steps_in_words,
)
from byrote.probes.claims.synthetic_grids import NATS
from byrote.probes.degrade.verdicts import Rule


def _matching(runs: Runs) -> Effects:
    """Prefix matching of the strongest head at the end, mostly synthetic minus human."""
    return in_every_setting(HEADS, lambda at: compared(runs, at("human"), at("most"), "prefix_matching"))


def _matching_onset(runs: Runs) -> Effects:
    """How many times later a head matches prefixes, mostly synthetic against human."""

    def one(at: At) -> Effects:
        seeds = runs.seeds(at("human"), at("most"))
        before, after = (matching_onset(runs, at(arm), seeds) for arm in ("human", "most"))
        words = (
            f"a head matches at {steps_in_words(before)}, on mostly synthetic text at {steps_in_words(after)}"
        )
        return delay(before, after, words)

    return in_every_setting(HEADS, one)


_PICTURE = Picture(
    "steps",
    "copy_loss",
    MADE[0].places("human", "warm", "cool"),
    labels=("human", "temperature 1", "temperature 0.7"),
)

CLAIMS = (
    Claim(
        0,
        "finding-synthetic-delay",
        "findings",
        "Text that is all sampled at temperature 0.7 delays copying in context.",
        "another trainer, 6 seeds, one table: onset 3.4 times later than on human text, 2.1 times at temperature 1",
        "how many times later copying appears than on human text, in the table and width where that is least",
        "copy_loss",
        "as a logarithm of how many times later",
        reason=A_TENTH_LATER,
        grids=names_of(MADE),
        onset=onset("human", "cool"),
        onset_rule=LATER,
        primary="onset",
        exchange=places("human", "cool"),
        picture=_PICTURE,
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-synthetic-kept",
        "findings",
        "Such text does not prevent copying: trained long enough, models of it copy nearly as well as those of human text.",
        "the same trials: loss on copied tokens 0.71 against 0.57 at step 3,000",
        "loss on copied tokens at the end, synthetic minus human text, in the table and width where it differs most",
        "copy_loss",
        "nats",
        Rule("stays", COPYING_NATS),
        COPYING,
        names_of(MADE),
        final("human", "cool", "copy_loss"),
        picture=_PICTURE,
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-synthetic-heads",
        "findings",
        "Induction heads of models trained on three quarters of such text end as strong as those of human text.",
        "the same trials, one head a layer, at three quarters: onset twice as late, prefix matching 0.67 against 0.67 at the end",
        "prefix matching of the strongest of 8 heads at the end, mostly synthetic minus human, in the table and width where it differs most; onset: where a head matches prefixes",
        "prefix_matching",
        "attention fraction",
        Rule("stays", 0.1),
        "a quarter of what makes a head strong",
        names_of(HEADS),
        _matching,
        _matching_onset,
        LATER,
        picture=Picture(
            "steps", "prefix_matching", HEADS[0].places("human", "most"),
            labels=("human", "three quarters synthetic"),
        ),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-synthetic-tail",
        "findings",
        "What text at temperature 0.7 damages for good is the tail: rare bigrams. Text at temperature 1 does not.",
        "the same trials: loss on rare bigrams 4.54 on human text, 5.42 at temperature 0.7, no loss at temperature 1",
        "loss on tokens that the table lets anything follow, at the end, temperature 0.7 minus temperature 1, in the table and width "
        "where that is least",
        "rare_table_part_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        names_of(MADE),
        final("warm", "cool", "rare_table_part_loss"),
        exchange=places("warm", "cool"),
        picture=by_arm("rare_table_part_loss", "human", "warm", "cool"),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
    Claim(
        0,
        "finding-human-part",
        "findings",
        "An eighth of human text alone teaches copying worse than the same eighth among synthetic text.",
        "the same trials: a tenth of human text alone never got there in 6 of 6 seeds; mixed with synthetic text it did",
        "loss on copied tokens at the end, the human eighth of each batch alone minus the same with the rest sampled at temperature "
        "0.7, in the table and width where that is least; onset: where copying appears",
        "copy_loss",
        "nats",
        Rule("rises", 0.05),
        NATS,
        names_of(MADE),
        final("mixed", "eighth", "copy_loss"),
        onset("mixed", "eighth"),
        LATER,
        exchange=places("mixed", "eighth"),
        picture=by_arm("copy_loss", "human", "mixed", "eighth"),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
)  # fmt: skip
