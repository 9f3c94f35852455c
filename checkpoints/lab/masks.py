"""Which tokens count, and noise: what changes whole batches, by step number. No torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int

from byrote.checkpoints.lab.batches import Batches, Places
from byrote.checkpoints.lab.sequences import below, other_than, random_words, uniform
from byrote.checkpoints.ngrams import repeats


def seen_bigrams(wide: Int[np.ndarray, "*rows width"]) -> Bool[np.ndarray, "*rows n_ctx"]:
    """Whether each token but the first ends a bigram that stood earlier in its sequence: what a copy predicts."""
    width = wide.shape[-1]
    starts = np.arange(0, wide.size, width)
    seen = np.zeros(wide.size, dtype=bool)
    for found in repeats(wide.astype(np.uint64).ravel(), starts, (1, 2)):
        seen = found.seen
    return seen.reshape(wide.shape)[..., 1:]


def without_inducible(batches: Batches, places: Places, first_step: int, *, at_random: bool) -> Batches:
    """Batches in which tokens whose bigram stood earlier in their sequence do not count.

    Args:
        batches: to be changed.
        places: of the part.
        first_step: of the batches.
        at_random: instead, as many tokens of each sequence do not count, chosen by random words.
    """
    left_out = seen_bigrams(batches.wide)
    if at_random:
        n_steps, n, n_ctx = left_out.shape
        words = random_words(
            f"masked/{places.number}", seed=places.seed, index=first_step * n, shape=(n_steps * n, n_ctx)
        )
        rank = np.argsort(np.argsort(words, axis=1, kind="stable"), axis=1, kind="stable")
        left_out = rank.reshape(left_out.shape) < left_out.sum(-1, keepdims=True)
    counted = ~left_out
    return replace(batches, counted=counted if batches.counted is None else counted & batches.counted)


def with_noise(batches: Batches, places: Places, first_step: int, *, frac: float) -> Batches:
    """Batches of which each token but BOS is, with probability `frac`, one drawn uniformly from all but BOS."""
    n_steps, n, width = batches.wide.shape
    source = places.source
    words = random_words(
        f"noise/{places.number}", seed=places.seed, index=first_step * n, shape=(n_steps * n, 2 * width)
    ).reshape(n_steps, n, 2, width)
    drawn = other_than(below(words[:, :, 1], source.d_vocab - 1), source.bos_token_id)
    changed = (uniform(words[:, :, 0]) < frac) & (batches.wide != source.bos_token_id)
    return replace(batches, wide=np.where(changed, drawn, batches.wide))
