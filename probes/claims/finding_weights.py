"""Finding 5, its last part: weights match prefixes before attention does."""

from __future__ import annotations

import math

import numpy as np

from byrote.probes.claims.elhage_composition import COMPOSES_Z
from byrote.probes.claims.finding_grids import A_TENTH_LATER, HEADS, SETTINGS_REVISED, names_of
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import At, in_every_setting, matching_onset, order, steps_in_words
from byrote.probes.degrade.verdicts import Rule


def _lead(runs: Runs) -> Effects:
    """How many times later a head matches prefixes by attention than by weights, on human text; no lead where none ever does."""

    def one(at: At) -> Effects:
        place = at("human")
        seeds = runs.seeds(place)
        weights = runs.onset(place, "qk_trace_z", seeds, above=COMPOSES_Z)
        attention = matching_onset(runs, place, seeds)
        words = f"weights from {steps_in_words(weights)}, attention from {steps_in_words(attention)}"
        lead = order(weights, attention, words).values
        return Effects(np.where(np.isinf(attention), np.minimum(lead, 0.0), lead), words)

    return in_every_setting(HEADS, one)


CLAIMS = (
    Claim(
        0,
        "finding-weights-first",
        "findings",
        "The match of keys with what previous-token heads write reveals an induction head before attention does.",
        "another trainer, a first look: QK eigenvalues 0.66 to 0.92 where attention to the target was still 0.09 to 0.15",
        "how many times later the strongest head matches prefixes by attention (above 0.4) than by weights (trace of the QK circuit "
        "through previous-token heads, z above 5 against turned keys), in the table and width where that is least; where no head ever does by attention, there is no lead",
        "qk_trace_z",
        "as a logarithm of how many times later",
        reason=A_TENTH_LATER,
        grids=names_of(HEADS),
        onset=_lead,
        onset_rule=Rule("rises", math.log(1.1), kind="ranks"),
        primary="onset",
        picture=Picture(
            "steps",
            "qk_trace_z",
            tuple(place for grid in HEADS for place in grid.places("human")),
            labels=tuple(size for grid in HEADS for size in grid.sizes),
        ),
        revised=SETTINGS_REVISED,
        full_only=True,
    ),
)
