"""Claim 35, in two parts: what a model writes repeats itself as its training data do, and less where repeats are not trained on.

All arms are trained on real documents: no arm is a generation after another, which repetition would follow by itself.
"""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.claims.seed_effects import difference, final_values
from byrote.probes.degrade.verdicts import Rule
from byrote.probes.seed_statistics import spearman

GRID = Grid(
    "riro",
    "2 layers of attention on documents chosen for how often they repeat themselves, and 1,024 sequences that each model writes",
    file="riro",
    sizes=("d24",),
    seconds=1.5,
)
ARMS = ("few4", "few2", "random", "most2", "most4half", "most4")
_REP = "data_rep_2_frac"
_TEXTS = GRID.places(*(f"text-{arm}" for arm in ARMS))
_WRITTEN = GRID.places(*(f"writes-{arm}" for arm in ARMS))
_LABELS = tuple(f"{arm.replace('most4half', 'half')} {side}" for side in ("in", "out") for arm in ARMS)
_MASKED, _RANDOM = GRID.places("writes-masked", "writes-masked-random")


def tracks(runs: Runs) -> Effects:
    """Rank correlation over arms, in each seed, between rep-2 of the training data and rep-2 of what is written."""
    seeds = runs.seeds(*_TEXTS, *_WRITTEN)
    read, written = (final_values(runs, places, _REP, seeds) for places in (_TEXTS, _WRITTEN))
    text = "; ".join(
        f"{100 * a:.1f} in, {100 * b:.1f} out" for a, b in zip(read.mean(0), written.mean(0), strict=True)
    )
    return Effects(
        np.array([spearman(a, b) for a, b in zip(read, written, strict=True)]),
        f"rep-2 in percent, means by arm: {text}",
    )


def masked(runs: Runs) -> Effects:
    """rep-2 of what is written without a loss on repeated bigrams, minus that with as many other tokens left out."""
    found = difference(runs, _RANDOM, _MASKED, _REP)
    seeds = runs.seeds(_RANDOM, _MASKED)
    means = [100 * runs.final(place, _REP, seeds).mean() for place in (_RANDOM, _MASKED)]
    return Effects(
        found.values, f"rep-2 {means[0]:.1f}% with others left out, {means[1]:.1f}% without a loss on repeats"
    )


CLAIMS = (
    Claim(
        35,
        "riro-tracks",
        "riro",
        "The more the training data repeat themselves, the more does what a model writes.",
        "GPT-2 on five corpora, and Llama-2-7B fine-tuned on data of rep-2 5.5, 9.7 and 10.3: what they write greedily has 15.1, 41.6 and "
        "54.1 (table 1)",
        "Spearman correlation over six choices of real documents between rep-2 of the training data (bigrams that occurred earlier in their document) and rep-2 of 1,024 documents that the model writes from BOS at temperature 0.5, seed by seed; the lab draws from BOS "
        "alone, so that greedy documents, which the paper has from prompts, would all be the same one",
        _REP,
        "rank correlation",
        Rule("rises", 0.5),
        "more than half of a perfect order; six labels at random have 0.5 or more in a sixth of cases, five seeds' mean hardly ever",
        (GRID.name,),
        tracks,
        exchange=_WRITTEN,
        exchanged=(_REP,),
        picture=Picture("arms", _REP, (*_TEXTS, *_WRITTEN), labels=_LABELS),
    ),
    Claim(
        35,
        "riro-masked",
        "riro",
        "A model that is not trained to repeat writes fewer repeats, on the same data.",
        "Repetition dropout, which hides repeated n-grams from attention, lowers rep-2 of what GPT-2 writes; so do losses that punish repeats",
        "rep-2 of what a model writes that had no loss on tokens whose bigram occurred earlier in the document, minus that with as many "
        "tokens left out at random; it is the loss that is left out here, not attention as in the paper",
        _REP,
        "share of bigrams",
        Rule("falls", 0.02),
        "two of a hundred bigrams; the paper's corpora lie 5 apart",
        (GRID.name,),
        masked,
        exchange=(_RANDOM, _MASKED),
        exchanged=(_REP,),
        picture=Picture("arms", _REP, (_RANDOM, _MASKED)),
    ),
)
