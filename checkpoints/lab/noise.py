"""Token noise: the baseline of every arm that changes tokens on purpose. No torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from byrote.checkpoints.lab.arms.masked import Noisy
from byrote.checkpoints.lab.batches import Batches, Places
from byrote.checkpoints.lab.sequences import below, other_than, random_words, uniform


def change(part: Noisy, batches: Batches, places: Places, first_step: int) -> Batches:
    """Batches of which each token but BOS is, with probability `noise_frac`, one drawn uniformly from all but BOS."""
    n_steps, n, width = batches.wide.shape
    source = places.source
    words = random_words(
        f"noise/{places.number}", seed=places.seed, index=first_step * n, shape=(n_steps * n, 2 * width)
    ).reshape(n_steps, n, 2, width)
    drawn = other_than(below(words[:, :, 1], source.d_vocab - 1), source.bos_token_id)
    changed = (uniform(words[:, :, 0]) < part.noise_frac) & (batches.wide != source.bos_token_id)
    return replace(batches, wide=np.where(changed, drawn, batches.wide))
