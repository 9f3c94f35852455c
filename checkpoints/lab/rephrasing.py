"""Phrasings of a pool of documents: the same facts in other words. No torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.lab.arms.rephrased import Rephrased
from byrote.checkpoints.lab.batches import Places
from byrote.checkpoints.lab.inputs import Made, Runs


def inputs(part: Rephrased, places: Places, runs: Runs) -> Made:
    """All documents in their first phrasing, then all in the second, and so on.

    Returns:
        `tokens` [phrasings * pool_size, width]; facts: `word_for_word_frac` of the later phrasings that equal their document,
        `shared_bigrams_frac` of their bigrams that stand in it, each once per sequence, and `distinct_frac` of all.

    Raises:
        ByroteError: a source whose sequences are about nothing that could be rephrased.
    """
    phrasings = [
        places.source.rephrased(
            seed=places.seed, stream="pool", index=0, n=part.pool_size, phrasing=number
        ).wide
        for number in range(part.phrasings)
    ]
    documents, later = phrasings[0], phrasings[1:]
    facts = {
        "distinct_frac": len(np.unique(np.concatenate(phrasings), axis=0)) / (part.pool_size * part.phrasings)
    }
    if later:
        facts |= {
            "word_for_word_frac": float(np.mean([(one == documents).all(-1).mean() for one in later])),
            "shared_bigrams_frac": float(np.mean([shared_bigrams(one, documents) for one in later])),
        }
    return Made({"tokens": np.concatenate(phrasings)}, facts)


def shared_bigrams(phrasing: Int[np.ndarray, "n width"], documents: Int[np.ndarray, "n width"]) -> float:
    """Share of the different bigrams of each sequence, BOS apart, that stand in its document too."""
    base = int(max(phrasing.max(), documents.max())) + 1
    row = np.arange(len(phrasing))[:, None] * base**2
    mine, its = (np.unique(row + one[:, 1:-1] * base + one[:, 2:]) for one in (phrasing, documents))
    return float(np.isin(mine, its).mean())


def fill(
    part: Rephrased, places: Places, first_step: int, n_steps: int
) -> Int[np.ndarray, "n_steps n width"]:
    """The documents of each step, in the phrasing of their round through the pool."""
    use = first_step * places.n + np.arange(n_steps * places.n)
    phrasing = (use // part.pool_size % part.phrasings).reshape(n_steps, places.n)
    return places.stored("tokens", phrasing * part.pool_size + part.members(places, first_step, n_steps))


def counted(part: Rephrased, places: Places, n_steps: int) -> Int[np.ndarray, " pool_size"]:
    """How often each document has been trained on verbatim: in every round that is the first of its phrasings."""
    rounds = n_steps * places.n // part.pool_size
    whole = -(-rounds // part.phrasings)
    if rounds % part.phrasings:
        return np.full(part.pool_size, whole, dtype=np.int64)
    return whole + places.rounds_counted("pool_order", n_steps, size=part.pool_size) - rounds
