"""Simulated tables of runs: arms that mean nothing, for the calibration of claims' rules. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.claims.gather import READINGS
from byrote.probes.claims.members_table import MEMBER_METRICS
from byrote.probes.claims.record import Claim
from byrote.probes.claims.runs_table import Place, tidy

_PARTS = ("table_part_loss", "rare_table_part_loss", "copy_part_loss", "data_bigram_entropy")
METRICS = (
    "test_loss", "copy_loss", "pool_loss", "excess_risk", "data_rep_2_frac", *_PARTS, *READINGS, *MEMBER_METRICS,
)  # fmt: skip
GUESS_NATS = 3.4
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
                     "guess_nats": GUESS_NATS, "epochs": number + 1.0}  # fmt: skip
            for name, value in known.items():
                columns.setdefault(name, []).extend([value] * len(_STEPS))
            columns.setdefault("step", []).extend(_STEPS)
            for metric in METRICS:
                columns.setdefault(metric, []).extend(curves(place, metric, rng).tolist())
    return tidy(pd.DataFrame(columns))


def nothing(place: Place, metric: str, rng: np.random.Generator) -> Float[np.ndarray, " steps"]:
    """A curve that does not depend on the arm: from high to a level of its own, at a step of its own, sometimes not at all."""
    steps = np.array(_STEPS, dtype=np.float64)
    level = rng.choice([0.3, 3.0]) if rng.random() < 0.5 else rng.uniform(0.3, 3.0)
    at = rng.uniform(50, 2000)
    return 3.5 - (3.5 - level) / (1 + np.exp(-(steps - at) / 60)) + rng.normal(0, 0.03, len(steps))


def null_table(claim: Claim, *, seeds: int, seed: int) -> pd.DataFrame:
    """Runs of a claim whose arms mean nothing.

    Args:
        claim: with `exchange`.
        seeds: of the runs.
        seed: of the simulation.
    """
    places = [*claim.exchange, *(claim.picture.places if claim.picture else ())]
    return simulated_runs(places, nothing, seeds=seeds, seed=seed)
