"""How alike two choices are: of sets, and of orders. No torch."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int

P = 0.9


def jaccard(a: Bool[np.ndarray, "draws k"], b: Bool[np.ndarray, "draws k"]) -> Float[np.ndarray, " draws"]:
    """Share of the members of either set that are in both."""
    return (a & b).sum(1) / (a | b).sum(1)


def random_jaccard(k: int, heads: int) -> float:
    """Mean Jaccard similarity of two random sets of k of these heads."""
    ways = math.comb(heads, k)
    return sum(
        math.comb(k, s) * math.comb(heads - k, k - s) / ways * s / (2 * k - s) for s in range(1, k + 1)
    )


def rank_biased_overlap(
    a: Int[np.ndarray, "draws k"], b: Int[np.ndarray, "draws k"], *, p: float = P
) -> Float[np.ndarray, " draws"]:
    """How alike two orders are, the first places counting most; 1 for the same, 0 for two that share nothing.

    Args:
        a, b: ids, the strongest first; no id twice in an order.
        p: weight of each place relative to the one before it.
    """
    k, shared = a.shape[1], np.zeros(len(a))
    total = np.zeros(len(a))
    for d in range(k):
        shared += (a[:, d, None] == b[:, : d + 1]).any(1)
        shared += (b[:, d, None] == a[:, :d]).any(1)
        total += shared / (d + 1) * p ** (d + 1)
    return shared / k * p**k + (1 - p) / p * total  # 3.
