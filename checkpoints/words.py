"""Words of two tokens: pairs of ids that belong together, without a tokenizer. No torch.

A source of the lab that follows a bigram table names them. In any other text a pair (a, b) is a word when it occurs in at
least 3 windows, b follows a at least half of the times that anything does, and at least 5 times as often as b is any
token: the parts of a split word or a name are, "of the" is not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

MIN_WINDOWS, MIN_FRAC, MIN_LIFT = 3, 0.5, 5.0


def found_words(
    windows: Int[np.ndarray, "n width"], usable: Int[np.ndarray, " n_ids"]
) -> Int[np.ndarray, "n_words 2"]:
    """Words of a text, those in most windows first.

    Args:
        windows: BOS first.
        usable: ids that both tokens are among.
    """
    row = np.broadcast_to(np.arange(len(windows))[:, None], (len(windows), windows.shape[1] - 2))
    triples = np.stack([row, windows[:, 1:-1], windows[:, 2:]], -1).reshape(-1, 3)
    triples = triples[np.isin(triples[:, 1:], usable).all(1) & (triples[:, 1] != triples[:, 2])]
    if not len(triples):
        return np.zeros((0, 2), dtype=np.int64)
    pairs, times = np.unique(triples[:, 1:], axis=0, return_counts=True)
    in_windows = np.unique(np.unique(triples, axis=0)[:, 1:], axis=0, return_counts=True)[1]
    n_ids = int(windows.max()) + 1
    first, token = (np.bincount(part.ravel(), minlength=n_ids) for part in (windows[:, 1:-1], windows[:, 1:]))
    share = times / first[pairs[:, 0]]
    lift = share / (token[pairs[:, 1]] / token.sum())
    words = (in_windows >= MIN_WINDOWS) & (share >= MIN_FRAC) & (lift >= MIN_LIFT)
    return pairs[words][np.argsort(-in_windows[words], kind="stable")].astype(np.int64)
