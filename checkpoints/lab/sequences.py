"""Sequences as a source draws them, the counter-based random words they are made of, and floors. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Integer, UInt64

from byrote.checkpoints.errors import ByroteError, did_you_mean

STREAMS = ("train", "pool", "held_out", "twins")
_LOW_32 = np.uint64(0xFFFFFFFF)
_FLOOR_ROWS = 256  # sequences of which a floor is worked out at once


@dataclass(frozen=True)
class Sequences:
    """Sequences of a source, each with one token more than the context holds.

    Attributes:
        wide: token ids, `n_ctx + 1` per sequence: the last one is what the last position should predict.
        mechanism: which mechanism can predict each token, by its code in `MECHANISMS`.
        second_block_start: index of the first token of the second block, `1 + block length`, where a sequence repeats
            itself to its end; `n_ctx + 1` where it does not. A position at or after it can predict its next token by
            copying; the token *at* it cannot be foreseen, because nothing in the sequence says where the first
            block ends.
    """

    wide: Int[np.ndarray, "n width"]
    mechanism: Int8[np.ndarray, "n width"]
    second_block_start: Int[np.ndarray, " n"]

    @property
    def tokens(self) -> Int[np.ndarray, "n n_ctx"]:
        """What a model reads: the first `n_ctx` tokens."""
        return self.wide[:, :-1]

    @property
    def next_tokens(self) -> Int[np.ndarray, "n n_ctx"]:
        """What each position of `tokens` should predict."""
        return self.wide[:, 1:]


def without_blocks(wide: Int[np.ndarray, "n width"], mechanism: Int8[np.ndarray, "n width"]) -> Sequences:
    """Sequences that do not consist of one block over and over."""
    return Sequences(wide, mechanism, np.full(len(wide), wide.shape[1], dtype=np.int64))


def require_stream(stream: str) -> None:
    """Refuse a stream that there is not.

    Raises:
        ByroteError: naming the nearest.
    """
    if stream not in STREAMS:
        raise ByroteError(f"the lab has no stream {stream!r}", help=did_you_mean(stream, STREAMS))


def random_words(purpose: str, *, seed: int, index: int, shape: tuple[int, int]) -> UInt64[np.ndarray, "n k"]:
    """Rows `index` onwards of an endless table of random 64-bit words, one table per (purpose, seed).

    Philox is counter-based: a row is reached by its number, without drawing those before it.
    """
    n, k = shape
    groups = -(-k // 4)  # one counter value yields four words; a row starts on its own counter
    digest = hashlib.sha256(f"rote-lab/{purpose}/{seed}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    generator = np.random.Philox(key=key, counter=index * groups)
    return generator.random_raw(n * groups * 4).reshape(n, groups * 4)[:, :k]


def below(words: UInt64[np.ndarray, "*shape"], limit: int) -> Int[np.ndarray, "*shape"]:
    """Uniform integers in [0, limit) from the high half of each word (bias under limit / 2**32)."""
    return (((words >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def happens(words: UInt64[np.ndarray, "*shape"], probability: float) -> Bool[np.ndarray, "*shape"]:
    """True with a probability, from the low half of each word: independent of what `below` makes of it."""
    return (words & _LOW_32) < np.uint64(round(probability * 2**32))


def uniform(words: UInt64[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Uniform numbers in [0, 1) from the high 53 bits of each word."""
    return (words >> np.uint64(11)) * 2.0**-53


def other_than(ids: Integer[np.ndarray, "*shape"], bos_token_id: int) -> Integer[np.ndarray, "*shape"]:
    """Numbers from 0 as token ids that step over BOS."""
    return ids + (ids >= bos_token_id)


def first_over(
    uniforms: Float[np.ndarray, " n"], cumulative: Float[np.ndarray, "n k"]
) -> Int[np.ndarray, " n"]:
    """The column of each row that a uniform number falls into; `cumulative` ascends to 1."""
    return np.minimum((uniforms[:, None] >= cumulative).sum(1), cumulative.shape[1] - 1)


def drawn_without_replacement(
    words: UInt64[np.ndarray, "n k"], weights: Float[np.ndarray, " k"], wanted: int
) -> Int[np.ndarray, "n wanted"]:
    """Columns drawn one after another with odds `weights` and never twice (exponential races; Efraimidis, Spirakis 2006)."""
    arrival = -np.log1p(-uniform(words)) / weights
    return np.argsort(arrival, axis=1, kind="stable")[:, :wanted]


def floor_of(
    wide: Int[np.ndarray, "n width"],
    floor: Callable[[np.ndarray], np.ndarray] | None,
    *,
    d_vocab: int,
) -> Float[np.ndarray, "n width"]:
    """A source's floor where it applies; NaN at BOS, in rows with other ids, and without a floor.

    Args:
        wide: token ids, BOS first.
        floor: [n, width] ids -> nats, inf from a token on that the source cannot produce.
        d_vocab: ids that the source has.
    """
    found = np.full(wide.shape, np.nan)
    if floor is None or not wide.size:
        return found
    rows = np.flatnonzero(((wide >= 0) & (wide < d_vocab)).all(1))
    for part in np.split(rows, range(_FLOOR_ROWS, len(rows), _FLOOR_ROWS)):
        if len(part):
            found[part] = floor(wide[part])
    found[:, 0] = np.nan
    found[~np.isfinite(found)] = np.nan
    return found


def share_of(sequences: Sequences, codes: Sequence[int]) -> float:
    """Share of all tokens but BOS whose mechanism is one of these."""
    return float(np.isin(sequences.mechanism[:, 1:], codes).mean())
