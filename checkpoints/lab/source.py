"""The lab's data: BOS, then one random block of tokens tiled to the end of the context.

The first block can only be guessed (or, with a bigram table, known from the weights); every later block can
be predicted by copying. Sequence `index` of a named stream is a pure function of (source, seed, stream,
index), so training stops and resumes without any generator state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int, Integer, UInt64

from byrote.checkpoints.errors import ByroteError, did_you_mean

STREAMS = ("train", "pool", "held_out", "twins")
_LOW_32 = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class SourceConfig:
    """One source of sequences.

    Attributes:
        d_vocab: number of token ids, BOS included.
        n_ctx: tokens per sequence, BOS included.
        block_min: shortest block, tokens.
        block_max: longest block, tokens; block lengths are uniform between the two.
        bigram_frac: probability, 0 to 1, that the next token of the first block comes from the bigram table.
        bigram_successors: successors each token has in that table, equally likely.
        bos_token_id: the first token of every sequence; never inside a block.

    Raises:
        ByroteError: values that cannot make such a sequence.
    """

    d_vocab: int = 128
    n_ctx: int = 48
    block_min: int = 12
    block_max: int = 24
    bigram_frac: float = 0.0
    bigram_successors: int = 4
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        if self.d_vocab < 3:
            raise ByroteError(f"d_vocab is {self.d_vocab}", help="the lab needs at least 3 token ids")
        if not 0 <= self.bos_token_id < self.d_vocab:
            raise ByroteError(
                f"bos_token_id {self.bos_token_id} is not one of the {self.d_vocab} token ids",
                help=f"choose 0 to {self.d_vocab - 1}",
            )
        if not 2 <= self.block_min <= self.block_max:
            raise ByroteError(
                f"block lengths {self.block_min} to {self.block_max} are not a range",
                help="use 2 <= block_min <= block_max",
            )
        if self.block_max > self.n_ctx - 3:
            raise ByroteError(
                f"a block of {self.block_max} tokens leaves no room to copy in a context of {self.n_ctx}",
                help=f"use block_max <= {self.n_ctx - 3}, or a longer context",
            )
        if not 0.0 <= self.bigram_frac <= 1.0:
            raise ByroteError(f"bigram_frac is {self.bigram_frac}", help="it is a probability, 0 to 1")
        if not 1 <= self.bigram_successors <= self.d_vocab - 1:
            raise ByroteError(
                f"bigram_successors is {self.bigram_successors}", help=f"choose 1 to {self.d_vocab - 1}"
            )


@dataclass(frozen=True)
class Sequences:
    """Sequences of a source, each with one token more than the context holds.

    Attributes:
        wide: token ids, `n_ctx + 1` per sequence: the last one is what the last position should predict.
        second_block_start: index of the first token of the second block, `1 + block length`. A position at
            or after it can predict its next token by copying; the token *at* it cannot be foreseen, because
            nothing in the sequence says where the first block ends.
    """

    wide: Int[np.ndarray, "n width"]
    second_block_start: Int[np.ndarray, " n"]

    @property
    def tokens(self) -> Int[np.ndarray, "n n_ctx"]:
        """What a model reads: the first `n_ctx` tokens."""
        return self.wide[:, :-1]

    @property
    def next_tokens(self) -> Int[np.ndarray, "n n_ctx"]:
        """What each position of `tokens` should predict."""
        return self.wide[:, 1:]


def draw(config: SourceConfig, *, seed: int, stream: str, index: int, n: int) -> Sequences:
    """Sequences `index` to `index + n - 1` of a stream.

    Args:
        config: the source.
        seed: 0 or more; other seeds give other sequences.
        stream: one of `STREAMS`; no two streams share their random numbers.
        index: position of the first sequence in the stream.
        n: how many sequences.

    Returns:
        The same sequences however they are grouped into calls.

    Raises:
        ByroteError: an unknown stream.
    """
    if stream not in STREAMS:
        raise ByroteError(f"the lab has no stream {stream!r}", help=did_you_mean(stream, STREAMS))
    words = random_words(f"sequences/{stream}", seed=seed, index=index, shape=(n, 1 + config.block_max))
    lengths = config.block_min + _below(words[:, 0], config.block_max - config.block_min + 1)
    blocks = _first_blocks(config, words[:, 1:])
    return Sequences(tile(blocks, lengths, config=config), 1 + lengths)


def tile(
    blocks: Integer[np.ndarray, "n block_max"], lengths: Int[np.ndarray, " n"], *, config: SourceConfig
) -> Int[np.ndarray, "n width"]:
    """BOS, then the first `lengths[i]` tokens of `blocks[i]` over and over, `n_ctx + 1` tokens in all."""
    offsets = np.arange(config.n_ctx)[None, :] % lengths[:, None]
    wide = np.empty((len(blocks), config.n_ctx + 1), dtype=np.int64)
    wide[:, 0] = config.bos_token_id
    wide[:, 1:] = np.take_along_axis(blocks, offsets, axis=1)
    return wide


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


def _below(words: UInt64[np.ndarray, "*shape"], limit: int) -> Int[np.ndarray, "*shape"]:
    """Uniform integers in [0, limit) from the high half of each word (bias under limit / 2**32)."""
    return (((words >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def _first_blocks(
    config: SourceConfig, words: UInt64[np.ndarray, "n block_max"]
) -> Int[np.ndarray, "n block_max"]:
    ids = _below(words, config.d_vocab - 1)
    blocks = ids + (ids >= config.bos_token_id)  # steps over BOS
    if config.bigram_frac > 0:
        table = bigram_table(config)
        # the low half decides, the high half picks: the two are independent
        known = (words & _LOW_32) < np.uint64(round(config.bigram_frac * 2**32))
        choice = _below(words, config.bigram_successors)
        for j in range(1, config.block_max):
            successor = table[blocks[:, j - 1], choice[:, j]]
            blocks[:, j] = np.where(known[:, j], successor, blocks[:, j])
    return blocks


@lru_cache(maxsize=8)
def bigram_table(config: SourceConfig) -> Int[np.ndarray, "d_vocab k"]:
    """The successors of each token id: distinct, never BOS, the same for every seed of a source."""
    words = random_words("bigram_table", seed=0, index=0, shape=(config.d_vocab, config.d_vocab - 1))
    ids = np.argsort(words, axis=1, kind="stable")[:, : config.bigram_successors]
    return ids + (ids >= config.bos_token_id)
