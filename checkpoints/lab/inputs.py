"""What an arm needs to be made before training: written to the series' `data/` once, and from then on only read. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from byrote.checkpoints.lab.batches import places_of
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.other_run import OtherRun, open_run
from byrote.checkpoints.lab.sources.contract import Source

Runs = Callable[[str, int], OtherRun]  # (as a part names it, step or 0 for the last) -> the run


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


def _run(name: str, step: int, *, folder: Path, like: Source) -> OtherRun:
    return open_run((folder / name).resolve(), step=step, like=like)


def _small(array: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest unsigned type that holds them, as they are otherwise."""
    if array.dtype.kind not in "ui" or (array.size and array.min() < 0):
        return array
    return array.astype(np.min_scalar_type(int(array.max()) if array.size else 0))
