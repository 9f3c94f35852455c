"""What an arm needs to be made before training: written to the series' `data/` once, and from then on only read. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from byrote.checkpoints.lab.as_written import hash_in, read_as_written
from byrote.checkpoints.lab.batches import Inputs, places_of
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.other_run import INPUTS, OtherRun, open_run
from byrote.checkpoints.lab.source import ArmStream
from byrote.checkpoints.lab.sources.contract import Source


@dataclass(frozen=True)
class Made:
    """What was made for one part.

    Attributes:
        arrays: by name; token ids are stored in as few bytes as they need.
        facts: what the manifest says of it, plain JSON values.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)


def make_inputs(config: LabConfig, folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Make what the parts of a run's arm need.

    Args:
        config: of the run.
        folder: of its series: other runs are named as seen from there.

    Returns:
        Arrays by name, the number of the part in front; and for each such part what the manifest says of it.

    Raises:
        ByroteError: another run is missing, or does not fit.
    """
    arrays: dict[str, np.ndarray] = {}
    facts: list[dict[str, Any]] = []
    runs = partial(_run, folder=folder, like=config.source)
    for places in places_of(
        config.source, config.arm, seed=config.seed, batch=config.batch, steps=config.steps
    ):
        made = places.part.inputs(places, runs)
        if made is None:
            continue
        arrays |= {f"{places.number}.{name}": _small(array) for name, array in made.arrays.items()}
        facts.append({"part": places.number, "kind": places.part.name, **made.facts})
    return arrays, facts


def stream_of(config: LabConfig, folder: Path, manifest: Mapping[str, Any] | None = None) -> ArmStream:
    """The batches of a run, whose inputs are read from its folder when they are first used.

    Args:
        config: of the run.
        folder: of its series.
        manifest: of the series; its hash of the inputs is what they must have.
    """
    return ArmStream(
        config.source,
        config.arm,
        seed=config.seed,
        batch=config.batch,
        steps=config.steps,
        inputs=reader(folder, manifest),
    )


def reader(folder: Path, manifest: Mapping[str, Any] | None) -> Inputs:
    """Reads the inputs of a series once."""

    @lru_cache(maxsize=1)
    def read() -> Mapping[str, np.ndarray]:
        return load(read_as_written(folder / INPUTS, hash_in(manifest or {}, INPUTS)))

    return read


def _run(name: str, step: int, *, folder: Path, like: Source) -> OtherRun:
    return open_run(folder / name, step=step, like=like)


def _small(array: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest unsigned type that holds them, as they are otherwise."""
    if array.dtype.kind not in "ui" or (array.size and array.min() < 0):
        return array
    return array.astype(np.min_scalar_type(int(array.max()) if array.size else 0))
