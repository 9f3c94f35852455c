"""Simulated tables of runs: arms that mean nothing, for the calibration of claims' rules. No torch.

Where runs are placed on a ladder of sizes, arms that mean nothing are as good as runs without repeats of their size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.claims.catalogue import GRIDS
from byrote.probes.claims.gather import READINGS
from byrote.probes.claims.members_table import MEMBER_METRICS
from byrote.probes.claims.record import Claim
from byrote.probes.claims.runs_table import Place, tidy

_PARTS = ("table_part_loss", "rare_table_part_loss", "copy_part_loss", "data_bigram_entropy")
_LATER = ("copy_start_part_loss", "test_floor", "pool_whole_loss", "fresh_whole_loss")
METRICS = (
    "test_loss", "copy_loss", "pool_loss", "excess_risk", "data_rep_2_frac", *_PARTS,
    *(name for name in READINGS if name not in _LATER), *MEMBER_METRICS, *_LATER,
    "data_induction_signal_frac",
)  # fmt: skip
GUESS_NATS = 3.4
FLOOR_NATS = 1.0
_WIDTH = re.compile(r"d([0-9]{1,4})")
_STEPS = (0, 50, 100, 200, 400, 600, 800, 1000, 1200, 1400)

Curves = Callable[[Place, str, np.random.Generator], Float[np.ndarray, " steps"]]


def simulated_runs(places: Sequence[Place], curves: Curves, *, seeds: int, seed: int = 0) -> pd.DataFrame:
    """A table of runs with every metric that claims read.

    Args:
        places: arms and sizes.
        curves: (place, metric, generator) -> value at each of ten steps.
        seeds: of the runs.
        seed: of the simulation.
    """
    columns: dict[str, list[Any]] = {}
    for number, place in enumerate(dict.fromkeys(places)):
        for one in range(seeds):
            rng = np.random.default_rng([seed, number, one])
            known = {"grid": place.grid, "arm": place.arm, "size": place.size, "init_seed": one, "data_seed": one,
                     "guess_nats": GUESS_NATS, "epochs": number + 1.0, "parameters": 20.0 * width_of(place) ** 2,
                     "parameters_without_embeddings": 10.0 * width_of(place) ** 2}  # fmt: skip
            for name, value in known.items():
                columns.setdefault(name, []).extend([value] * len(_STEPS))
            columns.setdefault("step", []).extend(_STEPS)
            for metric in METRICS:
                columns.setdefault(metric, []).extend(curves(place, metric, rng).tolist())
    return tidy(pd.DataFrame(columns))


def width_of(place: Place) -> int:
    """The width that the name of its size says; 1 where it says none."""
    found = _WIDTH.fullmatch(place.size)
    return int(found[1]) if found else 1


def nothing(place: Place, metric: str, rng: np.random.Generator) -> Float[np.ndarray, " steps"]:
    """A curve that does not depend on the arm: from high to a level of its own, at a step of its own, sometimes not at all."""
    steps = np.array(_STEPS, dtype=np.float64)
    level = rng.choice([0.3, 3.0]) if rng.random() < 0.5 else rng.uniform(0.3, 3.0)
    at = rng.uniform(50, 2000)
    return 3.5 - (3.5 - level) / (1 + np.exp(-(steps - at) / 60)) + rng.normal(0, 0.03, len(steps))


def by_size(place: Place, metric: str, rng: np.random.Generator) -> Float[np.ndarray, " steps"]:
    """What a model of this size reaches, whatever its arm: a power law above the floor, prefix matching linear in the logarithm."""
    width = width_of(place)
    if metric == "test_floor":
        return np.full(len(_STEPS), FLOOR_NATS)
    value = 0.2 * np.log(width) if metric == "prefix_matching" else FLOOR_NATS + 6 * width**-0.7
    return np.full(len(_STEPS), value + rng.normal(0, 0.005))


def null_table(claim: Claim, *, seeds: int, seed: int) -> pd.DataFrame:
    """Runs of a claim whose arms mean nothing.

    Args:
        claim: with `exchange`.
        seeds: of the runs.
        seed: of the simulation.
    """
    on_ladder = claim.picture is not None and claim.picture.kind == "ladder"
    return simulated_runs(places_of(claim), by_size if on_ladder else nothing, seeds=seeds, seed=seed)


def places_of(claim: Claim) -> list[Place]:
    """The places that a claim compares or draws, and those of the same arms in all sizes of its grids of the same file."""
    picture = claim.picture
    named = [*claim.exchange, *((*picture.places, *picture.beside) if picture else ())]
    alike = {
        place.grid: [
            grid for grid in map(GRIDS.__getitem__, claim.grids) if grid.file == GRIDS[place.grid].file
        ]
        for place in named
    }
    others = (
        Place(grid.name, place.arm, size)
        for place in named
        for grid in alike[place.grid]
        for size in grid.sizes
    )
    return list(dict.fromkeys([*named, *others]))
