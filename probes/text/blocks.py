"""Bounded summaries of a corpus of any length: sums per block of documents, and a sample.

Where there are too many documents (or windows) for a row each, neighbours are merged. Runs of consecutive documents stay
together, so the bootstrap over blocks also covers the likeness of neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num


def sums_by(flags: Sequence[Bool[np.ndarray, " n"]], starts: Int[np.ndarray, " s"]) -> Int[np.ndarray, "s k"]:
    """How many are set in each stretch: one column per array of flags, stretches start at `starts`."""
    columns = [np.add.reduceat(flag.view(np.int8), starts, dtype=np.int64) for flag in flags]
    return np.stack(columns, axis=1)


class Blocks:
    """At most `capacity` rows of sums, each over the same number of consecutive units.

    Args:
        columns: numbers summed per unit.
        capacity: rows stored; an even number.
        dtype: of the sums.
    """

    def __init__(self, columns: int, *, capacity: int = 1024, dtype: type = np.float64) -> None:
        self._sums: np.ndarray = np.zeros((capacity, columns), dtype=dtype)
        self.span = 1
        self.n = 0

    def add(self, units: Int[np.ndarray, " m"], values: Num[np.ndarray, "m k"]) -> None:
        """Add rows of numbers to their units.

        Args:
            units: index of the unit of each row, never falling, counted over the whole corpus.
            values: what to add.
        """
        if not len(units):
            return
        rows, first = self.rows_of(units)
        self._sums[rows[first]] += np.add.reduceat(values, first, axis=0).astype(self._sums.dtype)

    def add_counts(self, units: Int[np.ndarray, " m"], columns: Int[np.ndarray, " m"]) -> None:
        """Add 1 to one column of each entry's unit; units as for `add`."""
        if not len(units):
            return
        rows, _ = self.rows_of(units)
        low, width = int(rows[0]), self._sums.shape[1]
        flat = (rows - low) * width + columns
        part = self._sums[low : int(rows[-1]) + 1]
        part += np.bincount(flat, minlength=part.size).reshape(part.shape).astype(self._sums.dtype)

    def rows_of(self, units: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " r"]]:
        """Row of each unit, and where rows change; merges neighbours first where there is no room."""
        self.n = max(self.n, int(units[-1]) + 1)
        capacity = len(self._sums)
        while (self.n - 1) // self.span >= capacity:
            merged = self._sums[0::2] + self._sums[1::2]
            self._sums[: capacity // 2], self._sums[capacity // 2 :] = merged, 0
            self.span *= 2
        rows = units // self.span
        return rows, np.flatnonzero(np.diff(rows, prepend=-1))

    @property
    def sums(self) -> Num[np.ndarray, "blocks k"]:
        """The rows in use, in corpus order."""
        return self._sums[: -(-self.n // self.span)]


class Reservoir:
    """A uniform sample of a stream of unknown length (Vitter 1985, algorithm R): at most `size` of the items offered.

    Args:
        size: items stored.
        seed: of the draws.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.items: list[Any] = []
        self.offered = 0
        self._rng = np.random.default_rng([seed, 7])

    def places(self, count: int) -> Iterator[tuple[int, int]]:
        """For the next `count` items: (item, place) of those to be stored; put each with `items[place]` by `keep`."""
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
