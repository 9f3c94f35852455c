"""Two steps under each other's label: each fits better where the other stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.lint.report import Fact
from byrote.checkpoints.lint.trajectory import Trajectory, nan_median

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
        steps = (int(path.steps[chain[best.p]]), int(path.steps[chain[best.q]]))
        order[best.p], order[best.q] = order[best.q], order[best.p]
        meaning = "The two labels were exchanged: each step's weights lie between the other's neighbours."
        facts.append(
            Fact("swapped_steps", "warning", steps, meaning, {"path_shorter": best.gain}, leave_out=steps)
        )
    return facts, order


@dataclass(frozen=True)
class _Exchange:
    """Two places; the length of the edges concerned before over after; and by how much the path gets shorter."""

    p: int
    q: int
    gain: float
    shorter_by: float


def _best_exchange(d: Float[np.ndarray, "n n"]) -> _Exchange | None:
    """The exchange that shortens the path most, of those that are clear enough."""
    if len(d) < 4:
        return None
    return max([*_adjacent(d), *_distant(d)], key=lambda e: e.shorter_by, default=None)


def _adjacent(d: Float[np.ndarray, "n n"]) -> list[_Exchange]:
    """Clear exchanges of two neighbours: only the edges to the steps outside the pair count."""
    n = len(d)
    first = np.arange(n - 1)
    left, right = first > 0, first < n - 2
    outside = np.where(left, first - 1, 0), np.where(right, first + 2, 0)
    before = np.where(left, d[outside[0], first], 0), np.where(right, d[first + 1, outside[1]], 0)
    after = np.where(left, d[outside[0], first + 1], 0), np.where(right, d[first, outside[1]], 0)
    gain_left, gain_right = _ratio(before[0], after[0]), _ratio(before[1], after[1])
    gains = np.where(left & right, np.sqrt(gain_left * gain_right), np.where(left, gain_left, gain_right))
    each = np.minimum(np.where(left, gain_left, np.inf), np.where(right, gain_right, np.inf))
    found = []
    for p in np.flatnonzero(each > MIN_GAIN_EACH).tolist():
        nearby = np.r_[gains[max(0, p - AROUND) : max(0, p - 1)], gains[p + 2 : p + 2 + AROUND]]
        usual = float(nan_median(nearby, axis=0))
        # Weights that swing to and fro gain by every exchange: only what gains more than its surroundings counts.
        gain = float(gains[p]) / max(1.0, usual) if np.isfinite(usual) else 0.0
        if gain > (MIN_GAIN if left[p] and right[p] else MIN_GAIN_AT_END):
            shorter_by = float(sum(b[p] - a[p] for b, a in zip(before, after, strict=True)))
            found.append(_Exchange(p, p + 1, gain, shorter_by))
    return found


def _distant(d: Float[np.ndarray, "n n"]) -> list[_Exchange]:
    """The clear exchange of two steps that are not neighbours which shortens the path most, if there is one."""
    n = len(d)
    edges = np.vstack([np.zeros(n), d[:-1]]) + np.vstack([d[1:], np.zeros(n)])
    # edges[p, x]: how far weights x would be from the neighbours of place p, both together
    own = np.diag(edges)
    mean = edges / np.where(np.isin(np.arange(n), (0, n - 1)), 1.0, 2.0)[:, None]
    each = _ratio(np.broadcast_to(np.diag(mean), (n, n)), mean)  # what weights x gain by going to place p
    gain = _ratio(own[:, None] + own[None, :], edges + edges.T)
    clear = (np.minimum(each, each.T) > MIN_GAIN_EACH) & (gain > MIN_GAIN)
    clear &= np.abs(np.subtract.outer(np.arange(n), np.arange(n))) > 1
    if not clear.any():
        return []
    shorter_by = np.where(clear, own[:, None] + own[None, :] - edges - edges.T, -np.inf)
    p, q = np.unravel_index(np.argmax(shorter_by), shorter_by.shape)
    return [_Exchange(int(min(p, q)), int(max(p, q)), float(gain[p, q]), float(shorter_by[p, q]))]


def _ratio(a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """a / b; 1 where both are 0 or where either is not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((a == 0) & (b == 0), 1.0, np.asarray(a, dtype=float) / b)
    return np.where(np.isnan(ratio), 1.0, ratio)
