"""How much of a reference's rare tail is left in another text?

Source: the loss of tails in Shumailov et al. 2024 (Nature 631:755), counted on n-grams; coverage at equal size is
rarefaction (Hurlbert 1971).

1. The reference is split: even documents (or pieces) are its first half, odd ones its second.
2. Its rare n-grams, for n = 1, 2, 3, are the least frequent of the first half that together make up at least a tenth
   of it; n-grams of equal count go together.
3. `mass` is the share of a text's n-grams that are among them. Chance: the same in the reference's second half.
4. `survival` is mass over that chance: 1 when the tail is all there, below 1 where it is lost.
5. `coverage` is the expected share of the rare n-grams that occur at all in m n-grams of the text,
   mean over them of 1 - (1 - m / N)^k for k occurrences in N; m is half of the smaller of text and second half, so that
   sizes do not matter. Chance: the same in the second half.
6. Where the first half has more than 262,144 kinds of n-gram, or more than 65,536 rare ones, a sample of the kinds by
   hash is counted (one in a power of 2): mass and coverage are then estimates, and `TailMass.notes` says their standard
   error, which is not in the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num, UInt64

from byrote.checkpoints.ngrams import hashes, sequence_of
from byrote.probes.statistics import Triple, linearised_interval, quotient_interval, ratio_intervals
from byrote.probes.text.blocks import Blocks
from byrote.probes.text.report import Number
from byrote.probes.text.windows import Batch

ORDERS = (1, 2, 3)
RARE_FRAC = 0.1
MAX_COUNTED, MAX_RARE = 1 << 18, 1 << 16
_BLOCKS = 32
_FILTER_BITS = 22


class Table:
    """Counts of n-grams by hash; past `limit` of them, every second one is dropped, chosen by its hash."""

    def __init__(self, limit: int = MAX_COUNTED) -> None:
        self.keys, self.counts = np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
        self.level, self.total, self._limit = 0, 0, limit

    def add(self, codes: UInt64[np.ndarray, " n"]) -> None:
        """Count a batch of hashes."""
        self.total += len(codes)
        new, counts = np.unique(_of_level(codes, self.level), return_counts=True)
        keys = np.concatenate([self.keys, new])
        order = np.argsort(keys, kind="stable")
        first = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] ^ np.uint64(1)))
        self.keys = keys[order][first]
        both = np.concatenate([self.counts, counts])[order]
        self.counts = np.add.reduceat(both, first) if len(both) else both
        while len(self.keys) > self._limit:
            self.thin()

    def thin(self) -> None:
        """Let every second n-gram go."""
        self.level += 1
        kept = (self.keys & _mask(self.level)) == 0
        self.keys, self.counts = self.keys[kept], self.counts[kept]


@dataclass(frozen=True)
class Rare:
    """Rare n-grams of one length.

    Attributes:
        keys: their hashes, ascending.
        level: of the sample by hash: one in 2^level was looked at.
        max_count: the highest count, in the first half, of what is called rare.
        maybe: for each value of the low bits of a hash, whether a rare one has them.
    """

    keys: UInt64[np.ndarray, " k"]
    level: int
    max_count: int
    maybe: Bool[np.ndarray, " bits"]

    @classmethod
    def of(cls, table: Table) -> Rare:
        """The least frequent n-grams with at least `RARE_FRAC` of the counts; at most `MAX_RARE` of them."""
        counts = np.bincount(table.counts) if len(table.counts) else np.zeros(1, dtype=np.int64)
        mass = np.cumsum(counts * np.arange(len(counts)))
        max_count = int(np.searchsorted(mass, RARE_FRAC * mass[-1]))
        keys, level = table.keys[table.counts <= max_count], table.level
        while len(keys) > MAX_RARE:
            level += 1
            keys = keys[(keys & _mask(level)) == 0]
        maybe = np.zeros(1 << _FILTER_BITS, dtype=bool)
        maybe[_slot(keys)] = True
        return cls(keys, level, max_count, maybe)

    def find(self, codes: UInt64[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """(which of the codes are rare, which rare n-gram each is)."""
        at = np.flatnonzero(self.maybe[_slot(codes)])
        place = np.searchsorted(self.keys, codes[at])
        place[place == len(self.keys)] = 0
        hit = self.keys[place] == codes[at] if len(self.keys) else np.zeros(len(at), dtype=bool)
        return at[hit], place[hit]


class RareCounts:
    """Counts the first half of a reference; `rare` gives its tail."""

    def __init__(self) -> None:
        self._tables = {n: Table() for n in ORDERS}

    def add(self, batch: Batch) -> None:
        """Count the even documents of one batch."""
        even = (batch.piece_units % 2 == 0)[sequence_of(batch.pieces, len(batch.tokens))]
        for n, ends, codes in hashes(batch.tokens, batch.pieces, ORDERS):
            self._tables[n].add(codes[even[ends]])

    def rare(self) -> dict[int, Rare]:
        """The rare n-grams of each length."""
        return {n: Rare.of(table) for n, table in self._tables.items()}


class TailMass:
    """Occurrences of a reference's rare n-grams in one text.

    Args:
        rare: by length.
        seed: of the bootstrap.
        resampled: what units are.
        odd_only: count only odd documents: the second half of the reference itself.
    """

    name = "tail_mass"

    def __init__(self, rare: dict[int, Rare], *, seed: int, resampled: str, odd_only: bool = False) -> None:
        self.seed, self.resampled, self._rare, self._odd = seed, resampled, rare, odd_only
        self._mass = {n: Blocks(2) for n in ORDERS}
        self._hits = {n: Blocks(len(rare[n].keys) + 1, capacity=_BLOCKS, dtype=np.int32) for n in ORDERS}

    def add(self, batch: Batch) -> None:
        """Look for the rare n-grams in one batch."""
        unit = batch.piece_units[sequence_of(batch.pieces, len(batch.tokens))]
        for n, ends, codes in hashes(batch.tokens, batch.pieces, ORDERS):
            units = unit[ends]
            if self._odd:
                kept = units % 2 == 1
                units, codes = units[kept] // 2, codes[kept]
            if not len(codes):
                continue
            at, which = self._rare[n].find(codes)
            weight = np.zeros((len(codes), 2))
            weight[at, 0], weight[:, 1] = 1 << self._rare[n].level, 1
            self._mass[n].add(units, weight)
            # The last column holds n-grams that are not rare: every block counts its own total.
            column = np.full(len(codes), len(self._rare[n].keys))
            column[at] = which
            self._hits[n].add_counts(units, column)

    def notes(self) -> Iterator[str]:
        """For every n of which only a sample of the rare n-grams was looked for: how far that may be off."""
        for n, rare in self._rare.items():
            counts = self.hits(n).sum(0, dtype=np.int64)[:-1]
            if rare.level and counts.any():
                error = sampling_error(counts, rare.level)
                yield (
                    f"tail_mass n={n}: 1 in {1 << rare.level:,} rare {n}-grams was looked for, which adds a standard "
                    f"error of {100 * error:.2g}% to mass beyond its interval"
                )

    def mass(self, n: int) -> tuple[Num[np.ndarray, " blocks"], Num[np.ndarray, " blocks"]]:
        """Rare n-grams and all n-grams per block."""
        sums = self._mass[n].sums
        return sums[:, 0], sums[:, 1]

    def hits(self, n: int) -> Num[np.ndarray, "blocks rare_and_rest"]:
        """Occurrences of each rare n-gram per block, and of all others in the last column."""
        return self._hits[n].sums

    def numbers(self, held_out: TailMass | None) -> Iterator[Number]:
        """Mass, survival and coverage for every n; against nothing for the reference itself."""
        for n in ORDERS:
            other = held_out or self
            reason = _too_small(self, other, n)
            if reason:
                yield Number(self.name, "mass", reason=reason)
                return
            yield from self._of_order(n, other, is_reference=held_out is None)

    def _of_order(self, n: int, other: TailMass, *, is_reference: bool) -> Iterator[Number]:
        def number(metric: str, interval: Triple, unit: str, chance: float) -> Number:
            chance = np.nan if is_reference else chance
            return Number(
                self.name, metric, interval, unit, chance, n, n=self._mass[n].n, resampled=self.resampled
            )

        top, below = self.mass(n)
        (mass,) = ratio_intervals(top[:, None], below[:, None], seed=self.seed)
        other_top, other_below = other.mass(n)
        yield number("mass", mass, "fraction", float(other_top.sum() / other_below.sum()))
        if not is_reference and other_top.sum():
            survival = quotient_interval((top, below), (other_top, other_below), seed=self.seed)
            yield number("survival", survival, "ratio", 1.0)
        drawn = 0.5 * min(below.sum(), other_below.sum())
        coverage = linearised_interval(*_coverages(self.hits(n), drawn), seed=self.seed)
        chance = _coverage(other.hits(n).sum(0, dtype=np.int64), drawn)
        yield number("coverage", coverage, "fraction", chance)


def sampling_error(counts: Int[np.ndarray, " rare"], level: int) -> float:
    """Standard error, as a share of it, of a total of counts of which one kind in 2^level was looked at (Horvitz and
    Thompson 1952; every kind in or out by itself).
    """
    out = 1 - 0.5**level
    return float(np.sqrt(out * np.square(counts, dtype=np.float64).sum()) / counts.sum())


def _too_small(text: TailMass, held_out: TailMass, n: int) -> str:
    if not len(text._rare[n].keys) or not held_out.mass(n)[1].sum():
        return "the reference is too short: its second half is empty"
    return "" if text.mass(n)[1].sum() else f"the text has no {n}-grams"


def _coverages(
    hits: Num[np.ndarray, "blocks rare_and_rest"], drawn: float
) -> tuple[float, list[Float[np.ndarray, " left_out"]]]:
    """Coverage at `drawn` n-grams, and without each block."""
    total = hits.sum(0, dtype=np.int64)
    without = [_coverage(total - block, drawn) for block in hits] if len(hits) > 1 else []
    return _coverage(total, drawn), [np.asarray(without)]


def _coverage(hits: Int[np.ndarray, " rare_and_rest"], drawn: float) -> float:
    share = min(1.0, drawn / max(1, int(hits.sum())))
    counts, times = np.unique(hits[:-1], return_counts=True)  # many share the same few counts: one power each
    return float((times * (1 - (1 - share) ** counts)).sum() / times.sum())


def _mask(level: int) -> np.uint64:
    return np.uint64((1 << level) - 1)


def _of_level(codes: np.ndarray, level: int) -> np.ndarray:
    return codes[(codes & _mask(level)) == 0] if level else codes


def _slot(codes: np.ndarray) -> np.ndarray:
    """High bits: the low ones are 0 in a sample."""
    return (codes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)
