"""Two steps under each other's label: each fits better where the other stands."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from checkpoints.lint.report import Fact
from checkpoints.lint.trajectory import Trajectory, nan_median

MIN_GAIN = 1.25  # by which the path must get shorter: straight paths give 2, random walks 1.4, pure noise 1
MIN_GAIN_EACH = 1.15
MIN_GAIN_AT_END = 1.2  # the last interval is short where the learning rate has fallen
AROUND = 4  # exchanges on each side whose gain counts as usual here
MAX_SWAPS = 16


def swap_facts(path: Trajectory, chain: list[int]) -> tuple[list[Fact], list[int]]:
    """Find exchanged labels among the steps of a chain.

    Args:
        path: distances.
        chain: indices to look at, ascending.

    Returns:
        Facts, and the chain in the order the weights suggest.
    """
    facts: list[Fact] = []
    order = list(chain)
    for _ in range(MAX_SWAPS):
        best = _best_exchange(path.distances[np.ix_(order, order)])
        if best is None:
            break
        p, q, gain = best
        steps = (int(path.steps[chain[p]]), int(path.steps[chain[q]]))
        order[p], order[q] = order[q], order[p]
        meaning = "The two labels were exchanged: each step's weights lie between the other's neighbours."
        facts.append(
            Fact("swapped_steps", "warning", steps, meaning, {"path_shorter": gain}, leave_out=steps)
        )
    return facts, order


def _best_exchange(distances: Float[np.ndarray, "n n"]) -> tuple[int, int, float] | None:
    """The exchange of two places that shortens the path most, with by how much: (p, q, before/after)."""
    if len(distances) < 4:
        return None
    neighbours, distant = _adjacent(distances), _distant(distances)
    return max((e for e in (neighbours, distant) if e is not None), key=lambda e: e[2], default=None)


def _adjacent(d: Float[np.ndarray, "n n"]) -> tuple[int, int, float] | None:
    """Exchange of two neighbours: only the edges to the steps outside the pair count."""
    n = len(d)
    first = np.arange(n - 1)
    left, right = first > 0, first < n - 2
    gain_left = _ratio(
        np.where(left, d[first - 1, first], 0), np.where(left, d[first - 1, first + 1], 0)
    )  # the second of the pair is nearer to what comes before
    beyond = np.minimum(first + 2, n - 1)
    gain_right = _ratio(np.where(right, d[first + 1, beyond], 0), np.where(right, d[first, beyond], 0))
    gains = np.where(left & right, np.sqrt(gain_left * gain_right), np.where(left, gain_left, gain_right))
    each = np.minimum(np.where(left, gain_left, np.inf), np.where(right, gain_right, np.inf))
    best: tuple[int, int, float] | None = None
    for p in range(n - 1):
        nearby = np.r_[gains[max(0, p - AROUND) : max(0, p - 1)], gains[p + 2 : p + 2 + AROUND]]
        usual = float(nan_median(nearby, axis=0))
        # Weights that swing to and fro gain by every exchange: only what gains more than its surroundings counts.
        gain = float(gains[p] / max(1.0, usual)) if np.isfinite(usual) else 0.0
        needed = MIN_GAIN if left[p] and right[p] else MIN_GAIN_AT_END
        if gain > needed and each[p] > MIN_GAIN_EACH and (best is None or gain > best[2]):
            best = (p, p + 1, gain)
    return best


def _distant(d: Float[np.ndarray, "n n"]) -> tuple[int, int, float] | None:
    """Exchange of two steps that are not neighbours: mean distance to the neighbours of either place."""
    n = len(d)
    before, after = np.vstack([np.zeros(n), d[:-1]]), np.vstack([d[1:], np.zeros(n)])
    count = np.full(n, 2.0)
    count[[0, -1]] = 1
    at = (before + after) / count[
        :, None
    ]  # at[p, x]: how far weights x would be from the neighbours of place p
    own = np.diag(at)
    each = _ratio(np.broadcast_to(own, (n, n)), at)  # each[p, x]: what weights x gain by going to place p
    both = np.minimum(each, each.T)
    gain = _ratio(own[:, None] + own[None, :], at + at.T)
    gain[(both < MIN_GAIN_EACH) | (gain < MIN_GAIN)] = 0
    gain[np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < 2] = 0
    p, q = np.unravel_index(np.argmax(gain), gain.shape)
    return (int(min(p, q)), int(max(p, q)), float(gain[p, q])) if gain[p, q] > 0 else None


def _ratio(a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """a / b; 1 where both are 0 or where either is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, np.asarray(a, dtype=float) / b)
    return np.where(np.isnan(ratio), 1.0, ratio)
