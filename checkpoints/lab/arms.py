"""What a lab run trains on: unique sequences, or the same with a share of each batch drawn from a small pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.source import Sequences, SourceConfig, draw, random_words

KINDS = ("unique", "repeated", "control")
POOLED = frozenset({"repeated"})  # kinds whose batches draw a share from a pool


@dataclass(frozen=True)
class Arm:
    """One arm of a repetition experiment.

    Attributes:
        kind: `unique` (every sequence new), `repeated` (a share of each batch comes from a pool), or
            `control` (the unique part of the repeated arm's batches and nothing else).
        repeat_frac: share of each batch, above 0 and below 1, that is repeated (or, in the control, left
            out). 0 for the unique arm.
        pool_size: sequences in the pool. 0 for the unique arm; in the control it says which repeated arm is
            meant and changes nothing in training.

    Raises:
        ByroteError: an unknown kind, or values the kind cannot have.
    """

    kind: str = "unique"
    repeat_frac: float = 0.0
    pool_size: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ByroteError(f"the lab has no arm {self.kind!r}", help=did_you_mean(self.kind, KINDS))
        if self.kind == "unique":
            if self.repeat_frac or self.pool_size:
                raise ByroteError(
                    f"the unique arm repeats nothing, but got repeat_frac {self.repeat_frac} and "
                    f"pool_size {self.pool_size}",
                    help="leave both at 0, or choose the repeated arm",
                )
            return
        if not 0.0 < self.repeat_frac < 1.0:
            raise ByroteError(
                f"repeat_frac is {self.repeat_frac}, but the {self.kind} arm mixes unique and repeated data",
                help="choose a share above 0 and below 1, such as 0.5",
            )
        if self.pool_size < (1 if self.kind in POOLED else 0):
            raise ByroteError(
                f"pool_size is {self.pool_size}", help="the pool holds at least 1 sequence, such as 64"
            )

    def n_repeated(self, batch: int) -> int:
        """Sequences of a batch that the repeated arm draws from its pool, and that the control leaves out."""
        return round(self.repeat_frac * batch)

    def n_trained(self, batch: int) -> int:
        """Sequences of a batch actually trained on."""
        return batch - self.n_repeated(batch) if self.kind == "control" else batch

    def repeats_per_sequence(self, *, batch: int, steps: int) -> float:
        """How often each pool sequence is trained on in `steps` steps, on average; 0 without repeats."""
        if self.kind not in POOLED:
            return 0.0
        return self.n_repeated(batch) * steps / self.pool_size

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Raise a ByroteError where this batch size, or this length of training, cannot realise the arm."""
        if self.kind == "unique":
            return
        n_repeated = self.n_repeated(batch)
        if not 1 <= n_repeated < batch:
            raise ByroteError(
                f"a share of {self.repeat_frac} of a batch of {batch} is {n_repeated} sequences",
                help="a batch needs at least one repeated and one unique sequence: "
                "use a larger batch or another share",
            )
        if self.kind in POOLED and steps is not None and self.pool_size > n_repeated * steps:
            raise ByroteError(
                f"a pool of {self.pool_size} is not used up by {steps} steps of {n_repeated} repeated sequences",
                help=f"use a pool of at most {n_repeated * steps}, or train longer",
            )


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
        if arm.kind in POOLED:
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
        if self.pool is None:
            return unique
        repeats = self.pool.wide[self.members(first_step, n_steps)]
        return np.concatenate([unique, repeats], axis=1)

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
