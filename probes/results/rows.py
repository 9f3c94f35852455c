"""Tidy rows of observations: marked where lint leaves them out, ranked, named; and one head metric as arrays. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.steps import step_of
from byrote.interp.axes import head_label, pair_label
from byrote.probes.spec import ProbeInfo
from byrote.probes.wording import step_number


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
    return rows.assign(label=labels(rows))


def labels(rows: pd.DataFrame) -> list[str]:
    """`row_label` of every row."""
    axes = ("layer", "head", "src_layer", "src_head")
    ends = (rows[axis].tolist() if axis in rows else [pd.NA] * len(rows) for axis in axes)
    return [_label(*row) for row in zip(*ends, strict=True)]


def row_label(row: Any) -> str:
    """What a row is about: `L5H1`, `L0H1 → L1H0` for a pair, `L5` for a layer's MLP, "" for the whole model."""
    source = getattr(row, "src_layer", pd.NA), getattr(row, "src_head", pd.NA)
    return _label(row.layer, row.head, *source)


def _label(layer: Any, head: Any, src_layer: Any, src_head: Any) -> str:
    if pd.isna(layer):
        return ""
    own = _node(layer, head)
    return head_label(*own) if pd.isna(src_layer) else pair_label(_node(src_layer, src_head), own)


def _node(layer: Any, head: Any) -> tuple[int, int | None]:
    return int(layer), None if pd.isna(head) else int(head)


def at_step(rows: pd.DataFrame, step: int | str | None) -> tuple[pd.DataFrame, int]:
    """The rows of one step (512, "1k", "first" or "last"), and that step; None is the last.

    Raises:
        ByroteError: that step was not swept; the help names the nearest that were.
    """
    steps = sorted({int(s) for s in rows["step"]})
    ends = {"first": steps[0], "last": steps[-1], None: steps[-1]}
    wanted = ends[step] if step in ends else step_of(step)
    if wanted not in steps:
        nearest = sorted(sorted(steps, key=lambda s: abs(s - wanted))[:2])
        message = f"step {step_number(wanted)} is not in these results ({len(steps)} steps, "
        message += f"{step_number(steps[0])}-{step_number(steps[-1])})"
        raise ByroteError(message, help=f"nearest: {', '.join(step_number(s) for s in nearest)}")
    return rows[rows["step"] == wanted], wanted


def one_head(rows: pd.DataFrame, head: tuple[int, int]) -> pd.DataFrame:
    """The rows of one head.

    Raises:
        ByroteError: no row is about that head.
    """
    mine = rows[(rows["layer"] == head[0]) & (rows["head"] == head[1])]
    if mine.empty:
        measured = rows[["layer", "head"]].dropna().drop_duplicates().itertuples(index=False)
        names = [head_label(int(layer), int(index)) for layer, index in measured]
        raise ByroteError(
            f"there is no head {head_label(*head)} here", help=did_you_mean(head_label(*head), names)
        )
    return mine


def narrowed_to(
    rows: pd.DataFrame, step: int | None, head: tuple[int, int] | None, *, single: bool
) -> pd.DataFrame:
    """The rows of one step, of one head, or that have no position and are about no pair, numbered anew."""
    meant = np.ones(len(rows), dtype=bool)
    if step is not None:
        meant &= rows["step"].to_numpy() == step
    for axis, index in zip(("layer", "head"), head or (), strict=False):
        meant &= rows[axis].eq(index).to_numpy(bool, na_value=False)
    for axis in ("src_layer", "position") if single else ():
        meant &= rows[axis].isna().to_numpy()
    return rows[meant].reset_index(drop=True)


def mark_left_out(rows: pd.DataFrame, left_out: Mapping[int, str]) -> pd.DataFrame:
    """Observations with the column `left_out`: rows of those steps are no longer valid and carry the reason."""
    if not left_out:
        return rows.assign(left_out=False)
    reasons = rows["step"].map(left_out)
    flagged = reasons.notna() & rows["valid"].astype(bool)
    if not flagged.any():
        return rows.assign(left_out=False)
    return rows.assign(
        valid=rows["valid"].astype(bool) & ~flagged,
        reason=rows["reason"].mask(flagged, "left out by lint: " + reasons.astype(str)),
        left_out=flagged,
    )


def with_facts(rows: pd.DataFrame, facts: Mapping[str, str | int | None]) -> pd.DataFrame:
    """Observations with a column after `run` for each fact that is not None."""
    known = {name: value for name, value in facts.items() if value is not None}
    words = {
        name: pd.Categorical.from_codes(np.zeros(len(rows), np.int8), [value])
        for name, value in known.items()
        if isinstance(value, str)
    }
    numbers = {
        name: pd.array(np.full(len(rows), v), "Int64") for name, v in known.items() if name not in words
    }
    rest = [name for name in rows.columns if name != "run" and name not in known]
    return rows.assign(**words, **numbers)[["run", *known, *rest]]


