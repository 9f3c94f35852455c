"""Counterfactual memorisation: what does a model know of a sequence because it was trained on it? No torch.

Source: Zhang et al. 2021, arXiv:2112.12938, section 3 (after Feldman and Zhang 2020, arXiv:2008.03703): mem(x) is the mean
performance on x of models trained on random subsets of the data that hold x, minus that of models whose subsets do not; performance
is the share of tokens predicted first. Intervals over runs and the correction over sequences are byrote's own.

1. of each member: mean value over the runs that were trained on it, minus the mean over those that were not; two runs or more on
   either side
2. per member: Welch's interval over runs; one-sided p by exact permutation of which runs were trained on it, which chance decided
   (accuracies are shares of a few tokens: runs that agree to the last digit are no certainty); q corrected over members
   (Benjamini-Hochberg); significantly memorised where q is below 5%
3. over members: the mean of these differences. Its interval is Student's over runs, by the jackknife: each run is left out in turn,
   for a run is one draw of a training and shares its luck among all members
4. chance: 0. What members have in common with everything else (an easy sequence) is the same on both sides and cancels
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.rules import ALPHA
from byrote.probes.seed_statistics import SeedDifference, label_p, paired_difference, unpaired_difference
from byrote.probes.statistics import benjamini_hochberg

SIGNIFICANTLY = "significantly memorised"
LEAST_RUNS = 2  # with a member, and without it
COUNTERFACTUAL_COLUMNS = (
    "member", "with", "without", "mean_with", "mean_without", "value", "lo", "hi", "p", "q", "memorised",
)  # fmt: skip


@dataclass(frozen=True)
class Counterfactual:
    """Counterfactual memorisation: what runs trained on a member know of it that runs not trained on it do not.

    Attributes:
        rows: `COUNTERFACTUAL_COLUMNS`, one per member that can be judged, the most memorised first.
        mean: over these members, with its interval over runs.
        memorised_frac: share of them that are significantly memorised.
        runs: how many.
        left_out: members that too few runs have, or lack.
    """

    rows: pd.DataFrame
    mean: SeedDifference
    memorised_frac: float
    runs: int
    left_out: int


def counterfactual(members: pd.DataFrame, *, better: str = "higher") -> Counterfactual:
    """What runs know about members because they were trained on them.

    Args:
        members: columns run, member, repeats (0: not trained on it) and value; each run with each member once.
        better: "higher", or "lower" for a loss: then the sign is turned, so that more is more memory.

    Raises:
        ByroteError: missing columns, runs without a value of some member, fewer than three runs, or no member with two runs on
            either side.
    """
    value, included = _matrices(members)
    if better == "lower":
        value = -value
    n_in, n_out = included.sum(0), (~included).sum(0)
    enough = (n_in >= LEAST_RUNS) & (n_out >= LEAST_RUNS)
    if len(value) < 3 or not enough.any():
        raise ByroteError(
            f"{len(value)} runs have no member that two of them were trained on and two were not",
            help="train more seeds of an arm whose members each run has a random part of (lab arm: subsets)",
        )
    numbers = np.flatnonzero(enough)
    value, included = value[:, enough], included[:, enough]
    effect = _difference(value, included)
    whole, n = float(effect.mean()), len(value)
    left_out = [
        float(_difference(np.delete(value, k, 0), np.delete(included, k, 0)).mean()) for k in range(n)
    ]
    pseudo = n * whole - (n - 1) * np.array(left_out)
    spread = paired_difference(np.zeros(n), pseudo)
    half = (spread.hi - spread.lo) / 2
    rows = _member_table(value, included, numbers)
    sure = float(rows["memorised"].mean())
    mean = SeedDifference(whole, whole - half, whole + half, spread.p)
    return Counterfactual(rows, mean, sure, n, int((~enough).sum()))


def _matrices(
    members: pd.DataFrame,
) -> tuple[Float[np.ndarray, "runs members"], Bool[np.ndarray, "runs members"]]:
    """Values, and whether each run was trained on each member."""
    missing = {"run", "member", "repeats", "value"} - set(members)
    if missing or members.duplicated(["run", "member"]).any():
        raise ByroteError(
            "counterfactual memorisation needs run, member, repeats and value, each run with each member once",
            help="make one row per run and member",
        )
    value = members.pivot(index="run", columns="member", values="value").to_numpy(np.float64)
    repeats = members.pivot(index="run", columns="member", values="repeats").to_numpy(np.float64)
    if not (np.isfinite(value).all() and np.isfinite(repeats).all()):
        raise ByroteError(
            "a run has no value for some members",
            help="measure all runs on the same members, with one command",
        )
    return value, repeats > 0


def _difference(
    value: Float[np.ndarray, "runs members"], included: Bool[np.ndarray, "runs members"]
) -> Float[np.ndarray, " members"]:
    """Mean over runs with a member minus mean over those without; NaN where either has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        with_it = np.where(included, value, 0.0).sum(0) / included.sum(0)
        without = np.where(included, 0.0, value).sum(0) / (~included).sum(0)
    return with_it - without


def _member_table(
    value: Float[np.ndarray, "runs members"],
    included: Bool[np.ndarray, "runs members"],
    numbers: np.ndarray,
) -> pd.DataFrame:
    rows = []
    for number, column, chosen in zip(numbers, value.T, included.T, strict=True):
        one = unpaired_difference(column[~chosen], column[chosen])
        means = float(column[chosen].mean()), float(column[~chosen].mean())
        p = label_p(column[~chosen], column[chosen])
        rows.append(
            (int(number), int(chosen.sum()), int((~chosen).sum()), *means, one.value, one.lo, one.hi, p)
        )
    table = pd.DataFrame(rows, columns=list(COUNTERFACTUAL_COLUMNS[:-2]))
    q = benjamini_hochberg(table["p"].to_numpy(np.float64))
    table = table.assign(q=q, memorised=q < ALPHA)
    return table.sort_values("value", ascending=False, kind="stable").reset_index(drop=True)
