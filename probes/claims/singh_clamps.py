"""Claim 21, in five parts: induction heads stand in for one another and add up, and each part of their circuit, given, brings copying forward."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.induction_grids import HEADS
from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import copying_onset, difference, onset_ratio, steps_in_words
from byrote.probes.claims.synthetic_grids import NATS
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "clamped",
    "2 layers of 4 heads on blocks of random tokens that repeat; one head is forced to attend, or to copy, in a fixed way from the start",
    file="clamped",
    sizes=("d32",),
    seeds=7,
    seconds=4.0,
)
_ALL = GRID.places("unique", "uniform", "previous-token", "match", "copy")
_UNIQUE, _UNIFORM, _PREVIOUS, _MATCH, _COPY = _ALL
_HEADS = HEADS.places("unique")[0]
_PICTURE = Picture("steps", "copy_loss", _ALL)


def _redundant(runs: Runs) -> Effects:
    """Half of what is lost without all induction heads minus what is lost without the strongest one."""
    seeds = runs.seeds(_HEADS)
    one, every = (runs.final(_HEADS, metric, seeds) for metric in ("top_change", "joint_change"))
    text = f"without the head that matches most {one.mean():.2f} nats are lost, without all that match {every.mean():.2f}"
    return Effects(0.5 * every - one, text)


def _additive(runs: Runs) -> Effects:
    """The smaller of what the strongest head saves alone and of what the others save beside it."""
    seeds = runs.seeds(_HEADS)
    first, rest = (runs.final(_HEADS, metric, seeds) for metric in ("first_gain", "rest_gain"))
    text = f"the strongest head alone saves {first.mean():.2f} nats, the others {rest.mean():.2f} beside it"
    return Effects(np.minimum(first, rest), text)


def _brought_forward(runs: Runs, arm: Place) -> Effects:
    """How many times later copying appears with the clamp; the clamp that says nothing beside it."""
    found = onset_ratio(runs, _UNIQUE, arm)
    uniform = copying_onset(runs, _UNIFORM, runs.seeds(_UNIFORM))
    return Effects(
        found.values, f"{found.words}, with a head clamped to attend evenly at {steps_in_words(uniform)}"
    )


def _clamp(name: str, arm: Place, statement: str, compared: str) -> Claim:
    return Claim(
        21,
        name,
        "singh",
        statement,
        "8 heads a layer on few-shot images: with any of the three parts clamped the phase change is earlier (artificial optogenetics)",
        f"{compared}: how many times later copying appears (loss on copied tokens below half of guessing) than without a clamp; final "
        "value: loss on copied tokens, the same difference",
        "copy_loss",
        "nats",
        Rule("falls", 0.05),
        "a tenth earlier; " + NATS,
        (GRID.name,),
        lambda runs: difference(runs, _UNIQUE, arm, "copy_loss"),
        lambda runs: _brought_forward(runs, arm),
        Rule("falls", float(np.log(1.1)), kind="ranks"),
        primary="onset",
        exchange=(_UNIQUE, arm),
        picture=_PICTURE,
    )


CLAIMS = (
    Claim(
        21,
        "singh-redundant",
        "singh",
        "Several induction heads form and back each other up: without the strongest, most of copying remains; without all of them, none does.",
        "Induction heads are additive and redundant; several form together",
        "half of what is lost on repeated tokens without all heads that match prefixes and raise what followed, minus what is lost "
        "without the one that matches most (means in place of their output)",
        "top_change",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (HEADS.name,),
        _redundant,
        picture=Picture("steps", "top_change", (_HEADS,)),
    ),
    Claim(
        21,
        "singh-additive",
        "singh",
        "Induction heads add up: one alone does a part of the copying, and further ones do more.",
        "Induction heads are additive and redundant; several form together",
        "the smaller of the loss on repeated tokens that the strongest head saves where all others that match prefixes and raise what "
        "followed are ablated, and of the loss that those save beside it",
        "first_gain",
        "nats",
        Rule("rises", 0.05),
        NATS,
        (HEADS.name,),
        _additive,
        picture=Picture("steps", "first_gain", (_HEADS,)),
    ),
    _clamp(
        "singh-previous-token",
        _PREVIOUS,
        "With a perfect previous-token head from the start, copying appears earlier.",
        "one head of layer 0 attends to the token before",
    ),
    _clamp(
        "singh-match",
        _MATCH,
        "With a head that matches perfectly from the start, copying appears earlier.",
        "one head of layer 1 attends to what followed the last earlier occurrence",
    ),
    _clamp(
        "singh-copy",
        _COPY,
        "With a head that copies perfectly from the start, copying appears earlier.",
        "one head of layer 1 raises the logits of the tokens it attends to",
    ),
)
