"""How much of a behaviour there is in the whole model, whichever heads carry it. No torch.

Algorithm (probes beside `turnover`: heads may trade places while the algorithm stays):
1. The heads that were measured at every measured step.
2. Per step and sequence, the sum over these heads of score minus chance.
3. Its mean over sequences, with the bootstrap interval of that mean: heads share their sequences, so the sum is
   resampled, not its parts. Where no per-sequence values are stored the heads' intervals are added as if independent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results.table import Table
from byrote.probes.statistics import bootstrap_mean

COLUMNS = ["step", "value", "lo", "hi", "heads", "n"]


def total_mass(
    results: Table, *, probe: str = "prefix_matching", metric: str = "score", seed: int = 0
) -> pd.DataFrame:
    """Score minus chance summed over all heads, per measured step; of prefix matching, the induction mass.

    Args:
        results: of one run. Steps that lint asked to leave out are left out.
        probe, metric: of heads.
        seed: of the resampling.

    Returns:
        `step`, `value` with its 95% interval `lo` and `hi` (in units of the score; below 0 where heads are below
        chance), `heads` in the sum, `n` sequences.

    Raises:
        ByroteError: the metric has no values per head.
    """
    rows = results.rows(probe, metric)
    rows = rows[
        rows["valid"].astype(bool) & rows["head"].notna() & rows["src_head"].isna() & rows["position"].isna()
    ]
    if rows.empty:
        raise ByroteError(
            f"{probe}/{metric} has no values per head in {results.run}", help="take a head probe"
        )
    counts = rows.groupby(["layer", "head"])["step"].transform("nunique")
    rows = rows[counts == rows["step"].nunique()]
    if rows.empty:
        raise ByroteError(
            f"no head of {results.run} was measured on {probe}/{metric} at every step", help="run it again"
        )
    rows = rows.assign(chance=rows["chance"].fillna(0.0), error=(rows["hi"] - rows["lo"]) ** 2 / 4)
    grouped = rows.groupby("step")
    chance, value = grouped["chance"].sum(), grouped["value"].sum()
    half = np.sqrt(grouped["error"].sum())
    found = pd.DataFrame({"value": value - chance, "lo": value - chance - half, "hi": value - chance + half})
    for step, (lo, hi) in _resampled(results, probe, metric, rows, seed).items():
        found.loc[step, ["lo", "hi"]] = lo - chance[step], hi - chance[step]
    found = found.assign(heads=grouped.size(), n=grouped["n"].min()).rename_axis("step").reset_index()
    return found[COLUMNS].astype({"step": int, "heads": int, "n": int})


def _resampled(
    results: Table, probe: str, metric: str, rows: pd.DataFrame, seed: int
) -> dict[int, tuple[float, float]]:
    """Step -> interval of the summed score; only steps whose per-sequence values are all stored."""
    heads = {(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"], strict=True)}
    sums: dict[int, np.ndarray] = {}
    seen: dict[int, int] = {}
    for (step, key), own in results.read_samples(probe, metric):
        if key in heads and len(sums.setdefault(step, np.zeros_like(own))) == len(own):
            sums[step] = sums[step] + own
            seen[step] = seen.get(step, 0) + 1
    whole = [step for step, count in seen.items() if count == len(heads)]
    found = {}
    for step in whole:
        interval = bootstrap_mean(sums[step][:, None], seed=seed)
        found[step] = (float(interval.lo[0]), float(interval.hi[0]))
    return found