COLUMNS = ("step", "layer", "head", "value", "lo", "hi", "chance", "n", "valid", "src_layer", "position")


@dataclass(frozen=True)
class Cube:
    """One head metric over the whole series.

    Attributes:
        steps: the steps, ascending; those that could not be read are among them.
        value, lo, hi, chance: NaN where not measured.
        n: sequences.
        valid: measured, and not left out by lint.
        measured: a number is there, believed or not.
        limits: the fixed colour range, see `limits_of`.
        lower: whether a lower value is more of what the probe names.
    """

    steps: tuple[int, ...]
    value: Float[np.ndarray, "step layer head"]
    lo: Float[np.ndarray, "step layer head"]
    hi: Float[np.ndarray, "step layer head"]
    chance: Float[np.ndarray, "step layer head"]
    n: Int[np.ndarray, "step layer head"]
    valid: Bool[np.ndarray, "step layer head"]
    measured: Bool[np.ndarray, "step layer head"]
    limits: tuple[float, float]
    lower: bool = False

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        parts = (self.value, self.lo, self.hi, self.chance, self.n, self.valid, self.measured)
        return sum(part.nbytes if any(part.strides) else part.itemsize for part in parts)

    def index(self, step: int) -> int:
        """Where a step is on the first axis."""
        return self.steps.index(step)

    def interval(self, step: int, head: tuple[int, int]) -> tuple[float, float, float]:
        """A head's value, lo and hi at a step."""
        at = (self.index(step), *head)
        return float(self.value[at]), float(self.lo[at]), float(self.hi[at])

    def typical_chance(self) -> float | None:
        """The median chance level, None where the probe states none."""
        known = self.chance[np.isfinite(self.chance)]
        return float(np.median(known)) if known.size else None

    def ranked(self, step: int) -> list[tuple[int, int]]:
        """(layer, head) measured at a step, strongest first; ties go to the earlier head."""
        at, n_heads = self.index(step), self.value.shape[2]
        order = strongest_first(self.value[at], self.valid[at], lower=self.lower)
        return [(i // n_heads, i % n_heads) for i in order.tolist()]

    def strongest(self, step: int) -> tuple[int, int] | None:
        """The strongest head measured at a step."""
        return next(iter(self.ranked(step)), None)


def cube_of(
    rows: pa.Table,
    info: ProbeInfo,
    metric: str,
    *,
    steps: tuple[int, ...],
    shape: tuple[int, int],
    left_out: Collection[int],
) -> Cube:
    """The cube of one metric.

    Args:
        rows: with `COLUMNS`; those that are not of one head and step are left out.
        info, metric: of the probe.
        steps: of the first axis.
        shape: (n_layers, n_heads).
        left_out: steps that lint leaves out.
    """
    single = pc.and_(pc.is_null(rows["src_layer"]), pc.is_null(rows["position"]))
    rows = rows.filter(pc.and_(single, pc.is_valid(rows["layer"])))
    column = {name: rows[name].to_numpy() for name in COLUMNS[:-2]}
    where = (np.searchsorted(steps, column["step"]), column["layer"], column["head"])
    size = (len(steps), *shape)
    floats = {name: np.full(size, np.nan) for name in ("value", "lo", "hi", "chance")}
    for name, grid in floats.items():
        grid[where] = column[name]
    n, valid = np.zeros(size, dtype=np.int32), np.zeros(size, dtype=bool)
    n[where] = column["n"]
    valid[where] = column["valid"] & ~np.isin(column["step"], list(left_out))
    measured = np.isfinite(floats["value"])
    valid &= measured
    floats["chance"], n = _once(floats["chance"]), _once(n)
    return Cube(
        steps,
        **floats,
        n=n,
        valid=valid,
        measured=measured,
        limits=limits_of(info, metric, floats["value"][valid]),
        lower=info.better_of(metric) == "lower",
    )


def _once(grid: np.ndarray) -> np.ndarray:
    """The same, in the memory of one number where all are equal; it must not be changed then."""
    return np.broadcast_to(grid.flat[0], grid.shape) if grid.size and (grid == grid.flat[0]).all() else grid


def limits_of(info: ProbeInfo | None, metric: str, values: np.ndarray) -> tuple[float, float]:
    """The fixed range to draw a metric on, lo < hi: the one its probe declares, else its data's with 0.

    Args:
        info: the probe; None for one that the catalogue does not hold.
        metric: of the probe.
        values: everything that will be drawn, of any shape, used only where no range is declared; what is not finite is
            skipped.
    """
    if info is not None and info.range is not None and info.unit_of(metric) == info.unit:
        return float(info.range[0]), float(info.range[1])
    finite = values[np.isfinite(values)]
    lo, hi = (min(0.0, float(finite.min())), max(0.0, float(finite.max()))) if finite.size else (0.0, 0.0)
    return (lo, hi) if hi > lo else (lo, lo + 1.0)
