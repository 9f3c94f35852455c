"""One number over the steps of a run, with what is needed to resample it. No torch.

Every step of a series is shown the same sequences, so sequences are resampled once for all steps: what a sequence does
at one step is not independent of what it does at the next. Where no per-sequence values are stored, each step is drawn
from a normal with the width of its interval, steps apart from each other; where nothing was sampled there is no spread.
Imported numbers have no interval at all: they are taken as they stand, and nothing that follows has an interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes.results.unit_files import read_unit, unit_name, unit_of, units_of
from byrote.probes.rules import smallest_effect
from byrote.probes.spec import ProbeInfo
from byrote.probes.statistics import N_RESAMPLES, normal_sf, p_greater, resampled_means, tail_frac

Direction = Literal["higher", "lower"] | None
SEQUENCES, INTERVALS, EXACT, IMPORTED = (
    "bootstrap over sequences",
    "normal draws from the intervals",
    "exact, no sampling",
    "imported, no samples: no intervals",
)
_Z = NormalDist().inv_cdf(0.975)
Head = tuple[int, int] | None
Samples = Mapping[tuple[int, Head], Float[np.ndarray, " n"]]  # (step, head) -> per-sequence values
Sample = tuple[
    tuple[str, str], tuple[int, Head], Float[np.ndarray, " n"]
]  # (probe, metric), (step, head), the values


@dataclass(frozen=True)
class Curve:
    """A metric over training: only steps where it was measured, ascending.

    Attributes:
        run, probe, metric: whose it is.
        layer, head: None for a number about the whole model.
        steps: measured steps.
        value, lo, hi: per step, in `unit`.
        chance: chance level, NaN where the probe states none.
        tokens: training tokens seen per step, NaN where unknown.
        samples: per-sequence values, None where none are stored.
        n: sequences.
        better: which direction is a rise of what the probe names; None where neither is.
        smallest: smallest change worth telling, in `unit`.
        unit: of the values.
        among: how many curves it was chosen from for being the strongest; tests are corrected for that.
    """

    run: str
    probe: str
    metric: str
    layer: int | None
    head: int | None
    steps: Int[np.ndarray, " steps"]
    value: Float[np.ndarray, " steps"]
    lo: Float[np.ndarray, " steps"]
    hi: Float[np.ndarray, " steps"]
    chance: float
    tokens: Float[np.ndarray, " steps"]
    samples: Float[np.ndarray, "n steps"] | None
    n: int
    better: Direction
    smallest: float
    unit: str
    among: int = 1

    @property
    def label(self) -> str:
        """`prefix_matching L1H0`, `repeat_loss/difference`."""
        metric = "" if self.metric == "score" else f"/{self.metric}"
        head = "" if self.layer is None or self.head is None else f" {head_label(self.layer, self.head)}"
        return f"{self.probe}{metric}{head}"

    @property
    def method(self) -> str:
        """How it is resampled."""
        if self.samples is not None:
            return SEQUENCES
        if self.imported:
            return IMPORTED
        return INTERVALS if (self.hi > self.lo).any() else EXACT

    @property
    def imported(self) -> bool:
        """Whether its numbers have no intervals, and nothing was sampled: they were imported."""
        return self.n == 0 and bool(np.isnan(self.lo).all())

    @property
    def tail(self) -> float:
        """Share of resamples outside either end of a 95% interval."""
        return tail_frac(self.n) if self.samples is not None else 0.025

    @property
    def at(self) -> Float[np.ndarray, " steps"]:
        """The log-step axis, see `log_step`."""
        return log_step(self.steps)

    def at_steps(self, steps: Iterable[int]) -> Curve:
        """The same at some of its steps."""
        kept = np.isin(self.steps, np.fromiter(steps, dtype=np.int64))
        parts = {name: getattr(self, name)[kept] for name in ("steps", "value", "lo", "hi", "tokens")}
        samples = None if self.samples is None else self.samples[:, kept]
        return replace(self, **parts, samples=samples)

    def draws(self, seed: int = 0, n_resamples: int = N_RESAMPLES) -> Float[np.ndarray, "draws steps"]:
        """The curve in each resample of the sequences; the same sequences for every curve of as many."""
        if self.samples is not None:
            return resampled_means(self.samples, seed=seed, n_resamples=n_resamples)
        rng = np.random.default_rng([seed, len(self.steps), n_resamples])
        return self.value + self.error * rng.standard_normal((n_resamples, len(self.steps)))

    def p_above(self, index: int | None, sign: float, *, by: float = 0.0) -> Float[np.ndarray, " steps"]:
        """One-sided p, per step, that the curve lies beyond what it is at one step.

        Args:
            index: of the step compared with; None compares with chance.
            sign: 1 for above, -1 for below.
            by: how far beyond, in the metric's unit.
        """
        if self.samples is not None:
            base = self.chance if index is None else self.samples[:, index : index + 1]
            return p_greater(sign * (self.samples - base) - by)
        base, error = (self.chance, 0.0) if index is None else (self.value[index], self.error[index])
        beyond, spread = sign * (self.value - base) - by, np.hypot(self.error, error)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = normal_sf(beyond / spread)
        return np.where(spread > 0, p, np.where(beyond > 0, 0.0, 1.0))

    @property
    def error(self) -> Float[np.ndarray, " steps"]:
        """Standard error per step, read off the interval; 0 where there is none."""
        return np.nan_to_num((self.hi - self.lo) / (2 * _Z))


def log_step(step: Any) -> Any:
    """ln(1 + step): step 0 is at 0, and late steps are where ln(step) has them."""
    return np.log1p(np.asarray(step, dtype=np.float64))


def step_of(at: float) -> float:
    """The inverse of `log_step`."""
    return float(np.expm1(at))


def curves_of(run: str, rows: pd.DataFrame, samples: Samples, info: ProbeInfo) -> dict[Head, Curve]:
    """Curves of the valid rows of one metric: by (layer, head), or under None for the whole model.

    Args:
        run: its name.
        rows: one per step, or per head and step.
        samples: their per-sequence values, where they are stored.
        info: of the probe.

    Raises:
        ByroteError: a step has several values of one head.
    """
    rows = rows.sort_values(["layer", "head", "step"])
    layer, head = (rows[axis].to_numpy(np.int64, na_value=-1) for axis in ("layer", "head"))
    starts = np.flatnonzero((np.diff(layer, prepend=-2) != 0) | (np.diff(head, prepend=-2) != 0))
    columns = {name: rows[name].to_numpy(np.float64) for name in ("value", "lo", "hi", "chance")}
    columns["tokens"] = rows["tokens_seen"].to_numpy(np.float64, na_value=np.nan)
    columns |= {"steps": rows["step"].to_numpy(np.int64), "n": rows["n"].to_numpy(np.int64)}
    metric = "" if rows.empty else str(rows["metric"].iloc[0])
    if ((np.diff(layer) == 0) & (np.diff(head) == 0) & (np.diff(columns["steps"]) == 0)).any():
        raise ByroteError(
            f"{run} holds several values of {info.name} {metric} for one head and step",
            help="its files are damaged, or were not written by byrote: run the sweep again with --fresh",
        )
    facts = (info.better_of(metric), smallest_effect(info, metric), info.unit_of(metric))
    found: dict[Head, Curve] = {}
    for start, stop in pairwise([*starts.tolist(), len(rows)]):
        key = None if layer[start] < 0 or head[start] < 0 else (int(layer[start]), int(head[start]))
        own = {name: values[start:stop] for name, values in columns.items()}
        chance, n = own.pop("chance"), own.pop("n")
        known = chance[np.isfinite(chance)]
        found[key] = Curve(
            run,
            info.name,
            metric,
            layer=None if key is None else key[0],
            head=None if key is None else key[1],
            **own,
            chance=float(np.median(known)) if len(known) else np.nan,
            samples=paired([samples.get((step, key)) for step in own["steps"].tolist()]),
            n=int(n.min()),
            better=facts[0],
            smallest=facts[1],
            unit=facts[2],
        )
    return found


def paired(own: Sequence[Float[np.ndarray, " n"] | None]) -> Float[np.ndarray, "n steps"] | None:
    """Per-sequence values of all steps; None where a step has none, or other sequences."""
    kept = [values for values in own if values is not None]
    if len(kept) < len(own) or len({len(values) for values in kept}) != 1:
        return None
    return np.stack(kept, axis=1).astype(np.float64)


def read_samples(
    root: Path, steps: Iterable[int], metrics: Iterable[tuple[ProbeInfo, str]]
) -> Iterator[Sample]:
    """Per-sequence values of the valid rows of these metrics, step by step; every unit is read once."""
    units: dict[str, list[tuple[str, str]]] = {}
    for info, metric in metrics:
        if info.kind not in ("verdict", "weights"):
            units.setdefault(unit_of(info, metric), []).append((info.name, metric))
    for step in steps if units else ():
        for file in units_of(root, step):
            wanted = units.get(unit_name(file), ())
            if wanted:
                table = read_unit(file, ("probe", "metric", "layer", "head", "valid", "samples"))
                for name in wanted:
                    yield from samples_in(step, table, name)


def samples_in(step: int, table: pa.Table, name: tuple[str, str]) -> Iterator[Sample]:
    """Per-sequence values of the valid rows of one (probe, metric) in the units of one step."""
    table = table.filter(pc.and_(pc.equal(table["probe"], name[0]), pc.equal(table["metric"], name[1])))
    if not table.num_rows:
        return
    lists = table.column("samples").combine_chunks()
    offsets, flat = lists.offsets.to_numpy(), lists.values.to_numpy(zero_copy_only=False).astype(np.float64)
    layer, head, valid = (table.column(name).to_pylist() for name in ("layer", "head", "valid"))
    for i, ok in enumerate(valid):
        if ok and offsets[i + 1] > offsets[i]:
            key = None if layer[i] is None else (layer[i], head[i])
            yield name, (step, key), flat[offsets[i] : offsets[i + 1]]
