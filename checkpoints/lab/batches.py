"""What parts of an arm work with: their places in a batch, orders in which a corpus is gone through, and batches. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from byrote.checkpoints.lab.arms.arm import Arm
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.sequences import Sequences, random_words
from byrote.checkpoints.lab.sources.contract import Source

Inputs = Callable[[], Mapping[str, np.ndarray]]
INITIAL = "weights."  # before the names of weights that training begins with, where sequences are stored beside them


@dataclass(frozen=True)
class Batches:
    """Batches of some steps.

    Attributes:
        wide: token ids, one more per sequence than the context holds.
        counted: whether the loss of predicting each token but the first counts; None where all do.
        read: what the model reads in place of all tokens but the last; None where it reads these.
        attended: whether anything attends to each of them; None where all are attended to.
    """

    wide: Int[np.ndarray, "n_steps n_trained width"]
    counted: Bool[np.ndarray, "n_steps n_trained n_ctx"] | None = None
    read: Int[np.ndarray, "n_steps n_trained n_ctx"] | None = None
    attended: Bool[np.ndarray, "n_steps n_trained n_ctx"] | None = None


@dataclass(frozen=True)
class Places:
    """A part of an arm, and what is its own in each batch of one run.

    Attributes:
        part: of the arm.
        number: of the part in the arm, from 0.
        source, seed, batch: of the run.
        steps: of the whole run; 0 where it is not known.
        first, n: its places in each batch.
        n_fresh: places of fresh sequences, the first of each batch.
        inputs: reads what was made before training, of all parts; None where nothing was.
    """

    part: Part
    number: int
    source: Source
    seed: int
    batch: int
    steps: int
    first: int
    n: int
    n_fresh: int
    inputs: Inputs | None = None

    @property
    def n_batches(self) -> int:
        """Batches that are looked at: a written step has its training loss on the batch to come."""
        return self.steps + 1

    @cached_property
    def pool(self) -> Any:
        """`Sequences` of which it is counted how often each was trained on; None where there are none."""
        return self.part.pool(self)

    def stored(self, name: str, rows: Int[np.ndarray, "*places"] | None = None) -> Int[np.ndarray, ...]:
        """Whole numbers that were made for this part before training.

        Args:
            name: of the array.
            rows: of it that are wanted; None for all.
        """
        assert self.inputs is not None, "what is made before training is read from the series' folder"
        array = self.inputs()[f"{self.number}.{name}"]
        return (array if rows is None else array[rows]).astype(np.int64)

    def n_stored(self, name: str) -> int:
        """Rows of an array that was made for this part before training."""
        assert self.inputs is not None, "what is made before training is read from the series' folder"
        return len(self.inputs()[f"{self.number}.{name}"])

    def all_stored(self) -> dict[str, np.ndarray]:
        """Everything that was made for this part before training, by its name there."""
        assert self.inputs is not None, "what is made before training is read from the series' folder"
        before = f"{self.number}."
        return {name.removeprefix(before): a for name, a in self.inputs().items() if name.startswith(before)}

    def rows(self, first_step: int, n_steps: int, *, corpus: int) -> Int[np.ndarray, "n_steps n"]:
        """Which sequence of a corpus stands in each place: in seeded orders, or each once where `corpus` is 0."""
        if not corpus:
            return (first_step * self.n + np.arange(n_steps * self.n)).reshape(n_steps, self.n)
        return self.in_rounds("corpus_order", first_step, n_steps, size=corpus)

    def in_rounds(
        self, purpose: str, first_step: int, n_steps: int, *, size: int
    ) -> Int[np.ndarray, "n_steps n"]:
        """Numbers below `size` for its places: all of them in one seeded order after another."""
        use = first_step * self.n + np.arange(n_steps * self.n)
        first_round, last_round = int(use[0]) // size, int(use[-1]) // size
        orders = self._orders(purpose, first_round, last_round + 1 - first_round, size).ravel()
        return orders[use - first_round * size].reshape(n_steps, self.n)

    def rounds_counted(self, purpose: str, n_steps: int, *, size: int) -> Int[np.ndarray, " size"]:
        """How often each number has come up in the first `n_steps` steps of `in_rounds`."""
        rounds, rest = divmod(n_steps * self.n, size)
        counts = np.full(size, rounds, dtype=np.int64)
        counts[self._orders(purpose, rounds, 1, size)[0, :rest]] += 1
        return counts

    @cached_property
    def _corpora(self) -> dict[int, Sequences]:
        return {}

    def originals(self, corpus: int) -> Sequences:
        """The sequences of the source that a corpus is made from, by row: the first of the stream for training.

        Args:
            corpus: how many, drawn once; 0 for those that stand in its places in the unique arm, step by step.
        """
        if corpus:
            if corpus not in self._corpora:
                self._corpora[corpus] = draw(self.source, seed=self.seed, stream="train", index=0, n=corpus)
            return self._corpora[corpus]
        drawn = draw(self.source, seed=self.seed, stream="train", index=0, n=self.n_batches * self.batch)
        mine = (np.arange(self.n_batches)[:, None] * self.batch + self.first + np.arange(self.n)).ravel()
        return Sequences(drawn.wide[mine], drawn.mechanism[mine], drawn.second_block_start[mine])

    def _orders(
        self, purpose: str, first_round: int, n_rounds: int, size: int
    ) -> Int[np.ndarray, "n_rounds size"]:
        words = random_words(purpose, seed=self.seed, index=first_round, shape=(n_rounds, size))
        return np.argsort(words, axis=1, kind="stable")


def places_of(
    source: Source, arm: Arm, *, seed: int, batch: int, steps: int, inputs: Inputs | None = None
) -> tuple[Places, ...]:
    """The parts of an arm, side by side in the batch after the fresh sequences."""
    taken = arm.n_places(batch)
    firsts = [batch - sum(taken[k:]) for k in range(len(taken))]
    return tuple(
        Places(part, number, source, seed, batch, steps, first, n, batch - sum(taken), inputs)
        for number, (part, first, n) in enumerate(zip(arm.made_of, firsts, taken, strict=True))
    )


def draw(source: Source, *, seed: int, stream: str, index: int, n: int) -> Sequences:
    """Sequences `index` to `index + n - 1` of a stream: `Source.draw`, with the type of what it returns.

    Raises:
        ByroteError: an unknown stream.
    """
    drawn: Sequences = source.draw(seed=seed, stream=stream, index=index, n=n)
    return drawn
