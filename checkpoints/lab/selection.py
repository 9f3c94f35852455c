"""Scores of sequences and the best of them: what curated data are chosen by. Torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.lab.arms.synthetic import Curated
from byrote.checkpoints.lab.batches import Places, draw
from byrote.checkpoints.lab.generator import sampled
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.sequences import random_words, uniform
from byrote.checkpoints.lab.sources.contract import Source

N_FOR_TABLE = 4096  # sequences of the source that a bigram table is counted on
SMOOTHING = 0.5  # added to each count of it


def inputs(part: Curated, places: Places, runs: Runs) -> Made:
    """The best of the samples, in the order they were drawn."""
    run, n = runs(part.generator, part.step), part.size(places)
    drawn = sampled(part, places, run, n * part.candidates)
    scores = drawn.log_probability
    if part.score != "generator":
        scores = scores_of(part.score, drawn.wide, source=places.source, seed=places.seed)
    best = chosen(-scores if part.least else scores, n)
    facts = {"mean_score_drawn": mean_score(scores), "mean_score_chosen": mean_score(scores[best])}
    return Made({"tokens": drawn.wide[best]}, {**run.facts(), **facts})


def scores_of(
    name: str, wide: Int[np.ndarray, "n width"], *, source: Source, seed: int
) -> Float[np.ndarray, " n"]:
    """A score of each sequence, the higher the better.

    Args:
        name: "table" (log-probability under a bigram table counted on the source's pool stream, nats), "oracle"
            (log-probability under the source, exactly; sequences that it cannot produce have -inf), or "random".
        wide: BOS first.
        source: of real sequences.
        seed: of the run.
    """
    if name == "table":
        return np.log(bigram_table_of(source, seed))[wide[:, :-1], wide[:, 1:]].sum(-1)
    if name == "oracle":
        nll = source.floor_nll(wide)[:, 1:]
        return np.where(np.isfinite(nll).all(-1), -np.nan_to_num(nll).sum(-1), -np.inf)
    return uniform(random_words("curated", seed=seed, index=0, shape=(len(wide), 1)))[:, 0]


def bigram_table_of(source: Source, seed: int) -> Float[np.ndarray, "d_vocab d_vocab"]:
    """P(next | id), counted on sequences of the source that are not trained on, with a little added to every count."""
    wide = draw(source, seed=seed, stream="pool", index=0, n=N_FOR_TABLE).wide
    codes = (wide[:, :-1] * source.d_vocab + wide[:, 1:]).ravel()
    counts = np.bincount(codes, minlength=source.d_vocab**2).reshape(source.d_vocab, -1) + SMOOTHING
    return counts / counts.sum(-1, keepdims=True)


def chosen(scores: Float[np.ndarray, " n"], n: int) -> Int[np.ndarray, " chosen"]:
    """The `n` with the highest scores, in their own order; of equals the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:n])


def mean_score(scores: Float[np.ndarray, " n"]) -> float | None:
    """Mean of the finite ones; None where there are none."""
    finite = scores[np.isfinite(scores)]
    return float(finite.mean()) if len(finite) else None
