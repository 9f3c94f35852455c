"""Displacement: in damaged runs, do other heads take over what induction heads write for a copied token? No torch.

Source: Hernandez et al. 2022, arXiv:2205.10487, section 5.2 (a skip-trigram head may replace the induction head) and appendix B (direct
logit attribution of two models, inconclusive); the numbers are those of `induction_dla`. The classes and the test are byrote's own.

1. every head of a run has a class by its own verdicts at that step: induction head (`induction` verdict), else previous-token head
   (lower end above 0.4), else other head
2. share of a class = sum over its heads of what they raise the copied token's logit by (`induction_dla` score; what lowers it counts
   as 0), over that sum for all heads; raise = the sum itself in logits. A run none of whose heads raises it has no shares
3. per arm and class: mean over seeds; arm minus control by pairs of seeds, else Welch
4. displaced (what the paper speculates): the share of induction heads falls and that of other heads rises, and more than half of the
   raise remains; absent: more than half of the raise is lost, so that nothing took their place; weaker: some of it is lost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.probes.groups import Group, pairs_by_seed
from byrote.probes.rules import (
    HALF_RISEN,
    MIN_SEEDS,
    SMALLEST_LOGITS,
    SMALLEST_SHARE,
    UNCLEAR,
    is_called,
    is_previous_token_head,
)
from byrote.probes.seed_statistics import mean_over_seeds, paired_difference, unpaired_difference

CLASSES = ("induction", "previous token", "other")
TOTAL = "all heads"
DISPLACEMENT_COLUMNS = (
    "class", "metric", "a", "b", "difference", "lo", "hi", "p", "seeds_a", "seeds_b", "a_lo", "a_hi", "b_lo", "b_hi",
)  # fmt: skip
ABSENT, WEAKER, DISPLACED, UNCLEAR_WHICH = "absent, not replaced", "weaker", "displaced", UNCLEAR


def head_shares(score: pd.DataFrame, verdict: pd.DataFrame, previous: pd.DataFrame) -> dict[str, float]:
    """Raise of the copied token by class of head, of one run at one step.

    Args:
        score: `induction_dla` score by layer and head, in logits.
        verdict: `induction` verdict of the same heads.
        previous: `previous_token` score of the same heads, with its lower end `lo`.

    Returns:
        class -> share from 0 to 1 (NaN where no head raises it), and `TOTAL` -> raise in logits.
    """
    keys = ["layer", "head"]
    frame = score[[*keys, "value"]].merge(verdict[[*keys, "value"]], on=keys, suffixes=("", "_verdict"))
    frame = frame.merge(previous[[*keys, "lo"]], on=keys)
    if len(frame) != len(score):
        raise ByroteError(
            "heads of a run have no verdict or no previous-token score", help="measure -p induction"
        )
    raised = frame["value"].to_numpy(np.float64).clip(0, None)
    called = is_called(frame["value_verdict"].to_numpy(np.float64))
    before = is_previous_token_head(frame["lo"].to_numpy(np.float64)) & ~called
    masks = dict(zip(CLASSES, (called, before, ~called & ~before), strict=True))
    total = float(np.nansum(raised))
    return {
        name: float(np.nansum(raised[mask])) / total if total else np.nan for name, mask in masks.items()
    } | {TOTAL: total}


def displacement(a: Group, b: Group, *, step: int | None = None) -> tuple[pd.DataFrame, str]:
    """Which class of head raises the copied token's logit, in the control and in the arm: have others replaced induction heads?

    Args:
        a, b: control and arm.
        step: training step; None is the last that all runs have.

    Returns:
        (`DISPLACEMENT_COLUMNS`, reading): shares from 0 to 1 and the raise in logits with differences b - a and their 95% intervals over
        seeds; the reading is `ABSENT`, `WEAKER`, `DISPLACED` or `UNCLEAR_WHICH`.

    Raises:
        ByroteError: no step in common, or `induction_dla`, `induction` or `previous_token` not measured.
    """
    pairs, _ = pairs_by_seed(a, b)
    sides = [[pair[i] for pair in pairs] for i in (0, 1)] if pairs else [list(a.runs), list(b.runs)]
    runs = [*sides[0], *sides[1]]
    common = set.intersection(*(set(run.usable_steps) for run in runs))
    at = max(common, default=None) if step is None else step
    if at is None or at not in common:
        raise ByroteError("the runs have no such step in common", help="measure the same steps of all runs")
    a_found, b_found = ([_of_run(run, at) for run in side] for side in sides)
    table = shares_table(a_found, b_found, paired=bool(pairs))
    return table, reading(table)


def shares_table(
    a: Sequence[Mapping[str, float]], b: Sequence[Mapping[str, float]], *, paired: bool
) -> pd.DataFrame:
    """Differences of the classes' shares between two arms.

    Args:
        a, b: of each run of the control and of the arm, see `head_shares`; pairs in the same order.
        paired: whether they are pairs.

    Returns:
        `DISPLACEMENT_COLUMNS`: both means with their own 95% intervals over seeds (a_lo, ...), and b - a with that of the
        difference (lo, hi); runs without shares are left out, with their partner.
    """
    rows = []
    for name in (*CLASSES, TOTAL):
        x, y = (np.array([one[name] for one in side], dtype=np.float64) for side in (a, b))
        if paired:
            known = np.isfinite(x) & np.isfinite(y)
            x, y = x[known], y[known]
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]
        unit = "raise" if name == TOTAL else "share"
        if not len(x) or not len(y):
            rows.append((name, unit, *(np.nan,) * 6, len(x), len(y), *(np.nan,) * 4))
            continue
        test = (paired_difference if paired else unpaired_difference)(x, y)
        ends = (test.value, test.lo, test.hi, test.p)
        a_mean, b_mean = mean_over_seeds(x), mean_over_seeds(y)
        own = np.array([a_mean.lo, a_mean.hi, b_mean.lo, b_mean.hi])
        own = own if name == TOTAL else own.clip(0.0, 1.0)
        rows.append((name, unit, a_mean.value, b_mean.value, *ends, len(x), len(y), *own))
    return pd.DataFrame(rows, columns=list(DISPLACEMENT_COLUMNS))


def reading(table: pd.DataFrame) -> str:
    """What the differences say: absent and not replaced, displaced by others, weaker, or none of it significantly."""
    by = table.set_index("class")
    if table[["seeds_a", "seeds_b"]].min(axis=None) < MIN_SEEDS:
        return UNCLEAR_WHICH
    if by.loc[TOTAL, "hi"] < -HALF_RISEN * by.loc[TOTAL, "a"]:
        return ABSENT
    falls, rises = by.loc["induction", "hi"] < -SMALLEST_SHARE, by.loc["other", "lo"] > SMALLEST_SHARE
    if falls and rises:
        return DISPLACED
    return WEAKER if by.loc[TOTAL, "hi"] < -SMALLEST_LOGITS else UNCLEAR_WHICH


def _of_run(run: Any, step: int) -> dict[str, float]:
    """Shares of a run, which are those of the control for every arm."""
    found: dict[str, float] = run.cached(("head shares", step), lambda: _shares(run, step), len)
    return found


def _shares(run: Any, step: int) -> dict[str, float]:
    parts: Sequence[tuple[str, str]] = (
        ("induction_dla", "score"),
        ("induction", "verdict"),
        ("previous_token", "score"),
    )
    frames = []
    for probe, metric in parts:
        run.require(probe, metric)
        rows = run.select(probe, metric, step=step)
        frames.append(rows[rows["layer"].notna() & rows["src_layer"].isna()])
    return head_shares(*frames)
