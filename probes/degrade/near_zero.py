"""The near-zero diagnostic: is the worst dose the one at which the loss on the repeated data nears zero? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, section 5: "practical diagnostic"; the threshold is byrote's own (`NEAR_ZERO_FRAC`).

1. share = loss on the repeated data over loss on fresh data of the same source (`mem_gap` `loss_share`), mean over the seeds of a dose
2. the onset of near zero, coming from doses at which nothing is memorised: the first dose whose share is below 10%; doses are
   ordered by how often each sequence is repeated, so that of pools the largest stands first
3. distance = grid steps between that dose and the worst one; the diagnostic holds where it is 1 or less
4. the same for every seed by itself: how many of how many, with the exact interval (Clopper and Pearson 1934)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.runs import required
from byrote.probes.few import exact_ends
from byrote.probes.rules import NEAR_ZERO_FRAC
from byrote.probes.statistics import LEVEL


@dataclass(frozen=True)
class NearZero:
    """The dose at which repeated data are memorised, beside the dose at which damage is worst.

    Attributes:
        onset: dose from which on the share is near zero; NaN where it is near zero nowhere.
        worst: dose of the largest mean damage.
        distance: grid steps between them; NaN without an onset.
        holds: seeds whose own distance is 1 or less, of `seeds`.
        seeds: that have every dose.
        lo, hi: 95% interval of their share.
        shares: mean share by dose, in the order of growing repetition.
        doses: in that order.
    """

    onset: float
    worst: float
    distance: float
    holds: int
    seeds: int
    lo: float
    hi: float
    shares: tuple[float, ...]
    doses: tuple[float, ...]


def near_zero(damage: pd.DataFrame, loss_share: pd.DataFrame, over: str) -> NearZero:
    """Compare the worst dose with the first dose at which the repeated data are memorised.

    Args:
        damage: `run_rows` of the loss or score that is damaged.
        loss_share: `run_rows` of `mem_gap` `loss_share` of the same runs.
        over: which fact is the dose.

    Raises:
        ByroteError: other runs, or a dose that is not declared.
    """
    if damage["run"].tolist() != loss_share["run"].tolist():
        raise ByroteError(
            "damage and the loss on repeated data are from different runs",
            help="compute both tables from the same groups",
        )
    doses = required(damage, over, what_for="the near-zero diagnostic")
    order = sorted({float(d) for d in doses}, reverse=over == "pool")
    sign = -1.0 if damage["better"].iloc[0] == "higher" else 1.0
    value = sign * damage["value"].to_numpy(np.float64)
    share = loss_share["value"].to_numpy(np.float64)
    seeds = list(damage[["init_seed", "data_seed"]].itertuples(index=False, name=None))
    means = np.array([[x[doses == d].mean() for d in order] for x in (value, share)])
    onset, worst = _places(means[0], means[1])
    within = []
    for one in dict.fromkeys(seeds):
        mine = np.array([s == one for s in seeds])
        if all((mine & (doses == d)).sum() == 1 for d in order):
            own = np.array([[x[mine & (doses == d)][0] for d in order] for x in (value, share)])
            first, most = _places(own[0], own[1])
            within.append(first is not None and abs(first - most) <= 1)
    lo, hi = exact_ends(np.array(float(sum(within))), np.array(float(max(1, len(within)))), level=LEVEL)
    distance = np.nan if onset is None else float(abs(onset - worst))
    ends = (float(lo), float(hi)) if within else (np.nan, np.nan)
    return NearZero(
        np.nan if onset is None else order[onset], order[worst], distance, sum(within), len(within), *ends,
        tuple(means[1].tolist()), tuple(order),
    )  # fmt: skip


def _places(
    damage: Float[np.ndarray, " doses"], share: Float[np.ndarray, " doses"]
) -> tuple[int | None, int]:
    """Index of the first dose whose share is near zero, or None; and of the worst."""
    low = np.flatnonzero(share < NEAR_ZERO_FRAC)
    return (int(low[0]) if len(low) else None), int(damage.argmax())
