"""Where a text repeats itself, and what an induction head would attend to there: the targets of prefix matching. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Repeats:
    """What recurs in one sequence.

    Attributes:
        starts: first position of each block of a text that repeats one block throughout, position 0 apart; () of any other.
        targets: for each query position, the keys that followed the earlier copies of its token, ascending: what prefix
            matching counts (see `byrote.probes.heads.prefix_matching`).
    """

    starts: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]

    def on_target(self, pattern: Float[np.ndarray, "query_pos key_pos"]) -> Float[np.ndarray, " query_pos"]:
        """Attention of each query on its targets, 0-1; NaN for one without a target, and beyond the pattern's end.

        Args:
            pattern: attention of one head, rows sum to 1; it may be cut at the end.
        """
        found = np.full(len(self.targets), np.nan)
        for query, keys in enumerate(self.targets[: len(pattern)]):
            if keys:
                found[query] = pattern[query, list(keys)].sum()
        return found

    def telling(self, pattern: Float[np.ndarray, "query_pos key_pos"]) -> int:
        """The query with the most attention on its targets, the first of equals; the last one where none has a target."""
        on = self.on_target(pattern)
        return int(np.nanargmax(on)) if np.isfinite(on).any() else len(pattern) - 1


def repeats_of(tokens: Int[np.ndarray, " pos"]) -> Repeats:
    """Blocks and targets of a sequence, position 0 taken as its beginning and not as a part of a block.

    Args:
        tokens: ids.
    """
    at: dict[int, list[int]] = {}
    targets = []
    for place, token in enumerate(tokens.tolist()):
        copies = at.setdefault(token, [])
        targets.append(tuple(copy + 1 for copy in copies))
        copies.append(place)
    return Repeats(_starts(tokens[1:]), tuple(targets))


def _starts(body: Int[np.ndarray, " length"]) -> tuple[int, ...]:
    """Where the blocks of a text begin that is one block over and over; () where it is not, or not twice."""
    length = len(body)
    for size in range(1, length // 2 + 1):
        if (body[size:] == body[:-size]).all():
            return tuple(range(1, length + 1, size))
    return ()
