"""Observations: one row per number, with its interval, n, chance level and validity. The tidy columns are fixed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from byrote.probes.few import mean_interval
from byrote.probes.rules import too_few
from byrote.probes.spec import ProbeInfo

AXES = ("layer", "head", "src_layer", "src_head", "position")
OBSERVATION_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("step", pa.int64()),
        ("tokens_seen", pa.int64()),
        ("probe", pa.string()),
        ("metric", pa.string()),
        *[(axis, pa.int64()) for axis in AXES],
        ("value", pa.float64()),
        ("lo", pa.float64()),
        ("hi", pa.float64()),
        ("chance", pa.float64()),
        ("n", pa.int64()),
        ("valid", pa.bool_()),
        ("reason", pa.string()),
    ]
)
# Units carry the per-sequence values too: paired comparisons and verdicts are made from them.
UNIT_SCHEMA = OBSERVATION_SCHEMA.append(pa.field("samples", pa.list_(pa.float32())))
SORT_COLUMNS = ["step", "probe", "metric", *AXES]
STORED_ORDER = [
    "probe",
    "metric",
    "step",
    *AXES,
]  # of observations.parquet: who reads one metric reads one stretch


@dataclass(frozen=True)
class Measured:
    """One metric of one probe at one step, before it is laid out in rows.

    Attributes:
        values: point values, any shape; the axes are named by `axes`.
        lo, hi, chance: same shape as values.
        n: sequences, or draws, per value; same shape.
        axes: names of the axes of `values`, from layer, head, src_layer, src_head, position.
        position_start: value of `position` at index 0.
        samples: per-sequence values, first axis the sequence; None where there are none or too many to keep.
        reasons: index tuple of the leading axes -> why it is not valid.
        undefined: reason for values that are not finite.
        exists: which entries are quantities at all (an earlier head cannot read a later one); None means all.
    """

    probe: str
    metric: str
    values: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    chance: np.ndarray
    n: np.ndarray
    axes: tuple[str, ...]
    position_start: int = 0
    samples: np.ndarray | None = None
    layer_reasons: Mapping[int, str] = field(default_factory=dict)
    undefined: str = ""
    exists: np.ndarray | None = None


def from_samples(
    info: ProbeInfo,
    metric: str,
    samples: np.ndarray,
    *,
    axes: Sequence[str],
    chance: np.ndarray | float,
    seed: int,
    position_start: int = 0,
    keep_samples: bool = True,
    layer_reasons: Mapping[int, str] | None = None,
) -> Measured:
    """Means of per-sequence values with their intervals, as a `Measured`.

    Args:
        info: the probe.
        metric: its metric.
        samples: first axis sequences, the others as named by `axes`.
        axes: names of the other axes.
        chance: chance level, broadcast over the values.
        seed: of the bootstrap.
        position_start: value of `position` at index 0.
        keep_samples: store the per-sequence values in the unit.
        layer_reasons: layers whose patterns cannot be trusted, and why.
    """
    shape = samples.shape[1:]
    flat = samples.reshape(samples.shape[0], -1).astype(np.float64)
    interval = mean_interval(flat, info.kind_of(metric), seed=seed)
    return Measured(
        probe=info.name,
        metric=metric,
        values=interval.value.reshape(shape),
        lo=interval.lo.reshape(shape),
        hi=interval.hi.reshape(shape),
        chance=np.broadcast_to(np.asarray(chance, dtype=np.float64), shape),
        n=interval.n.reshape(shape),
        axes=tuple(axes),
        position_start=position_start,
        samples=samples if keep_samples else None,
        layer_reasons=layer_reasons or {},
        undefined=info.undefined,
    )


def withheld(info: ProbeInfo, measured: Measured) -> Measured:
    """The same, without its values where it is a verdict on too few sequences."""
    reason = too_few(info, measured.metric, float(measured.n.max(initial=0.0)))
    if not reason:
        return measured
    nan = np.full_like(measured.values, np.nan, dtype=np.float64)
    return replace(measured, values=nan, lo=nan, hi=nan, undefined=reason)


def not_measured(info: ProbeInfo, metric: str, reason: str) -> Measured:
    """One row that says a metric was not measured, and why."""
    nan = np.full((), np.nan)
    zero = np.zeros(())
    return Measured(info.name, metric, nan, nan, nan, nan, zero, (), undefined=reason)


def unit_table(measured: Sequence[Measured], *, run: str, step: int, tokens_seen: int | None) -> pa.Table:
    """Rows of one unit, in `UNIT_SCHEMA`."""
    tables = [_rows(m, run=run, step=step, tokens_seen=tokens_seen) for m in measured]
    return pa.concat_tables(tables) if tables else UNIT_SCHEMA.empty_table()


def _rows(m: Measured, *, run: str, step: int, tokens_seen: int | None) -> pa.Table:
    size = int(m.values.size)
    grids = (
        np.indices(m.values.shape).reshape(len(m.axes), size) if m.axes else np.zeros((0, size), dtype=int)
    )
    index = dict(zip(m.axes, grids, strict=True))
    if "position" in index:
        index["position"] = index["position"] + m.position_start
    valid, reason = _validity(m, index.get("layer"), size)
    columns: dict[str, pa.Array] = {
        "run": pa.array([run] * size, pa.string()),
        "step": pa.array(np.full(size, step), pa.int64()),
        "tokens_seen": pa.array([tokens_seen] * size, pa.int64()),
        "probe": pa.array([m.probe] * size, pa.string()),
        "metric": pa.array([m.metric] * size, pa.string()),
    }
    for axis in AXES:
        columns[axis] = pa.array(index[axis], pa.int64()) if axis in index else pa.nulls(size, pa.int64())
    for name, values in (("value", m.values), ("lo", m.lo), ("hi", m.hi), ("chance", m.chance)):
        columns[name] = pa.array(np.where(valid, values.reshape(size), np.nan), pa.float64())
    columns["n"] = pa.array(m.n.reshape(size).astype(np.int64), pa.int64())
    columns["valid"] = pa.array(valid, pa.bool_())
    columns["reason"] = pa.array(reason, pa.string())
    columns["samples"] = _sample_lists(m.samples, size)
    table = pa.table(columns, schema=UNIT_SCHEMA)
    return table if m.exists is None else table.filter(pa.array(m.exists.reshape(size)))


def _validity(m: Measured, layer: np.ndarray | None, size: int) -> tuple[np.ndarray, list[str]]:
    valid = np.isfinite(m.values).reshape(size)
    reason = ["" if ok else m.undefined or "undefined on every sequence" for ok in valid]
    if layer is not None and m.layer_reasons:
        for i, l in enumerate(layer):
            if int(l) in m.layer_reasons:
                valid[i], reason[i] = False, m.layer_reasons[int(l)]
    return valid, reason


def _sample_lists(samples: np.ndarray | None, size: int) -> pa.Array:
    if samples is None:
        return pa.array([[]] * size, pa.list_(pa.float32()))
    n = samples.shape[0]
    flat = np.ascontiguousarray(samples.reshape(n, size).T.astype(np.float32)).reshape(-1)
    offsets = np.arange(0, (size + 1) * n, n, dtype=np.int32) if n else np.zeros(size + 1, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def from_frame(frame: pd.DataFrame) -> pa.Table:
    """The table of a tidy frame; columns that are none of the schema's are left out."""
    return pa.Table.from_pandas(frame, schema=OBSERVATION_SCHEMA, preserve_index=False)


def in_order(table: pa.Table, columns: Sequence[str] = SORT_COLUMNS) -> pa.Table:
    """Observations in the order they are shown in, or in that of other columns."""
    return table.sort_by([(name, "ascending") for name in columns]).combine_chunks()


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The tidy frame: nullable integers for the axes, so that an absent head is <NA> and never 0 or NaN."""
    whole = [name for name in ("step", "n") if name in table.column_names]  # never absent
    frame = table.drop_columns(whole).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name in whole:
        if table[name].null_count:
            raise ValueError(f"a row has no {name}")
        frame.insert(table.schema.get_field_index(name), name, np.array(table[name], dtype=np.int64))
    return frame
