"""Tiled blocks, drawn: BOS, then one random block of tokens over and over.

The first block can only be guessed (or, with a bigram table, known from the weights); every later block can be predicted by
copying. The exact floor is a mixture over block lengths, weighted by what is left of them after the tokens so far.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt64

from byrote.checkpoints.lab.sequences import Sequences, below, happens, other_than, random_words
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.tiled_blocks import SourceConfig


def n_words(source: SourceConfig) -> int:
    """Random words a sequence takes: its length, and a token each of the longest block."""
    return 1 + source.block_max


def drawn(source: SourceConfig, words: UInt64[np.ndarray, "n k"]) -> Sequences:
    """The sequences of these random words."""
    lengths = source.block_min + below(words[:, 0], source.block_max - source.block_min + 1)
    blocks, known = _first_blocks(source, words[:, 1:])
    return Sequences(tile(blocks, lengths, config=source), _mechanism(source, known, lengths), 1 + lengths)


def tile(
    blocks: Integer[np.ndarray, "n block_max"], lengths: Int[np.ndarray, " n"], *, config: SourceConfig
) -> Int[np.ndarray, "n width"]:
    """BOS, then the first `lengths[i]` tokens of `blocks[i]` over and over, `n_ctx + 1` tokens in all."""
    offsets = np.arange(config.n_ctx)[None, :] % lengths[:, None]
    wide = np.empty((len(blocks), config.n_ctx + 1), dtype=np.int64)
    wide[:, 0] = config.bos_token_id
    wide[:, 1:] = np.take_along_axis(blocks, offsets, axis=1)
    return wide


def _first_blocks(
    config: SourceConfig, words: UInt64[np.ndarray, "n block_max"]
) -> tuple[Int[np.ndarray, "n block_max"], Bool[np.ndarray, "n block_max"]]:
    """Tokens, and which of them came from the bigram table."""
    blocks = other_than(below(words, config.d_vocab - 1), config.bos_token_id)
    from_table = np.zeros(blocks.shape, dtype=bool)
    if config.bigram_frac > 0:
        table = bigram_table(config)
        # the low half decides, the high half picks: the two are independent
        from_table = happens(words, config.bigram_frac)
        from_table[:, 0] = False
        choice = below(words, config.bigram_successors)
        for j in range(1, config.block_max):
            successor = table[blocks[:, j - 1], choice[:, j]]
            blocks[:, j] = np.where(from_table[:, j], successor, blocks[:, j])
    return blocks, from_table


def _mechanism(
    source: SourceConfig, from_table: Bool[np.ndarray, "n block_max"], lengths: Int[np.ndarray, " n"]
) -> np.ndarray:
    place = np.arange(source.n_ctx + 1)[None]
    start = 1 + lengths[:, None]
    found = np.full((len(lengths), source.n_ctx + 1), CODES["copy"], dtype=np.int8)
    found[:, 1 : 1 + source.block_max] = np.where(from_table, CODES["table"], CODES["free"])
    found[place > start] = CODES["copy"]
    found[place == start] = CODES["copy_start"]
    found[:, 0] = CODES["bos"]
    return found


@lru_cache(maxsize=8)
def bigram_table(config: SourceConfig) -> Int[np.ndarray, "d_vocab k"]:
    """The successors of each token id: distinct, never BOS, the same for every seed of a source."""
    words = random_words("bigram_table", seed=0, index=0, shape=(config.d_vocab, config.d_vocab - 1))
    ids = np.argsort(words, axis=1, kind="stable")[:, : config.bigram_successors]
    return other_than(ids, config.bos_token_id)


def pairs(source: SourceConfig) -> Int[np.ndarray, "n 2"] | None:
    """Pairs of ids of which the table lets the second follow the first; None without a table."""
    if source.bigram_frac == 0:
        return None
    ids = np.delete(np.arange(source.d_vocab), source.bos_token_id)
    found = np.stack(np.broadcast_arrays(ids[:, None], bigram_table(source)[ids]), axis=-1).reshape(-1, 2)
    return found[found[:, 0] != found[:, 1]]


def first_block_probability(
    source: SourceConfig, wide: Int[np.ndarray, "n width"]
) -> Float[np.ndarray, "n width"]:
    """P(token | the token before it), were every token part of the first block; BOS has that of any other token."""
    n_ids = source.d_vocab - 1
    probability = np.full(wide.shape, 1 / n_ids)
    if source.bigram_frac > 0:
        successors = bigram_table(source)[wide[:, :-1]]
        listed = (successors == wide[:, 1:, None]).any(-1)
        share = listed * (source.bigram_frac / source.bigram_successors)
        probability[:, 1:] = share + (1 - source.bigram_frac) / n_ids
        probability[:, 1] = 1 / n_ids
    return probability


def floor(source: SourceConfig, wide: Int[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """-log P(token | those before it), nats; inf where no block length allows the token.

    With Z_t the probability of the first t tokens, summed over block lengths, it is log Z_t - log Z_(t+1): lengths that
    the tokens so far contradict have none left.
    """
    n, width = wide.shape
    lengths = np.arange(source.block_min, source.block_max + 1)
    single = np.where(wide == source.bos_token_id, 0.0, first_block_probability(source, wide))
    weight = np.full((n, len(lengths)), 1 / len(lengths))
    found = np.full((n, width), np.nan)
    for t in range(1, width):
        copied = wide[:, np.maximum(t - lengths, 0)] == wide[:, t, None]
        weight = weight * np.where(t > lengths, copied, single[:, t, None])
        total = weight.sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[:, t] = -np.log(total)
            weight /= total[:, None]
    return found
