"""One number over the steps of a run, with what is needed to resample it. No torch.

Every step of a series is shown the same sequences, so sequences are resampled once for all steps: what a sequence does
at one step is not independent of what it does at the next. Where no per-sequence values are stored, each step is drawn
from a normal with the width of its interval, steps apart from each other; where nothing was sampled there is no spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label
from byrote.probes.comparable import unit_of
from byrote.probes.effects import smallest_effect
from byrote.probes.registry import REGISTRY, lookup
from byrote.probes.statistics import N_RESAMPLES, normal_sf, p_greater, resampled_means, tail_frac
from byrote.probes.store import Results, step_folder

Direction = Literal["higher", "lower"] | None
SEQUENCES, INTERVALS, EXACT = (
    "bootstrap over sequences",
    "normal draws from the intervals",
    "exact, no sampling",
)
_Z = NormalDist().inv_cdf(0.975)
_ROWS: WeakKeyDictionary[Results, dict[tuple[str, str], pd.DataFrame]] = WeakKeyDictionary()
_SAMPLES: WeakKeyDictionary[Results, dict[tuple[str, str], dict[Any, Any]]] = WeakKeyDictionary()


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
        return INTERVALS if (self.hi > self.lo).any() else EXACT

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

    def p_above(self, index: int | None, sign: float) -> Float[np.ndarray, " steps"]:
        """One-sided p, per step, that the curve lies beyond what it is at one step.

        Args:
            index: of the step compared with; None compares with chance.
            sign: 1 for above, -1 for below.
        """
        if self.samples is not None:
            base = self.chance if index is None else self.samples[:, index : index + 1]
            return p_greater(sign * (self.samples - base))
        base, error = (self.chance, 0.0) if index is None else (self.value[index], self.error[index])
        beyond, spread = sign * (self.value - base), np.hypot(self.error, error)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = normal_sf(beyond / spread)
        return np.where(spread > 0, p, np.where(beyond > 0, 0.0, 1.0))

    @property
    def error(self) -> Float[np.ndarray, " steps"]:
        """Standard error per step, read off the interval."""
        return (self.hi - self.lo) / (2 * _Z)


def log_step(step: Any) -> Any:
    """ln(1 + step): step 0 is at 0, and late steps are where ln(step) has them."""
    return np.log1p(np.asarray(step, dtype=np.float64))


def step_of(at: float) -> float:
    """The inverse of `log_step`."""
    return float(np.expm1(at))


def curve(
    results: Results, probe: str, metric: str = "score", *, head: tuple[int, int] | None = None
) -> Curve:
    """One metric of a head, or of the whole model.

    Args:
        results: of one run. Steps that lint asked to leave out are left out.
        probe: its name.
        metric: one number per step.
        head: layer and head, None for the whole model.

    Raises:
        ByroteError: unknown probe, a metric that is no single number, or nothing was measured.
    """
    found = curves(results, probe, metric)
    if head not in found:
        whose = "the whole model" if head is None else head_label(*head)
        raise ByroteError(
            f"{probe}/{metric} of {whose} was not measured at any step of {results.run}",
            help=f"measured for: {', '.join(head_label(*h) if h else 'the whole model' for h in found) or 'nothing'}",
        )
    return found[head]


def curves(
    results: Results, probe: str, metric: str = "score", *, sequences: bool = True
) -> dict[tuple[int, int] | None, Curve]:
    """Every curve of a metric: by (layer, head), or under None for the whole model.

    Args:
        results: of one run. Steps that lint asked to leave out are left out.
        probe: its name.
        metric: one number per step.
        sequences: read the per-sequence values too, from a file per step; without them intervals are all there is.

    Raises:
        ByroteError: unknown probe, or a metric that has several numbers per head and step.
    """
    info = lookup(probe)
    rows = rows_of(results, probe, metric)
    if rows["position"].notna().any() or rows["src_layer"].notna().any():
        raise ByroteError(
            f"{probe}/{metric} is not one number per head and step",
            help="take a metric without positions or pairs of heads; `byrote probes` lists them",
        )
    rows = rows[rows["valid"].astype(bool)].sort_values(["layer", "head", "step"])
    samples = _samples(results, probe, metric) if sequences else {}
    facts = {
        "better": info.better_of(metric),
        "smallest": smallest_effect(info, metric),
        "unit": info.unit_of(metric),
    }
    groups = rows.groupby(["layer", "head"], dropna=False, sort=True)
    return {
        key: _of_rows(results.run, mine, samples, facts)
        for key, mine in ((_key(layer, head), mine) for (layer, head), mine in groups)
    }


def _key(layer: Any, head: Any) -> tuple[int, int] | None:
    return None if pd.isna(layer) or pd.isna(head) else (int(layer), int(head))


def _of_rows(run: str, rows: pd.DataFrame, samples: dict[Any, Any], facts: dict[str, Any]) -> Curve:
    first = rows.iloc[0]
    key = _key(first["layer"], first["head"])
    own = [samples.get((int(step), key)) for step in rows["step"]]
    kept = all(s is not None for s in own) and len({len(s) for s in own}) == 1
    chance = rows["chance"].to_numpy(dtype=np.float64)
    known = chance[np.isfinite(chance)]
    return Curve(
        run=run,
        probe=str(first["probe"]),
        metric=str(first["metric"]),
        layer=None if key is None else key[0],
        head=None if key is None else key[1],
        steps=rows["step"].to_numpy(dtype=np.int64),
        **{name: rows[name].to_numpy(dtype=np.float64) for name in ("value", "lo", "hi")},
        chance=float(np.median(known)) if len(known) else np.nan,
        tokens=rows["tokens_seen"].to_numpy(dtype=np.float64, na_value=np.nan),
        samples=np.stack(own, axis=1).astype(np.float64) if kept else None,
        n=int(rows["n"].min()),
        **facts,
    )


def _samples(results: Results, probe: str, metric: str) -> dict[Any, Any]:
    """(step, head) -> per-sequence values, read once per metric; empty where the units are not on disk."""
    read = _SAMPLES.setdefault(results, {})
    if (probe, metric) not in read:
        read[probe, metric] = dict(read_samples(results, probe, metric))
    return read[probe, metric]


def read_samples(results: Results, probe: str, metric: str) -> Iterator[tuple[Any, np.ndarray]]:
    """((step, (layer, head) or None), per-sequence values) of every usable step, read from the units one by one."""
    info = REGISTRY[probe]
    if info.kind in ("verdict", "weights"):
        return
    unit = unit_of(info, metric)
    wanted = [("probe", "==", probe), ("metric", "==", metric)]
    columns = ["probe", "metric", "layer", "head", "valid", "samples"]
    for step in results.usable_steps:
        for file in sorted(step_folder(results.path, step).glob(f"{unit}.*.parquet")):
            table = pq.read_table(file, columns=columns, filters=wanted)
            if table.num_rows:
                yield from _per_head(step, table)


def _per_head(step: int, table: pa.Table) -> Iterator[tuple[Any, np.ndarray]]:
    lists = table.column("samples").combine_chunks()
    offsets, flat = lists.offsets.to_numpy(), lists.values.to_numpy(zero_copy_only=False).astype(np.float64)
    layer, head, valid = (table.column(name).to_pylist() for name in ("layer", "head", "valid"))
    for i, ok in enumerate(valid):
        if ok and offsets[i + 1] > offsets[i]:
            key = None if layer[i] is None else (layer[i], head[i])
            yield (step, key), flat[offsets[i] : offsets[i + 1]]


def rows_of(results: Results, probe: str, metric: str) -> pd.DataFrame:
    """Observations of one metric at every step, those of left-out steps marked; one split of the frame serves all."""
    if results not in _ROWS:
        _ROWS[results] = dict(iter(results.usable_frame.groupby(["probe", "metric"], sort=False)))
    return _ROWS[results].get((probe, metric), results.usable_frame.head(0))
