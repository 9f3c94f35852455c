"""The lab's batches: sequences of a source, by step and arm, without state.

Sequence `index` of a named stream is a pure function of (source, seed, stream, index), so training stops and resumes without
any generator state.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.batches import INITIAL, Batches, Inputs, Places, draw, places_of
from byrote.checkpoints.lab.sequences import Sequences
from byrote.checkpoints.lab.sources.contract import Source
from byrote.checkpoints.lab.sources.tiled_blocks import SourceConfig
from byrote.checkpoints.lab.sources.tiling import first_block_probability

__all__ = ["ArmStream", "batch_for_step", "draw", "fresh_sequences", "source_nll"]


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


def pool_sequences(source: Source, *, seed: int, n: int) -> Int[np.ndarray, "n n_ctx"]:
    """The pool that a repeated arm of this seed goes through over and over; its control is never trained on it.

    Args:
        source: of the series.
        seed: of the series.
        n: sequences in the pool.
    """
    return draw(source, seed=seed, stream="pool", index=0, n=n).tokens


class ArmStream:
    """The batches of one arm, by step number, without state.

    Sequence i of step t is the same in every arm of a seed where it is unique data: arms differ only in
    what their parts make of the batch, whose places come after those of unique data.

    Args:
        source: where sequences come from.
        arm: the arm.
        seed: 0 or more.
        batch: sequences per batch before the control drops its share.
        steps: of the whole run; parts that plan over all of them need it.
        inputs: reads what was made before training: name -> array, each name with the number of its part in front.

    Raises:
        ByroteError: the batch cannot be split as the arm says.
    """

    def __init__(
        self,
        source: Source,
        arm: Arm,
        *,
        seed: int,
        batch: int,
        steps: int = 0,
        inputs: Inputs | None = None,
    ) -> None:
        arm.check(batch=batch, steps=steps or None)
        self.source, self.arm, self.seed, self.batch = source, arm, seed, batch
        self.places = places_of(source, arm, seed=seed, batch=batch, steps=steps, inputs=inputs)
        self.n_unique = self.places[0].first if self.places else batch

    @cached_property
    def pool(self) -> Sequences | None:
        """The sequences of which it is counted how often each was trained on: of the part that has some."""
        found = self._pooled
        return None if found is None else found.pool

    @property
    def _pooled(self) -> Places | None:
        return next((places for places in self.places if places.pool is not None), None)

    @property
    def initial_weights(self) -> dict[str, np.ndarray] | None:
        """The weights that training begins with, by their names, where a part of the arm gives them."""
        for places in self.places:
            if places.part.gives_weights:
                stored = places.all_stored()
                named = {
                    name.removeprefix(INITIAL): a for name, a in stored.items() if name.startswith(INITIAL)
                }
                return named or stored
        return None

    def batches(self, first_step: int, n_steps: int) -> Int[np.ndarray, "n_steps n_trained width"]:
        """Batches of `n_steps` steps, each sequence with the `n_ctx + 1` tokens of `Sequences.wide`."""
        return self.drawn(first_step, n_steps).wide

    def drawn(self, first_step: int, n_steps: int) -> Batches:
        """The same, and which tokens count in the loss."""
        parts = []
        if self.n_unique:
            drawn = draw(
                self.source,
                seed=self.seed,
                stream="train",
                index=first_step * self.batch,
                n=n_steps * self.batch,
            )
            parts.append(drawn.wide.reshape(n_steps, self.batch, -1)[:, : self.n_unique])
        for places in self.places:
            if places.n and not places.part.left_out:
                parts.append(places.part.fill(places, first_step, n_steps))
        batches = Batches(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
        for places in sorted(self.places, key=lambda one: one.part.changes_last):
            batches = places.part.change(batches, places, first_step)
        return batches

    def repeated(self, first_step: int, n_steps: int) -> Int[np.ndarray, "n_steps n_repeated width"]:
        """The pool sequences that each step repeats."""
        pooled = self._pooled
        assert pooled is not None, "only an arm that repeats has a pool"
        filled: Int[np.ndarray, "n_steps n_repeated width"] = pooled.part.fill(pooled, first_step, n_steps)
        return filled

    def members(self, first_step: int, n_steps: int) -> Int[np.ndarray, "n_steps n_repeated"]:
        """Which pool sequences each step repeats, where they are gone through in rounds."""
        pooled = self._pooled
        if pooled is None:
            return np.empty((n_steps, 0), dtype=np.int64)
        return pooled.in_rounds("pool_order", first_step, n_steps, size=len(pooled.pool.wide))

    def repeat_counts(self, n_steps: int) -> Int[np.ndarray, " pool_size"]:
        """How often each pool sequence has been trained on after `n_steps` steps."""
        pooled = self._pooled
        if pooled is None:
            return np.zeros(0, dtype=np.int64)
        counts: Int[np.ndarray, " pool_size"] = pooled.part.counts(pooled, n_steps)
        return counts


def batch_for_step(
    source: Source, arm: Arm, *, seed: int, batch: int, step: int
) -> Int[np.ndarray, "n_trained n_ctx"]:
    """The token ids that step `step` (0 is the first) of an arm trains on.

    Raises:
        ByroteError: the batch cannot be split as the arm says.
    """
    return ArmStream(source, arm, seed=seed, batch=batch).batches(step, 1)[0, :, :-1]
