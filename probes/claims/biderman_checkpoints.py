"""Claim 39, in two parts: what early checkpoints have memorised is little of what the last one has, and most of it is right."""

from __future__ import annotations

import numpy as np

from byrote.probes.claims.carlini_extraction import LARGEST, PLANTED, RECIPE
from byrote.probes.claims.record import Claim, Effects, NotTestable, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.degrade.verdicts import Rule

_PLANTED = Place(PLANTED.name, "planted", LARGEST)
_EARLY = 0.25  # of training
_HALF = 0.5  # recall below which most of what is memorised at last is missed


def _seeds(runs: Runs) -> list[tuple[int, int]]:
    """The seeds that extract something at their last step.

    Raises:
        NotTestable: most extract nothing, so there was nothing to predict.
    """
    seeds = runs.seeds(_PLANTED)
    found = [seed for seed in seeds if runs.final(_PLANTED, "extracted", [seed])[0] > 0]
    if 2 * len(found) < len(seeds):
        raise NotTestable(
            f"{len(found)} of {len(seeds)} models have memorised anything at the end, so there was nothing to predict"
        )
    return found


def early_recall(runs: Runs) -> Effects:
    """Recall at a quarter of training of what is extracted at its end, minus one half."""
    recall = []
    for seed in _seeds(runs):
        steps, values = runs.curve(_PLANTED, "recall_of_final", seed)
        at = [int(np.abs(steps - share * steps[-1]).argmin()) for share in (_EARLY, _HALF)]
        recall.append(values[at])
    early, later = np.array(recall).T
    return Effects(
        early - _HALF,
        f"recall {early.mean():.2f} at step {steps[at[0]]:,.0f}, {later.mean():.2f} at step {steps[at[1]]:,.0f} of {steps[-1]:,.0f}",
    )


def precision_over_recall(runs: Runs) -> Effects:
    """Precision minus recall, mean over the measured steps before the last where something is extracted."""
    means = []
    for seed in _seeds(runs):
        defined, precision = runs.curve(_PLANTED, "precision_for_final", seed)
        steps, recall = runs.curve(_PLANTED, "recall_of_final", seed)
        at = np.isin(steps, defined[:-1])
        means.append((precision[:-1].mean(), recall[at].mean()) if at.any() else (0.0, 0.0))
    precise, complete = np.array(means).T
    return Effects(
        precise - complete,
        f"precision {precise.mean():.2f}, recall {complete.mean():.2f}; precision is above recall wherever fewer are extracted early "
        "than at last",
    )


_PAPER = (
    "Pythia-12B, 32 tokens after 32: sequences memorised by early checkpoints mostly are at the end, and most of those at the end were "
    "not yet, unless a large share of the compute is spent"
)
CLAIMS = (
    Claim(
        39,
        "biderman-recall",
        "biderman",
        "Early checkpoints miss most of the sequences that the last one has memorised.",
        _PAPER,
        "share of the planted documents extracted at the last checkpoint that are extracted already at the measured step nearest to a quarter of training, minus one "
        "half. Documents are planted at random places of the whole run: at a quarter of it each has been seen a quarter as often",
        "recall_of_final",
        "share, above one half",
        Rule("falls", 0.0),
        "below one half, most are missed",
        (PLANTED.name,),
        early_recall,
        picture=Picture("steps", "recall_of_final", (_PLANTED,)),
        revised=RECIPE,
    ),
    Claim(
        39,
        "biderman-precision",
        "biderman",
        "What they have memorised is more often right than complete: precision is above recall.",
        _PAPER,
        "precision minus recall of what is extracted at earlier checkpoints, for what is at the last, mean over checkpoints that extract "
        "something. The two have the same hits: the sign says how many are extracted early, against at last, and nothing else",
        "precision_for_final",
        "share",
        Rule("rises", 0.1),
        "one in ten",
        (PLANTED.name,),
        precision_over_recall,
        picture=Picture("steps", "precision_for_final", (_PLANTED,)),
        revised=RECIPE,
    ),
)
