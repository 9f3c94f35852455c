"""Corpora of a chain of models, each trained on what those before it made. Torch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.synthetic import Generation
from byrote.checkpoints.lab.batches import Places
from byrote.checkpoints.lab.generator import sampled
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.other_run import OtherRun
from byrote.checkpoints.lab.sequences import random_words


def inputs(part: Generation, places: Places, runs: Runs) -> Made:
    """All blocks, and which sequences of them make up the corpus.

    Raises:
        ByroteError: the generator is of another generation than the one before.
    """
    run = runs(part.generator, part.step)
    if part.generation != run.generation + 1:
        raise ByroteError(
            f"the generator {run.name} is generation {run.generation}, but this arm is declared as generation {part.generation}",
            help=f"write generation = {run.generation + 1}, or name another generator",
        )
    new = sampled(part, places, run, part.corpus).wide
    real = places.originals(part.corpus).wide
    blocks = new if part.regime == "replace" else blocks_of(run, new, real=real)
    size = part.corpus if part.regime == "accumulate_fixed" else 0
    rows = corpus_of(len(blocks), size=size, seed=places.seed, generation=part.generation)
    return Made({"tokens": blocks, "rows": rows}, {**run.facts(), "n_blocks": len(blocks) // part.corpus})


def blocks_of(
    run: OtherRun, new: Int[np.ndarray, "size width"], *, real: Int[np.ndarray, "size width"]
) -> Int[np.ndarray, "all_blocks width"]:
    """Real data, then what each generator before this one made, then what this one made.

    Args:
        run: the generator of this generation.
        new: its samples.
        real: the block of real data.

    Raises:
        ByroteError: the generator's own blocks are of another size.
    """
    before = run.stored("generation", "tokens")
    if before is None:
        return np.concatenate([real, new])
    if len(before) != (run.generation + 1) * len(new) or before.shape[1:] != new.shape[1:]:
        raise ByroteError(
            f"the generator {run.name} was trained on blocks of another size",
            help=f"give all generations the same corpus, such as {len(before) // (run.generation + 1)}",
        )
    return np.concatenate([before.astype(np.int64), new])


def corpus_of(n: int, *, size: int, seed: int, generation: int) -> Int[np.ndarray, " rows"]:
    """Which sequences of all blocks make up the corpus of a generation, in ascending order.

    Args:
        n: sequences in all blocks.
        size: of the corpus, drawn without replacement; 0 for all of them.
        seed: of the run.
        generation: of the model that is trained on it.
    """
    if not size:
        return np.arange(n)
    words = random_words("accumulated", seed=seed, index=generation, shape=(1, n))[0]
    return np.sort(np.argsort(words, kind="stable")[:size])
