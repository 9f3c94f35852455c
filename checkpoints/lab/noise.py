"""Token noise, the baseline of every arm that changes tokens on purpose, and copies that cannot be relied on. No torch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from byrote.checkpoints.lab.arms.masked import Noisy, Unreliable
from byrote.checkpoints.lab.batches import Batches, Places
from byrote.checkpoints.lab.masks import seen_bigrams
from byrote.checkpoints.lab.sequences import below, other_than, random_words, uniform


def change(part: Noisy | Unreliable, batches: Batches, places: Places, first_step: int) -> Batches:
    """Batches of which some tokens, never BOS, are drawn anew, uniformly from all but BOS.

    Of `Noisy` each with probability `noise_frac`; of `Unreliable` copies alone, all of them in the sequences that keep none.
    """
    n_steps, n, width = batches.wide.shape
    source = places.source
    words_of = partial(random_words, seed=places.seed, index=first_step * n)
    words = words_of(f"noise/{places.number}", shape=(n_steps * n, 2 * width)).reshape(n_steps, n, 2, width)
    drawn = other_than(below(words[:, :, 1], source.d_vocab - 1), source.bos_token_id)
    changed = batches.wide != source.bos_token_id
    if isinstance(part, Noisy):
        changed &= uniform(words[:, :, 0]) < part.noise_frac
    else:
        each = words_of(f"repeating/{places.number}", shape=(n_steps * n, 1))
        repeating = (uniform(each) < part.repeating).reshape(n_steps, n, 1)
        lost = ~repeating | (uniform(words[:, :, 0]) >= part.reliability)
        changed[..., 1:] &= seen_bigrams(batches.wide)
        changed[..., 0] = False
        changed &= lost
    return replace(batches, wide=np.where(changed, drawn, batches.wide))
