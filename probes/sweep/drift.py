"""What a lower precision changes: one step measured again in float32, score by score."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from byrote.probes.results.schema import to_frame

_KEYS = ["probe", "metric", "layer", "head", "src_layer", "src_head", "position"]


def drift_rows(measured: pa.Table, reference: pa.Table) -> list[dict[str, Any]]:
    """Difference of every score from its float32 value, summarised per probe and metric.

    Args:
        measured: units of one step in the precision of the sweep.
        reference: the same units in float32.

    Returns:
        One row per probe and metric: `max_abs` and `mean_abs` difference, `n` values compared, and `interval`, the mean
        width of the float32 interval, to judge the difference by; None where a score has no interval.
    """
    columns = [*_KEYS, "value", "lo", "hi", "valid"]
    merged = to_frame(measured)[columns].merge(
        to_frame(reference)[columns], on=_KEYS, suffixes=("", "_float32")
    )
    merged = merged[merged["valid"] & merged["valid_float32"]]
    merged = merged.assign(
        off=(merged["value"] - merged["value_float32"]).abs(),
        width=merged["hi_float32"] - merged["lo_float32"],
    )
    return [
        _row(probe, metric, part) for (probe, metric), part in merged.groupby(["probe", "metric"], sort=True)
    ]


def _row(probe: str, metric: str, part: pd.DataFrame) -> dict[str, Any]:
    width = float(part["width"].mean())
    return {
        "probe": probe,
        "metric": metric,
        "max_abs": float(part["off"].max()),
        "mean_abs": float(part["off"].mean()),
        "n": len(part),
        "interval": width if width > 0 else None,
    }
