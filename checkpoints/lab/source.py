"""The lab's batches: sequences of a source, by step and arm, without state.

Sequence `index` of a named stream is a pure function of (source, seed, stream, index), so training stops and resumes without
any generator state.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.sequences import Sequences, random_words
from byrote.checkpoints.lab.sources.contract import Source
from byrote.checkpoints.lab.sources.tiled_blocks import SourceConfig
from byrote.checkpoints.lab.sources.tiling import first_block_probability


def draw(source: Source, *, seed: int, stream: str, index: int, n: int) -> Sequences:
    """Sequences `index` to `index + n - 1` of a stream: `Source.draw`, with the type of what it returns.

    Raises:
        ByroteError: an unknown stream.
    """
    drawn: Sequences = source.draw(seed=seed, stream=stream, index=index, n=n)
    return drawn


def source_nll(
    source: SourceConfig, tokens: Int[np.ndarray, "n width"], second_block_start: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n width"]:
    """Loss of each token of first blocks under the source itself, for whoever knows where the first block ends.

    Args:
        source: what the sequences were drawn from.
        tokens: BOS first.
        second_block_start: index of the first token of the second block.

    Returns:
        Nats; NaN at BOS, and from the second block on, where copying and not the source predicts the token; all NaN
        where an id is none of the source's. `Source.floor_nll` does without `second_block_start`, and goes on to the end.
    """
    if tokens.min() < 0 or tokens.max() >= source.d_vocab:
        return np.full(tokens.shape, math.nan)
    position = np.arange(tokens.shape[1])[None]
    known = (position >= 1) & (position < second_block_start[:, None])
    with np.errstate(divide="ignore"):  # a source of bigrams alone gives other tokens no probability
        return np.where(known, -np.log(first_block_probability(source, tokens)), math.nan)


def fresh_sequences(source: Source, *, seed: int, after: int, n: int) -> Int[np.ndarray, "n n_ctx"]:
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

    def __init__(self, source: Source, arm: Arm, *, seed: int, batch: int) -> None:
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
    source: Source, arm: Arm, *, seed: int, batch: int, step: int
) -> Int[np.ndarray, "n_trained n_ctx"]:
    """The token ids that step `step` (0 is the first) of an arm trains on.

    Raises:
        ByroteError: the batch cannot be split as the arm says.
    """
    return ArmStream(source, arm, seed=seed, batch=batch).batches(step, 1)[0, :, :-1]
