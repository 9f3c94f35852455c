"""Tidy rows of observations: marked where lint asked to leave them out, ranked, named. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from byrote.interp.axes import head_label, pair_label


def strongest_first(
    value: Float[np.ndarray, "*shape"], valid: Bool[np.ndarray, "*shape"], *, lower: bool = False
) -> Int[np.ndarray, " ranked"]:
    """Flat indices of the valid values, strongest first; ties go to the earlier one.

    Args:
        value: to rank.
        valid: which may be ranked at all.
        lower: whether a lower value is stronger.
    """
    order = np.argsort(np.where(valid, value if lower else -value, np.inf), axis=None, kind="stable")
    return order[: int(valid.sum())]


def ranked(rows: pd.DataFrame, *, lower: bool = False) -> pd.DataFrame:
    """Valid rows of one metric, strongest first, with `label`; ties go to the earlier step, layer and head."""
    rows = rows.sort_values(["step", "layer", "head"], kind="stable")
    order = strongest_first(rows["value"].to_numpy(np.float64), rows["valid"].to_numpy(bool), lower=lower)
    rows = rows.iloc[order].reset_index(drop=True)
    return rows.assign(label=[row_label(row) for row in rows.itertuples(index=False)])


def row_label(row: Any) -> str:
    """The head a row is about: `L5H1`, `L0H1 → L1H0` for a pair, "" for the whole model."""
    if pd.isna(row.layer):
        return ""
    own = int(row.layer), int(row.head)
    source = getattr(row, "src_layer", None)
    if source is None or pd.isna(source):
        return head_label(*own)
    return pair_label((int(source), int(row.src_head)), own)


def mark_left_out(rows: pd.DataFrame, left_out: Mapping[int, str]) -> pd.DataFrame:
    """Observations with the column `left_out`: rows of those steps are no longer valid and carry the reason."""
    reasons = rows["step"].map(left_out) if left_out else pd.Series(pd.NA, index=rows.index)
    doubted = reasons.notna() & rows["valid"].astype(bool)
    if not doubted.any():
        return rows.assign(left_out=False)
    return rows.assign(
        valid=rows["valid"].astype(bool) & ~doubted,
        reason=rows["reason"].mask(doubted, "left out by lint: " + reasons.astype(str)),
        left_out=doubted,
    )
