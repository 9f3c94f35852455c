"""One head metric over a whole series, as arrays: step x layer x head. No torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from byrote.probes.results.rows import strongest_first
from byrote.probes.spec import ProbeInfo

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
        limits: the fixed colour range: the probe's own, else the data's.
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
        return sum(part.nbytes for part in parts)

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
        left_out: steps that lint asked to leave out.
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
    return Cube(
        steps,
        **floats,
        n=n,
        valid=valid & measured,
        measured=measured,
        limits=limits_of(info, metric, floats["value"]),
        lower=info.better_of(metric) == "lower",
    )


def limits_of(info: ProbeInfo, metric: str, values: np.ndarray) -> tuple[float, float]:
    """The fixed range to draw a metric on, lo < hi: the one its probe declares, else its data's without 0.1% tails."""
    if info.range is not None and info.unit_of(metric) == info.unit:
        return float(info.range[0]), float(info.range[1])
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    lo, hi = np.quantile(finite, [0.001, 0.999])
    lo, hi = min(0.0, float(lo)), max(0.0, float(hi))
    return (lo, hi) if hi > lo else (lo, lo + 1.0)
