"""Tables of runs of known truth, for the self-test, tests and documentation. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.degrade.runs import RUN_COLUMNS

_UNKNOWN: dict[str, Any] = {
    "samples": None, "sequence_var": 0.0, "n": 1, "step": 0, "probe": "held_out_loss", "metric": "loss", "unit": "nats",
    "better": "lower", "smallest": 0.05, "arm": "arm",
}  # fmt: skip


def simulated_rows(values: Float[np.ndarray, "cells seeds"], /, **facts: Any) -> pd.DataFrame:
    """A table such as `run_rows` makes.

    Args:
        values: the metric of each cell and seed.
        **facts: columns; a sequence is one per cell, anything else is the same for all.

    Returns:
        `RUN_COLUMNS`, one row per cell and seed.
    """
    cells, seeds = values.shape
    cell = np.repeat(np.arange(cells), seeds)
    columns: dict[str, Any] = dict.fromkeys(RUN_COLUMNS, np.nan) | _UNKNOWN
    seed = np.tile(np.arange(seeds, dtype=np.float64), cells)
    columns |= {"init_seed": seed, "data_seed": seed, "value": values.ravel(), "samples": [None] * len(seed)}
    for name, value in facts.items():
        many = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        columns[name] = np.asarray(value)[cell] if many else value
    arm = facts.get("arm", "arm")
    columns["run"] = [
        f"{arm if isinstance(arm, str) else arm[c]}-{c}-s{s:g}" for c, s in zip(cell, seed, strict=True)
    ]
    return pd.DataFrame(columns)
