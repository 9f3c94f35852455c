"""Member flow: which training sequences are newly memorised, kept, forgotten or memorised again between two steps? No torch.

Source: the forgetting curves of Tirumala et al. 2022, arXiv:2205.10770, counted sequence by sequence.

1. memorised at a step: the sequence's stored value of a metric reaches a threshold. By default `completed` of
   exact_match at 1: greedy continuation of the first half of its first block gives the second half, every token
2. between two measured steps: new (memorised now, never at an earlier measured step), again (memorised now and once
   before, not at the previous step), kept (memorised at both), forgotten (at the previous step, not now), not (at
   neither). They add up to all members
3. twins: how many sequences never trained on meet the same definition now: what chance gives

What happens between two measured steps is not seen: a member forgotten and learned again in between counts as kept.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results

COLUMNS = (
    "step_from", "step_to", "n", "memorised", "new", "again", "kept", "forgotten", "not", "twins", "n_twins",
)  # fmt: skip


def member_flow(
    results: Results, *, probe: str = "exact_match", metric: str = "completed", threshold: float = 1.0
) -> pd.DataFrame:
    """Count members by what became of them, for every two steps measured one after the other.

    Args:
        results: a run whose members were measured.
        probe, metric: where the value per sequence is stored; higher is more memorised.
        threshold: the value at which a sequence counts as memorised.

    Returns:
        One row per step after the first, with `COLUMNS`: counts of members; `twins` of `n_twins` is the null, <NA>
        where there are none.

    Raises:
        ByroteError: fewer than two steps hold the metric, or they were measured on different members.
    """
    found = {
        step: _memorised(results, step, probe, metric=metric, threshold=threshold) for step in results.steps
    }
    at = {step: (members, twins) for step, (members, twins) in found.items() if members is not None}
    if len(at) < 2:
        raise ByroteError(
            f"{results.run} has {len(at)} steps with {probe} {metric} of every member, and flow needs two",
            help=f"measure it with: byrote run ... -p {probe}, on a series that has members or with --members FILE",
        )
    if len({len(members) for members, _ in at.values()}) > 1:
        raise ByroteError(
            f"{results.run}: its steps were measured on different numbers of members",
            help="measure the run again with --fresh",
        )
    rows, ever = [], next(iter(at.values()))[0]
    for before, now in pairwise(at):
        members, twins = at[now]
        null = (pd.NA, pd.NA) if twins is None else (int(twins.sum()), len(twins))
        rows.append(
            {"step_from": before, "step_to": now}
            | _counts(at[before][0], members, ever)
            | dict(zip(("twins", "n_twins"), null, strict=True))
        )
        ever = ever | members
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype("Int64")


def _counts(
    before: Bool[np.ndarray, " n"], now: Bool[np.ndarray, " n"], ever: Bool[np.ndarray, " n"]
) -> dict[str, int]:
    parts = {
        "memorised": now,
        "new": now & ~ever,
        "again": now & ~before & ever,
        "kept": now & before,
        "forgotten": before & ~now,
        "not": ~before & ~now,
    }  # 2.
    return {"n": len(now)} | {name: int(part.sum()) for name, part in parts.items()}


def _memorised(
    results: Results, step: int, probe: str, *, metric: str, threshold: float
) -> tuple[Bool[np.ndarray, " n"] | None, Bool[np.ndarray, " m"] | None]:
    """Which members and which twins are memorised at a step; None where no value per sequence is stored."""
    rows = results.samples(step, probe=probe)
    rows = rows[rows["valid"]]
    found = []
    for name in (metric, f"{metric}@twins"):
        own = rows[rows["metric"] == name]
        stored = np.asarray(own["samples"].iloc[0], dtype=np.float64) if len(own) == 1 else np.empty(0)
        found.append(stored >= threshold if len(stored) else None)  # 1.
    return found[0], found[1]
