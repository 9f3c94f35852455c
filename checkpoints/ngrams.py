"""n-grams of many short sequences at once: which were seen before, and their hashes. numpy only, no loop over tokens.

Repeats are found exactly, by naming n-grams (Karp, Miller and Rosenberg 1972): the n-gram ending at i is the pair of
the m-grams ending at i - (n - m) and at i, for any m from n / 2 to n - 1. An n-gram can only repeat where both of its
m-grams do, so the work shrinks as n grows. Hashes (for counting in tables) are rolling, 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num, UInt64

_SMALL_ID = np.uint64(1 << 32)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Repeats:
    """Of the n-gram that ends at each token, inside its own sequence.

    Attributes:
        n: length of the n-gram.
        seen: an equal n-gram ended earlier in the sequence.
        shared: an equal n-gram ends elsewhere in the sequence, earlier or later.
    """

    n: int
    seen: Bool[np.ndarray, " tokens"]
    shared: Bool[np.ndarray, " tokens"]


def mix(codes: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """A fixed scrambling of 64 bits, one to one (splitmix64's finaliser, Steele et al. 2014)."""
    z = codes + _FACTOR
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sequence_of(starts: Int[np.ndarray, " s"], n: int) -> Int[np.ndarray, " n"]:
    """Index of the sequence each of n tokens belongs to; `starts` rises from 0."""
    return np.repeat(np.arange(len(starts)), np.diff(starts, append=n))


def positions(starts: Int[np.ndarray, " s"], n: int) -> Int[np.ndarray, " n"]:
    """Position of each of n tokens in its own sequence."""
    return np.arange(n) - np.repeat(starts, np.diff(starts, append=n))


def repeats(
    tokens: UInt64[np.ndarray, " n"], starts: Int[np.ndarray, " s"], orders: Sequence[int]
) -> Iterator[Repeats]:
    """Repeats of every order, shortest first.

    Args:
        tokens: codes of all sequences, one after another.
        starts: where each sequence starts.
        orders: lengths, rising from 1, each at most twice the one before.
    """
    position = positions(starts, len(tokens))
    candidates = np.arange(len(tokens))
    keys = _first_keys(tokens, starts)
    names, length = candidates, 0
    for n in orders:
        if length:
            candidates, keys = _pairs(names, position, n, length)
        names, found = _group(keys, candidates, n, len(tokens))
        length = n
        yield found


def _first_keys(tokens: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Codes that are equal for equal tokens of the same sequence: exact for ids, by 64-bit hash for words."""
    sequence = sequence_of(starts, len(tokens)).astype(np.uint64)
    if not len(tokens) or tokens.max() < _SMALL_ID:
        return (sequence << np.uint64(32)) | tokens
    return mix(tokens ^ mix(sequence))


def _pairs(names: np.ndarray, position: np.ndarray, n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of n-grams both of whose m-grams repeat, and a code for each pair of names."""
    if not length < n <= 2 * length:
        raise ValueError(f"order {n} cannot be named from order {length}")
    ends = np.flatnonzero((names >= 0) & (position >= n - 1))
    ends = ends[names[ends - (n - length)] >= 0]
    count = np.uint64(len(names) + 1)
    return ends, names[ends - (n - length)].astype(np.uint64) * count + names[ends].astype(np.uint64)


def _group(keys: np.ndarray, candidates: np.ndarray, n: int, n_tokens: int) -> tuple[np.ndarray, Repeats]:
    """Name equal keys; -1 for what occurs once."""
    names = np.full(n_tokens, -1, dtype=np.int64)
    seen, shared = np.zeros(n_tokens, dtype=bool), np.zeros(n_tokens, dtype=bool)
    if len(keys):
        order = np.argsort(keys)
        in_order, ends = keys[order], candidates[order]
        first = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))
        size = np.diff(first, append=len(keys))
        many = np.repeat(size > 1, size)
        names[ends[many]] = np.repeat(np.arange(len(first)), size)[many]
        shared[ends[many]] = True
        seen[ends] = ends != np.repeat(np.minimum.reduceat(ends, first), size)
    return names, Repeats(n, seen, shared)


def hashes(
    tokens: UInt64[np.ndarray, " n"], starts: Int[np.ndarray, " s"], orders: Sequence[int]
) -> Iterator[tuple[int, Int[np.ndarray, " m"], UInt64[np.ndarray, " m"]]]:
    """(n, where each n-gram ends, its 64-bit hash) for every order from 1 up to the longest requested.

    Args:
        tokens: codes of all sequences, one after another.
        starts: where each sequence starts.
        orders: lengths wanted, rising.
    """
    position = positions(starts, len(tokens))
    single = mix(tokens)
    rolling = single.copy()
    for n in range(1, max(orders) + 1):
        if n > 1:
            rolling[1:] = rolling[:-1] * _FACTOR + single[1:]
            rolling[:1] = 0
        if n in orders:
            ends = np.flatnonzero(position >= n - 1)
            yield n, ends, mix(rolling[ends] + np.uint64(n))


def entropy_nats(counts: Num[np.ndarray, "*batch buckets"]) -> Float[np.ndarray, "*batch"]:
    """Entropy of the shares, in nats."""
    p = counts / counts.sum(-1, keepdims=True)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(-1))


def top_mass(counts: Num[np.ndarray, "*batch buckets"]) -> Float[np.ndarray, "*batch"]:
    """Share of the fullest 1% of buckets."""
    top = max(1, counts.shape[-1] // 100)
    return np.asarray(np.partition(counts, -top, axis=-1)[..., -top:].sum(-1) / counts.sum(-1))
