"""A uniform sample of a stream of unknown length (Vitter 1985, algorithm R), with a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


class Reservoir:
    """Keeps at most `size` of the items offered, each equally likely to be kept.

    Args:
        size: items kept.
        seed: of the draws.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.items: list[Any] = []
        self.offered = 0
        self._rng = np.random.default_rng([seed, 7])

    def places(self, count: int) -> Iterator[tuple[int, int]]:
        """For the next `count` items: (item, place) of those to be kept; put each with `items[place]` by `keep`."""
        numbers = np.arange(self.offered, self.offered + count)
        drawn = np.floor(self._rng.random(count) * (numbers + 1)).astype(np.int64)
        place = np.where(numbers < self.size, numbers, drawn)
        self.offered += count
        for item in np.flatnonzero(place < self.size):
            yield int(item), int(place[item])

    def keep(self, place: int, item: Any) -> None:
        """Put an item in its place, over the one that was there."""
        if place == len(self.items):
            self.items.append(item)
        else:
            self.items[place] = item
