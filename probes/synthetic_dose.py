"""Held-out loss against the share of synthetic training data, over runs that declare theirs. No torch.

Source: Zhu et al. 2024, arXiv:2412.14689: models trained on mixtures of human and synthetic text lose on human text, slowly at first
and steeply between 75% and 100% synthetic. Differences over seeds: `byrote.probes.seed_statistics`.

1. the share is what a run declares (`synthetic_share` in its series' manifest, or in byrote.toml beside its results)
2. value = mean over the runs of a share of the metric at one step, the last that all runs have, on the same windows
3. difference = value minus that of the smallest share; its interval is Welch's over seeds, with the variance due to the choice of
   windows added. NaN where either share has one run: a single training cannot show how much the next would differ
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results.table import Table
from byrote.probes.seed_statistics import sequence_variance, unpaired_difference

COLUMNS = ("synthetic_share", "runs", "step", "value", "difference", "lo", "hi", "p", "n")


def loss_by_synthetic_share(
    runs: Sequence[Table], *, probe: str = "held_out_loss", metric: str = "loss", step: int | None = None
) -> pd.DataFrame:
    """One row per declared share, the smallest first.

    Args:
        runs: results of one run each, of one model and recipe but for the share and the seeds.
        probe, metric: of the whole model, with values per window.
        step: training step; None is the last that all runs have.

    Returns:
        `COLUMNS`: `value` and `difference` in the metric's unit, `lo`, `hi` and `p` of the difference, `n` windows.

    Raises:
        ByroteError: a run declares no share, all declare the same, or they were not measured at that step on the same windows.
    """
    shares = [float(run.facts.require("synthetic_share", run=run.run, what_for="this curve")) for run in runs]
    if len(set(shares)) < 2:
        raise ByroteError(
            f"{len(runs)} runs declare {len(set(shares))} synthetic share",
            help="give runs of two shares or more",
        )
    texts = {tuple(s["id"] for s in run.meta["stimuli"] if s["kind"] == "natural") for run in runs}
    if len(texts) > 1:
        raise ByroteError("the runs were measured on different windows", help="measure them with one --text")
    at = (
        max(set.intersection(*(set(run.usable_steps) for run in runs)), default=None)
        if step is None
        else step
    )
    values = [_at(run, probe, metric, at) for run in runs]
    rows = []
    least = np.stack([own for own, share in zip(values, shares, strict=True) if share == min(shares)])
    for share in sorted(set(shares)):
        own = np.stack([one for one, its in zip(values, shares, strict=True) if its == share])
        windows = sequence_variance(own.mean(0) - least.mean(0))
        found = unpaired_difference(least.mean(1), own.mean(1), sequences=windows)
        is_least = share == min(shares)  # it is what the others are held against
        ends = (0.0, np.nan, np.nan, np.nan) if is_least else (found.value, found.lo, found.hi, found.p)
        rows.append((share, len(own), at, float(own.mean()), *ends, own.shape[1]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _at(run: Table, probe: str, metric: str, step: int | None) -> Float[np.ndarray, " windows"]:
    found = run.samples(step) if step in run.usable_steps and step is not None else pd.DataFrame()
    if len(found):
        found = found[(found["probe"] == probe) & (found["metric"] == metric) & found["valid"].astype(bool)]
    if len(found) != 1:
        raise ByroteError(
            f"{probe}/{metric} of {run.run} was not measured at step {step}",
            help=f"measure it: byrote run ... -p {probe}",
        )
    return np.asarray(found["samples"].iloc[0], dtype=np.float64)
