"""Which tokens count in the loss: not those that a copy predicts. No torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from byrote.checkpoints.lab.arms.masked import Masked
from byrote.checkpoints.lab.batches import Batches, Places
from byrote.checkpoints.lab.sequences import random_words
from byrote.checkpoints.ngrams import repeats


def seen_bigrams(wide: Int[np.ndarray, "*rows width"]) -> Bool[np.ndarray, "*rows n_ctx"]:
    """Whether each token but the first ends a bigram that stood earlier in its sequence: what a copy predicts."""
    width = wide.shape[-1]
    starts = np.arange(0, wide.size, width)
    seen = np.zeros(wide.size, dtype=bool)
    for found in repeats(wide.astype(np.uint64).ravel(), starts, (1, 2)):
        seen = found.seen
    return seen.reshape(wide.shape)[..., 1:]


def change(part: Masked, batches: Batches, places: Places, first_step: int) -> Batches:
    """Batches in which tokens whose bigram stood earlier in their sequence, or as many others of it, do not count."""
    left_out = seen_bigrams(batches.wide)
    if part.masked == "random":
        n_steps, n, n_ctx = left_out.shape
        words = random_words(
            f"masked/{places.number}", seed=places.seed, index=first_step * n, shape=(n_steps * n, n_ctx)
        )
        rank = np.argsort(np.argsort(words, axis=1, kind="stable"), axis=1, kind="stable")
        left_out = rank.reshape(left_out.shape) < left_out.sum(-1, keepdims=True)
    counted = ~left_out
    return replace(batches, counted=counted if batches.counted is None else counted & batches.counted)
