"""Heads of runs that did not grow from the same weights: their sorted scores, their mass, or heads matched by what they do. No torch.

Names say nothing between two initialisations: which head of a layer looks one token back is decided by the first weights.
What can be compared is the strongest with the strongest and so on, the sum of all above chance, or, of heads of one layer
matched one to one by their other scores, like with like. Each is labelled as what it is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def in_order(samples: Float[np.ndarray, "n k"], *, lower: bool = False) -> Int[np.ndarray, " k"]:
    """Columns by their mean, the strongest first; those without a value last.

    Args:
        samples: one row per sequence, one column per head.
        lower: whether lower is stronger.
    """
    finite = np.isfinite(samples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(finite, samples, 0.0).sum(0) / finite.sum(0)
    return np.argsort(np.where(np.isfinite(means), means if lower else -means, np.inf), kind="stable")


def mass(samples: Float[np.ndarray, "n k"], chance: Float[np.ndarray, " k"]) -> Float[np.ndarray, "n 1"]:
    """Sum over heads of what each has above chance, by sequence; a head without a chance level counts whole.

    Args:
        samples: one row per sequence, one column per head.
        chance: of each head.
    """
    return np.nansum(samples - np.nan_to_num(chance), axis=1, keepdims=True)


def matched(
    a: Float[np.ndarray, "k m"], b: Float[np.ndarray, "k m"], layer: Int[np.ndarray, " k"]
) -> Int[np.ndarray, " k"]:
    """Which head of B is most like each head of A: one to one within layers, least squared distance in all.

    Args:
        a, b: m scores of each of the k heads, other ones than those that will be compared. Each is counted in its own
            standard deviations over the heads of both runs.
        layer: of each head.

    Returns:
        Index of the head of B for each head of A (Kuhn 1955, the assignment problem).
    """
    from scipy.optimize import linear_sum_assignment

    both = np.concatenate([a, b])
    usable = np.isfinite(both).all(0)
    spread = both[:, usable].std(0)
    a, b = (x[:, usable][:, spread > 0] / spread[spread > 0] for x in (a, b))
    like = np.arange(len(layer))
    for one in np.unique(layer):
        mine = np.flatnonzero(layer == one)
        cost = ((a[mine, None] - b[None, mine]) ** 2).sum(-1)
        like[mine] = mine[linear_sum_assignment(cost)[1]]
    return like
