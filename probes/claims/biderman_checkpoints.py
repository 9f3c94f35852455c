"""Claim 39, in two parts: what early checkpoints have memorised is little of what the last one has, and most of it is right."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from byrote.probes.claims.carlini_extraction import LARGEST, PLANTED
from byrote.probes.claims.record import Claim, Effects, Picture
from byrote.probes.claims.runs_table import Place, Runs
from byrote.probes.degrade.verdicts import Rule

_PLANTED = Place(PLANTED.name, "planted", LARGEST)
_EARLY = 0.25  # of training
_HALF = 0.5  # recall below which most of what is memorised at last is missed


def _at(runs: Runs, metric: str, share: float) -> Float[np.ndarray, " seeds"]:
    """The metric at the measured step nearest to a share of training; NaN where it is not defined there."""
    found = []
    for seed in runs.seeds(_PLANTED):
        measured, _ = runs.curve(_PLANTED, "extracted", seed)
        at = measured[np.abs(measured - share * measured[-1]).argmin()]
        steps, values = runs.curve(_PLANTED, metric, seed)
        found.append(float(values[steps == at][0]) if (steps == at).any() else np.nan)
    return np.array(found)


def early_recall(runs: Runs) -> Effects:
    """Recall at a quarter of training of what is extracted at its end, minus one half."""
    recall, later = (_at(runs, "recall_of_final", share) for share in (_EARLY, _HALF))
    return Effects(
        recall - _HALF,
        f"recall {recall.mean():.2f} at a quarter of training, {later.mean():.2f} at half of it",
    )


def precision_over_recall(runs: Runs) -> Effects:
    """Precision minus recall, mean over the measured steps before the last where something is extracted."""
    found, parts = [], []
    for seed in runs.seeds(_PLANTED):
        steps, precision = runs.curve(_PLANTED, "precision_for_final", seed)
        others, recall = runs.curve(_PLANTED, "recall_of_final", seed)
        both = np.intersect1d(steps, others)[:-1]
        sides = [values[np.isin(at, both)] for at, values in ((steps, precision), (others, recall))]
        means = [float(side.mean()) if len(both) else np.nan for side in sides]
        parts.append(means)
        found.append(means[0] - means[1] if len(both) else 0.0)
    means = np.nanmean(parts, axis=0) if np.isfinite(parts).any() else np.full(2, np.nan)
    return Effects(
        np.array(found),
        f"precision {means[0]:.2f}, recall {means[1]:.2f}; precision is above recall wherever fewer are extracted early than at last",
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
        "share of the planted documents extracted at the last checkpoint that are extracted at a quarter of training already, minus one "
        "half. Documents are planted at random places of the whole run: at a quarter of it each has been seen a quarter as often",
        "recall_of_final",
        "share, above one half",
        Rule("falls", 0.0),
        "below one half, most are missed",
        (PLANTED.name,),
        early_recall,
        picture=Picture("steps", "recall_of_final", (_PLANTED,)),
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
    ),
)
