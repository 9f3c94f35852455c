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

EXPECTED_PROB = 0.1
"""What a table has to give a token to predict it: below it stands to gain more than ln 10 = 2.3 nats from a copy."""
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


class NgramTable:
    """Counts of n-grams and of the n-1 tokens that they begin with, in all documents and in each.

    Args:
        codes: hash of each n-gram, one entry per occurrence.
        contexts: hash of its first n-1 tokens.
        documents: which document it stands in.
    """

    def __init__(
        self,
        codes: UInt64[np.ndarray, " m"],
        contexts: UInt64[np.ndarray, " m"],
        documents: Int[np.ndarray, " m"],
    ) -> None:
        salt = mix(documents.astype(np.uint64))
        self._all = np.sort(codes), np.sort(contexts)
        self._own = np.sort(mix(codes ^ salt)), np.sort(mix(contexts ^ salt))

    def expects(
        self,
        codes: UInt64[np.ndarray, " k"],
        contexts: UInt64[np.ndarray, " k"],
        documents: Int[np.ndarray, " k"] | None = None,
    ) -> Bool[np.ndarray, " k"]:
        """Whether P(last token | the n-1 before it) is at least `EXPECTED_PROB`; where a context never occurs, it is not.

        Args:
            codes, contexts: of the n-grams in question.
            documents: the document of each, whose own counts are left out; None leaves none out.
        """
        hits, chances = (
            _count(table, wanted) for table, wanted in zip(self._all, (codes, contexts), strict=True)
        )
        if documents is not None:
            salt = mix(documents.astype(np.uint64))
            hits = hits - _count(self._own[0], mix(codes ^ salt))
            chances = chances - _count(self._own[1], mix(contexts ^ salt))
        return (hits > 0) & (hits >= EXPECTED_PROB * chances)


def _count(table: UInt64[np.ndarray, " m"], wanted: UInt64[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """How often each of some codes stands in a sorted table."""
    return np.searchsorted(table, wanted, side="right") - np.searchsorted(table, wanted, side="left")


def ngrams(
    tokens: UInt64[np.ndarray, " n"], starts: Int[np.ndarray, " s"], orders: Sequence[int]
) -> Iterator[tuple[int, Int[np.ndarray, " m"], UInt64[np.ndarray, " m"], UInt64[np.ndarray, " m"]]]:
    """(n, where each n-gram ends, its hash, the hash of its first n-1 tokens) for every order.

    Args:
        tokens: codes of all sequences, one after another.
        starts: where each sequence starts.
        orders: lengths wanted, rising without a gap, the first at least 2.
    """
    before = np.zeros(len(tokens), dtype=np.uint64)
    for n, ends, codes in hashes(tokens, starts, (min(orders) - 1, *orders)):
        if n in orders:
            yield n, ends, codes, before[ends - 1]
        before[ends] = codes


def unexpected_repeats(
    tokens: UInt64[np.ndarray, " n"],
    starts: Int[np.ndarray, " s"],
    documents: Int[np.ndarray, " s"],
    orders: Sequence[int],
) -> Iterator[tuple[int, Bool[np.ndarray, " n"], NgramTable]]:
    """Tokens that looking back in the sequence predicts and the n-gram table of all other documents does not.

    Args:
        tokens: codes of all sequences, one after another.
        starts: where each sequence starts.
        documents: the document that each sequence belongs to; its own n-grams say nothing about it.
        orders: lengths, from 2, rising without a gap.

    Yields:
        (n; for each token whether the n-gram it ends ended earlier in its sequence and is not expected, see
        `NgramTable.expects`; the table of all documents).
    """
    of_token = np.repeat(documents, np.diff(starts, append=len(tokens)))
    seen = {one.n: one.seen for one in repeats(tokens, starts, (*range(1, min(orders)), *orders))}
    for n, ends, codes, contexts in ngrams(tokens, starts, orders):
        table = NgramTable(codes, contexts, of_token[ends])
        again = seen[n][ends]
        known = table.expects(codes[again], contexts[again], of_token[ends[again]])
        found = np.zeros(len(tokens), dtype=bool)
        found[ends[again][~known]] = True
        yield n, found, table


def entropy_nats(counts: Num[np.ndarray, "*batch buckets"]) -> Float[np.ndarray, "*batch"]:
    """Entropy of the shares, in nats."""
    p = counts / counts.sum(-1, keepdims=True)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(-1))


def top_mass(counts: Num[np.ndarray, "*batch buckets"]) -> Float[np.ndarray, "*batch"]:
    """Share of the fullest 1% of buckets."""
    top = max(1, counts.shape[-1] // 100)
    return np.asarray(np.partition(counts, -top, axis=-1)[..., -top:].sum(-1) / counts.sum(-1))
