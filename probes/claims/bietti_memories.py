"""Claim 23, in two parts: an induction head is learned from the top: its output first, then its keys, then where the layer before looks."""

from __future__ import annotations

import math

from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import copying_onset, order, steps_in_words
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "trigger-bigrams",
    "2 layers of 4 heads on bigrams; in every sequence a few tokens lead to a token of its own",
    file="trigger-bigrams",
    sizes=("d32",),
    probes=("associative_recall",),
    measured=20,
    seeds=6,
    seconds=14.0,
)
_PLACE = GRID.places("unique")[0]
_HALF = 0.5  # of the tokens, or positions, as in the list of claims
_MEMORIES = {"output_recall": "output", "key_recall": "keys", "position_recall": "positions"}


def _order(runs: Runs, first: str, then: str) -> Effects:
    """How many times later the second memory recalls half than the first does."""
    seeds = runs.seeds(_PLACE)
    found = {metric: runs.onset(_PLACE, metric, seeds, above=_HALF) for metric in _MEMORIES}
    parts = [f"{word} at {steps_in_words(found[metric])}" for metric, word in _MEMORIES.items()]
    copies = steps_in_words(copying_onset(runs, _PLACE, seeds))
    last = runs.final(_PLACE, then, seeds).mean()
    text = f"half is recalled by {', '.join(parts)} ({last:.2f} of {_MEMORIES[then]} at the end); copying appears at {copies}"
    return order(found[first], found[then], text)


_ORDER = "W_O of layer 2 first, then its W_K, then W_K of layer 1 (memory recall probes; a simplified model with frozen embeddings)"
_COMPARED = "how many times later {} than {}, best head of 4 a layer; the paper has one head a layer, and embeddings, values and queries that are not learned"
_OUTPUT = "the output of a head of layer 1 recalls half of the tokens"
_KEYS = "its keys recall half of what layer 0 moves"
_POSITIONS = "a head of layer 0 recalls half of the positions before"
_RULE, _UNIT = Rule("rises", math.log(1.1), kind="ranks"), "as a logarithm of how many times later"
CLAIMS = (
    Claim(
        23,
        "bietti-output-first",
        "bietti",
        "An induction head learns what to write before it learns what to look for.",
        _ORDER,
        _COMPARED.format(_KEYS, _OUTPUT),
        "key_recall",
        _UNIT,
        reason="a tenth later",
        grids=(GRID.name,),
        onset=lambda runs: _order(runs, "output_recall", "key_recall"),
        onset_rule=_RULE,
        primary="onset",
        picture=Picture("steps", "key_recall", (_PLACE,)),
    ),
    Claim(
        23,
        "bietti-positions-last",
        "bietti",
        "An induction head learns what to look for before a head in the previous layer attends to the previous token.",
        _ORDER,
        _COMPARED.format(_POSITIONS, _KEYS),
        "position_recall",
        _UNIT,
        reason="a tenth later",
        grids=(GRID.name,),
        onset=lambda runs: _order(runs, "key_recall", "position_recall"),
        onset_rule=_RULE,
        primary="onset",
        picture=Picture("steps", "position_recall", (_PLACE,)),
        revised="memories that most models end without were excluded from the order after runs had shown positions to be one; this has since been the rule for every order of two onsets",
    ),
)
