"""Weights that training begins with, and old data beside new ones. No torch."""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.continued import Continued, Replay
from byrote.checkpoints.lab.batches import Places, draw
from byrote.checkpoints.lab.inputs import Made, Runs
from byrote.checkpoints.lab.other_run import OtherRun, weights_of


def inputs(part: Continued | Replay, places: Places, runs: Runs) -> Made:
    """The weights by their names, or sequences of the other run's source.

    Raises:
        ByroteError: the weights are not what was written, or cannot be read.
    """
    if isinstance(part, Replay):
        run = runs(part.of, 0)
        drawn = draw(run.config.source, seed=places.seed, stream="train", index=0, n=part.size(places))
        return Made({"tokens": drawn.wide[:, : places.source.n_ctx + 1]}, run.facts())
    run = runs(part.initial, part.step)
    return Made(all_weights(run), run.facts())


def all_weights(run: OtherRun) -> dict[str, np.ndarray]:
    """The weights of a run by their names.

    Raises:
        ByroteError: they are not what was written, or cannot be read.
    """
    try:
        found: dict[str, np.ndarray] = load(weights_of(run))
        return found
    except (SafetensorError, ValueError) as error:
        message = error.message if isinstance(error, ByroteError) else f"{run.file} holds no weights"
        raise ByroteError(message, help="train that run again") from error
