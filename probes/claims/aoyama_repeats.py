"""Claim 25, in three parts: induction heads need bigrams that repeat often and reliably, and a tenth of the sequences is enough."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.claims.seed_effects import copying_onset, difference, onset_ratio, steps_in_words
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "repeats",
    "2 layers of 4 heads on blocks of random tokens, which repeat in none, a tenth or all of the sequences, in all places or in a "
    "quarter of them",
    file="repeats",
    sizes=("d16",),
    probes=("prefix_aggregates",),
    seconds=6.0,
)
_ALL = GRID.places("none", "tenth-quarter", "tenth", "every-quarter", "every")
_NONE, _TENTH_QUARTER, _TENTH, _EVERY_QUARTER, _EVERY = _ALL
_METRIC = "prefix_matching"


def _mean_of(runs: Runs, sides: tuple[tuple[Place, Place], ...]) -> Effects:
    """Mean over pairs of places of the second's prefix matching minus the first's."""
    values = [difference(runs, before, after, _METRIC).values for before, after in sides]
    seeds = runs.seeds(*_ALL)
    means = ", ".join(f"{place.arm} {runs.final(place, _METRIC, seeds).mean():.2f}" for place in _ALL)
    return Effects(np.mean(values, axis=0), means)


def _enough(runs: Runs) -> Effects:
    found = _mean_of(runs, ((_NONE, _TENTH),))
    onset = copying_onset(runs, _TENTH, runs.seeds(_TENTH))
    return Effects(found.values, f"{found.words}; at a tenth copying appears at {steps_in_words(onset)}")


_UNIT, _REASON = "attention fraction", "one in twenty: a twentieth of the full range"
_LATER = Rule("rises", float(np.log(1.1)), kind="ranks")
_PICTURE = Picture("arms", _METRIC, _ALL)
_FRONTIER = "Formation depends on how often bigrams repeat and how reliably, along a Pareto frontier of the two (abstract)"
CLAIMS = (
    Claim(
        25,
        "aoyama-a-tenth",
        "aoyama",
        "It is enough for induction heads that a tenth of the data consists of sequences that repeat themselves.",
        "Even 10% of tokens in repeated sequences is enough (Toy Networks, a blog of 2026, its abstract)",
        "highest prefix matching of the heads where a tenth of the sequences keep their copies, minus that where none does",
        _METRIC,
        _UNIT,
        Rule("rises", 0.05),
        _REASON,
        (GRID.name,),
        _enough,
        exchange=(_NONE, _TENTH),
        picture=_PICTURE,
    ),
    Claim(
        25,
        "aoyama-frequency",
        "aoyama",
        "The more often bigrams repeat, the more induction heads form.",
        _FRONTIER,
        "highest prefix matching of the heads where all sequences have copies, minus that where a tenth has, mean over both "
        "reliabilities; onset: where copying appears, a tenth against all, reliable copies",
        _METRIC,
        _UNIT,
        Rule("rises", 0.05),
        _REASON,
        (GRID.name,),
        lambda runs: _mean_of(runs, ((_TENTH, _EVERY), (_TENTH_QUARTER, _EVERY_QUARTER))),
        lambda runs: onset_ratio(runs, _EVERY, _TENTH),
        _LATER,
        exchange=_ALL[1:],
        picture=_PICTURE,
    ),
    Claim(
        25,
        "aoyama-reliability",
        "aoyama",
        "The more reliably bigrams repeat, the more induction heads form.",
        _FRONTIER,
        "highest prefix matching of the heads where every copy is kept, minus that where one in four is, mean over both shares of "
        "sequences; onset: where copying appears, one in four against every copy, in all sequences",
        _METRIC,
        _UNIT,
        Rule("rises", 0.05),
        _REASON,
        (GRID.name,),
        lambda runs: _mean_of(runs, ((_TENTH_QUARTER, _TENTH), (_EVERY_QUARTER, _EVERY))),
        lambda runs: onset_ratio(runs, _EVERY, _EVERY_QUARTER),
        _LATER,
        exchange=_ALL[1:],
        picture=_PICTURE,
    ),
)
