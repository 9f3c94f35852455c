"""Words of two tokens: pairs of ids that belong together, without a tokenizer. No torch.

A source of the lab that follows a bigram table names them. In any other text a pair (a, b) is a word when b follows a in
at least 3 windows, in at least a fifth of the windows in which anything follows a, and 5 times as often as b occurs in
windows at large: parts of names and split words do, "of the" does not. What a window repeats of its own counts once.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

MIN_WINDOWS, MIN_FRAC, MIN_LIFT = 3, 0.2, 5.0


def found_words(
    windows: Int[np.ndarray, "n width"], usable: Int[np.ndarray, " n_ids"]
) -> Int[np.ndarray, "n_words 2"]:
    """Words of a text, the most frequent first.

    Args:
        windows: BOS first.
        usable: ids that both tokens are among.
    """
    keep = np.isin(windows[:, 1:], usable)
    row = np.broadcast_to(np.arange(len(windows))[:, None], keep.shape)
    firsts = np.unique(np.stack([row[:, :-1], windows[:, 1:-1]], -1)[keep[:, :-1]], axis=0)[:, 1]
    seconds = np.unique(np.stack([row, windows[:, 1:]], -1)[keep], axis=0)[:, 1]
    both = keep[:, :-1] & keep[:, 1:]
    triples = np.stack([row[:, :-1], windows[:, 1:-1], windows[:, 2:]], -1)[both]
    pairs, count = np.unique(np.unique(triples, axis=0)[:, 1:], axis=0, return_counts=True)
    if not len(pairs):
        return np.zeros((0, 2), dtype=np.int64)
    of_first, of_second = (np.bincount(ids, minlength=pairs.max() + 1) for ids in (firsts, seconds))
    share = count / of_first[pairs[:, 0]]
    lift = share / (of_second[pairs[:, 1]] / len(windows))
    words = (count >= MIN_WINDOWS) & (share >= MIN_FRAC) & (lift >= MIN_LIFT) & (pairs[:, 0] != pairs[:, 1])
    return pairs[words][np.argsort(-count[words], kind="stable")].astype(np.int64)
