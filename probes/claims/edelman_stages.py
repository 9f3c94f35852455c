"""Claim 22: on in-context Markov chains, predictions become those of unigrams first and of bigrams later."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.record import Claim, Effects, Grid, Picture
from byrote.probes.claims.runs_table import Runs
from byrote.probes.degrade.verdicts import Rule

GRID = Grid(
    "markov",
    "2 layers of attention alone on Markov chains with a new matrix for every sequence",
    file="markov",
    sizes=("d16",),
    probes=("in_context_markov",),
    measured=20,
    seconds=6.0,
)
_PLACE = GRID.places("unique")[0]


def stages(runs: Runs) -> Effects:
    """The smallest of three: how far unigrams are approached, how far they are left again, how far bigrams are approached after."""
    seeds = runs.seeds(_PLACE)
    curves = [[runs.curve(_PLACE, metric, seed) for seed in seeds] for metric in ("kl_unigram", "kl_bigram")]
    steps = curves[0][0][0]
    unigram, bigram = (np.stack([values for _, values in found]) for found in curves)
    effects, at = [], []
    for i in range(len(seeds)):
        others = np.delete(unigram, i, axis=0) if len(seeds) > 1 else unigram
        turn = int(others.mean(0).argmin())
        at.append(steps[turn])
        effects.append(
            min(
                unigram[i, 0] - unigram[i, turn],
                unigram[i, -1] - unigram[i, turn],
                bigram[i, turn] - bigram[i, -1],
            )
        )
    text = (
        f"KL to the unigram {unigram[:, 0].mean():.3f} at first, lowest {unigram.min(1).mean():.3f} about step {np.median(at):,.0f}, "
        f"{unigram[:, -1].mean():.3f} at last; KL to the bigram {bigram[:, 0].mean():.3f} at first, {bigram[:, -1].mean():.3f} at last"
    )
    return Effects(np.array(effects), text)


CLAIMS = (
    Claim(
        22,
        "edelman-stages",
        "edelman",
        "On Markov chains that are new for every sequence, predictions go from uniform to the context's unigrams, stay there for a "
        "while, and then become those of its bigrams.",
        "2 layers: distinct stages, the distance to the unigram falls and rises again (figure 2)",
        "the smallest of: the fall of KL to the unigram to its lowest (at a step chosen on the other seeds), its rise after that, and "
        "the fall of KL to the bigram after that",
        "kl_unigram",
        "nats",
        Rule("rises", 0.02),
        "about a sixth of the distance between unigram and bigram predictions on these chains",
        (GRID.name,),
        stages,
        picture=Picture("steps", "kl_unigram", (_PLACE,)),
    ),
)
