"""Corpora of a chain of models, each trained on what those before it made. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.other_run import OtherRun
from byrote.checkpoints.lab.sequences import random_words


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


def chain(regime: str, *, first: str, n: int, name: str = "", **settings: Any) -> dict[str, dict[str, Any]]:
    """The arms of a chain of generations as a grid declares them: name -> table.

    Args:
        regime: "replace", "accumulate" or "accumulate_fixed".
        first: arm whose runs are sampled for generation 1, trained on real data.
        n: generations after it.
        name: what arms are called, the generation follows; the regime's if empty.
        settings: of the parts, such as corpus and temperature.
    """
    called = name or regime
    return {
        f"{called}-g{k}": {
            "kind": "generation",
            "regime": regime,
            "generation": k,
            "generator": first if k == 1 else f"{called}-g{k - 1}",
            **settings,
        }
        for k in range(1, n + 1)
    }
