"""The lab's data: BOS, then one random block of tokens tiled to the end of the context.

The first block can only be guessed (or, with a bigram table, known from the weights); every later block can
be predicted by copying. Sequence `index` of a named stream is a pure function of (source, seed, stream,
index), so training stops and resumes without any generator state. What the source says of a sequence without any model: `source_nll`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer, UInt64

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.config import SourceConfig

STREAMS = ("train", "pool", "held_out", "twins")
_LOW_32 = np.uint64(0xFFFFFFFF)


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


def source_words(config: SourceConfig) -> Int[np.ndarray, "n 2"] | None:
    """Pairs of ids of which the source lets the second follow the first; None where it lets anything follow anything."""
    if config.bigram_frac == 0:
        return None
    ids = np.delete(np.arange(config.d_vocab), config.bos_token_id)
    pairs = np.stack(np.broadcast_arrays(ids[:, None], bigram_table(config)[ids]), axis=-1).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def source_of(manifest: Mapping[str, Any]) -> SourceConfig | None:
    """The source a lab series' manifest names; None where it names none this version draws."""
    data, names = manifest.get("data"), SourceConfig.__dataclass_fields__.keys()
    if not isinstance(data, Mapping) or data.get("source") != "tiled_blocks" or not names <= data.keys():
        return None
    whole = all(type(data[name]) is int for name in names if name != "bigram_frac")
    if not whole or type(data["bigram_frac"]) not in (int, float):
        return None
    try:
        return SourceConfig(**{name: data[name] for name in names})
    except (ByroteError, TypeError):
        return None


def source_nll(
    source: SourceConfig, tokens: Int[np.ndarray, "n width"], second_block_start: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n width"]:
    """Loss of each token under the source itself: the best any model can do that never saw the sequence.

    Args:
        source: what the sequences were drawn from.
        tokens: BOS first.
        second_block_start: index of the first token of the second block.

    Returns:
        Nats; NaN at BOS, and from the second block on, where copying and not the source predicts the token; all NaN
        where an id is none of the source's.
    """
    n_ids = source.d_vocab - 1
    if tokens.min() < 0 or tokens.max() > n_ids:
        return np.full(tokens.shape, math.nan)
    probability = np.full(tokens.shape, 1 / n_ids)
    if source.bigram_frac > 0:
        successors = bigram_table(source)[tokens[:, :-1]]
        listed = (successors == tokens[:, 1:, None]).any(-1)
        share = listed * (source.bigram_frac / source.bigram_successors)
        probability[:, 1:] = share + (1 - source.bigram_frac) / n_ids
        probability[:, 1] = 1 / n_ids
    position = np.arange(tokens.shape[1])[None]
    known = (position >= 1) & (position < second_block_start[:, None])
    with np.errstate(divide="ignore"):  # a source of bigrams alone gives other tokens no probability
        return np.where(known, -np.log(probability), math.nan)


def fresh_sequences(source: SourceConfig, *, seed: int, after: int, n: int) -> Int[np.ndarray, "n n_ctx"]:
    """More sequences of the twins' stream, which is never trained on.

    Args:
        source: of the series.
        seed: of the series.
        after: how many sequences of the stream the series' own twins take.
        n: how many to draw.
    """
    return draw(source, seed=seed, stream="twins", index=after, n=n).tokens


class ArmStream:
    """The batches of one arm, by step number, without state.

    Sequence i of step t is the same in every arm of a seed where it is unique data: arms differ only in
    the repeated share, which takes the last places of the batch.

    Args:
        source: where sequences come from.
        arm: the arm.
        seed: 0 or more.
        batch: sequences per batch before the control drops its share.

    Raises:
        ByroteError: the batch cannot be split as the arm says.
    """

    def __init__(self, source: SourceConfig, arm: Arm, *, seed: int, batch: int) -> None:
        arm.check(batch=batch)
        self.source, self.arm, self.seed, self.batch = source, arm, seed, batch
        self.n_unique = batch - arm.n_repeated(batch)
        self.pool: Sequences | None = None
        if arm.rule.repeats:
            self.pool = draw(source, seed=seed, stream="pool", index=0, n=arm.pool_size)

    def batches(self, first_step: int, n_steps: int) -> Int[np.ndarray, "n_steps n_trained width"]:
        """Batches of `n_steps` steps, each sequence with the `n_ctx + 1` tokens of `Sequences.wide`."""
        drawn = draw(
            self.source,
            seed=self.seed,
            stream="train",
            index=first_step * self.batch,
            n=n_steps * self.batch,
        )
        unique = drawn.wide.reshape(n_steps, self.batch, -1)[:, : self.n_unique]
        if self.arm.rule.fill is None:
            return unique
        return np.concatenate([unique, self.arm.rule.fill(self, first_step, n_steps)], axis=1)

    def repeated(self, first_step: int, n_steps: int) -> Int[np.ndarray, "n_steps n_repeated width"]:
        """The pool sequences that each step repeats."""
        assert self.pool is not None, "only an arm that repeats has a pool"
        return self.pool.wide[self.members(first_step, n_steps)]

    def members(self, first_step: int, n_steps: int) -> Int[np.ndarray, "n_steps n_repeated"]:
        """Which pool sequences each step repeats.

        The pool is gone through in one seeded order after another, so that at any step no sequence has been
        used more than once oftener than another.
        """
        if self.pool is None:
            return np.empty((n_steps, 0), dtype=np.int64)
        n_repeated, pool_size = self.arm.n_repeated(self.batch), self.arm.pool_size
        use = first_step * n_repeated + np.arange(n_steps * n_repeated)
        first_round, last_round = int(use[0]) // pool_size, int(use[-1]) // pool_size
        orders = self._orders(first_round, last_round + 1 - first_round).ravel()
        return orders[use - first_round * pool_size].reshape(n_steps, n_repeated)

    def repeat_counts(self, n_steps: int) -> Int[np.ndarray, " pool_size"]:
        """How often each pool sequence has been trained on after `n_steps` steps."""
        if self.pool is None:
            return np.zeros(0, dtype=np.int64)
        rounds, rest = divmod(n_steps * self.arm.n_repeated(self.batch), self.arm.pool_size)
        counts = np.full(self.arm.pool_size, rounds, dtype=np.int64)
        counts[self._orders(rounds, 1)[0, :rest]] += 1
        return counts

    def _orders(self, first_round: int, n_rounds: int) -> Int[np.ndarray, "n_rounds pool_size"]:
        shape = (n_rounds, self.arm.pool_size)
        words = random_words("pool_order", seed=self.seed, index=first_round, shape=shape)
        return np.argsort(words, axis=1, kind="stable")


def batch_for_step(
    source: SourceConfig, arm: Arm, *, seed: int, batch: int, step: int
) -> Int[np.ndarray, "n_trained n_ctx"]:
    """The token ids that step `step` (0 is the first) of an arm trains on.

    Raises:
        ByroteError: the batch cannot be split as the arm says.
    """
    return ArmStream(source, arm, seed=seed, batch=batch).batches(step, 1)[0, :, :-1]
