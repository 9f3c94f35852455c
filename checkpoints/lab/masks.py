"""Tokens that repeat something of their sequence, left out of the loss or of what the model reads. No torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int, UInt64

from byrote.checkpoints.lab.arms.masked import Masked, RepetitionDropout
from byrote.checkpoints.lab.batches import Batches, Places
from byrote.checkpoints.lab.sequences import random_words, uniform
from byrote.checkpoints.ngrams import repeats


def seen_bigrams(wide: Int[np.ndarray, "*rows width"]) -> Bool[np.ndarray, "*rows n_ctx"]:
    """Whether each token but the first ends a bigram that stood earlier in its sequence: what a copy predicts."""
    return seen_ngrams(wide, 2)


def seen_ngrams(wide: Int[np.ndarray, "*rows width"], n: int) -> Bool[np.ndarray, "*rows n_ctx"]:
    """Whether each token but the first ends an n-gram that stood earlier in its sequence."""
    width = wide.shape[-1]
    starts = np.arange(0, wide.size, width)
    seen = np.zeros(wide.size, dtype=bool)
    for found in repeats(wide.astype(np.uint64).ravel(), starts, range(1, n + 1)):
        seen = found.seen
    return seen.reshape(wide.shape)[..., 1:]


def as_many_at_random(
    chosen: Bool[np.ndarray, "n_steps n width"], words: UInt64[np.ndarray, "n_steps n width"]
) -> Bool[np.ndarray, "n_steps n width"]:
    """As many tokens of each sequence as were chosen, anywhere in it: those with the lowest words."""
    rank = np.argsort(np.argsort(words, axis=-1, kind="stable"), axis=-1, kind="stable")
    return rank < chosen.sum(-1, keepdims=True)


def change(part: Masked, batches: Batches, places: Places, first_step: int) -> Batches:
    """Batches in which tokens whose bigram stood earlier in their sequence, or as many others of it, do not count."""
    left_out = seen_bigrams(batches.wide)
    if part.masked == "random":
        n_steps, n, n_ctx = left_out.shape
        words = random_words(
            f"masked/{places.number}", seed=places.seed, index=first_step * n, shape=(n_steps * n, n_ctx)
        )
        left_out = as_many_at_random(left_out, words.reshape(left_out.shape))
    return replace(batches, counted=_and(~left_out, batches.counted))


def drop_repetition(part: RepetitionDropout, batches: Batches, places: Places, first_step: int) -> Batches:
    """Batches in which tokens that end an n-gram of their sequence again are left out with some probability.

    Which ones is drawn anew in every step. The last token of a sequence is predicted and not read, so that it can be left
    out of the loss alone.
    """
    repeated = seen_ngrams(batches.wide, part.n)
    if part.how != "loss":
        repeated = repeated[..., :-1]
    words = random_words(
        f"repetition_dropout/{places.number}",
        seed=places.seed,
        index=first_step * repeated.shape[1],
        shape=(repeated.shape[0] * repeated.shape[1], 2 * repeated.shape[-1]),
    ).reshape(*repeated.shape[:-1], 2, -1)
    dropped = repeated & (uniform(words[..., 0, :]) < part.rate)
    if part.dropped == "random":
        dropped = as_many_at_random(dropped, words[..., 1, :])
    if part.how == "loss":
        return replace(batches, counted=_and(~dropped, batches.counted))
    first = np.zeros((*dropped.shape[:-1], 1), dtype=bool)  # BOS is never left out
    dropped = np.concatenate([first, dropped], axis=-1)
    if part.how == "attention":
        return replace(batches, attended=_and(~dropped, batches.attended))
    read = batches.wide[..., :-1] if batches.read is None else batches.read
    return replace(batches, read=np.where(dropped, places.source.bos_token_id, read))


def _and(one: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    return one if other is None else one & other
