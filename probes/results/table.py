"""The observations of one run, as every reader gets them: rows, cubes and curves of requested metrics. No torch.

Steps that lint leaves out keep their values and are marked: not valid, lint's reason, `left_out` true.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from functools import cached_property, reduce
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import head_label
from byrote.probes.registry import REGISTRY, lookup, register_stored
from byrote.probes.results.compact import Compact, rows_bytes
from byrote.probes.results.curve import Curve, Sample, Samples, curves_of, read_samples
from byrote.probes.results.derived import open_source
from byrote.probes.results.rows import COLUMNS, Cube, cube_of, mark_left_out, narrowed_to, ranked, with_facts
from byrote.probes.results.run_facts import RunFacts, facts_of
from byrote.probes.results.run_json import imported_from, refuse_imported, run_json_in
from byrote.probes.results.schema import OBSERVATION_SCHEMA, in_order, to_frame
from byrote.probes.results.series_place import results_folder, series_place, series_shown
from byrote.probes.results.source import Kind, Metric, Source, plain
from byrote.probes.results.unit_files import read_units
from byrote.probes.spec import ProbeInfo

T = TypeVar("T")
Opened = TypeVar("Opened", bound="Table")
Head = tuple[int, int]
_CACHE_BYTES = 16_000_000  # for one run: verdicts and two metrics of 154 steps x 1,024 heads
_FEW_ROWS = 20_000  # are cached as they are
_LAYERS_AT_ONCE = 4  # of histories: heads looked at one after the other are near each other


class Table:
    """What one run measured, as saved.

    Args:
        path: the results folder.
        meta: run.json, or what stands for it while a first sweep runs.
        table: the observations, where they are not read from the folder.
        write: make observations.parquet anew in the folder where it is not what the units give.
    """

    def __init__(
        self, path: Path, meta: Mapping[str, Any], table: pa.Table | None = None, *, write: bool = False
    ) -> None:
        self.path, self.meta = path, meta
        register_stored(meta.get("plugins"))
        self._table, self._write = table, write
        self._cache: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.RLock()

    @classmethod
    def open(cls: type[Opened], path: str | Path, *, write: bool = False) -> Opened:
        """Open a results folder; nothing in it is changed.

        Args:
            path: the folder.
            write: make observations.parquet anew where it is not what the units give, as the sweep does.

        Raises:
            ByroteError: the folder is not there, is no results folder, was written by a newer schema, or its run.json says
                something of another kind than byrote writes.
        """
        place = results_folder(path)
        return cls(place, run_json_in(place), write=write)

    @property
    def run(self) -> str:
        """The run's name: its folder's name."""
        return str(self.meta["run"])

    @property
    def imported(self) -> str:
        """Where imported scores are from, see `byrote.probes.imported`; "" for what byrote measured."""
        return imported_from(self.meta)

    @property
    def series_place(self) -> Path | None:
        """Where the checkpoints are, or were; None where that is not recorded."""
        return series_place(self.path, self.meta)

    @property
    def series_shown(self) -> str:
        """The same as one would type it here; "" where it is not recorded."""
        return series_shown(self.path, self.meta)

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """What could not be measured: step, path, reason, help."""
        return list(self.meta.get("gaps") or [])

    @property
    def left_out(self) -> dict[int, str]:
        """Steps that `byrote lint` left out when these results were made, and why: measured, but not valid."""
        stored = (self.meta.get("lint") or {}).get("left_out") or {}
        return {int(step): str(why) for step, why in stored.items()}

    @property
    def loss(self) -> dict[int, float]:
        """Recorded training loss by step, nats."""
        stored = (self.meta.get("series") or {}).get("loss_nats") or {}
        return {int(step): float(value) for step, value in stored.items() if value is not None}

    @property
    def arm(self) -> dict[str, Any]:
        """What a lab series says of its data; {} for others."""
        return dict(((self.meta.get("series") or {}).get("manifest") or {}).get("arm") or {})

    @cached_property
    def facts(self) -> RunFacts:
        """What is declared of the run: arm, seeds, size, data; see `byrote.probes.results.run_facts`."""
        return facts_of(self.run, self.path, self.meta)

    @property
    def sequence_seed(self) -> int | None:
        """Seed of the test sequences, None where it is not recorded."""
        return (self.meta.get("provenance") or {}).get("seed")

    @property
    def training_seed(self) -> int | None:
        """Seed of the weights at step 0, None where it is not declared."""
        return self.facts.init_seed

    @property
    def steps(self) -> list[int]:
        """Steps with observations, ascending."""
        return list(self.tokens)

    @property
    def usable_steps(self) -> list[int]:
        """Steps with observations that lint did not ask to leave out, ascending."""
        return [step for step in self.tokens if step not in self.left_out]

    @property
    def all_steps(self) -> tuple[int, ...]:
        """Steps with observations, and those that could not be read, ascending."""
        gaps = [int(gap["step"]) for gap in self.gaps if gap.get("step") is not None]
        return tuple(sorted({*self.tokens, *gaps}))

    @property
    def last_step(self) -> int | None:
        """The last step with any observation."""
        return next(reversed(self.tokens), None)

    @property
    def tokens(self) -> dict[int, int | None]:
        """Training tokens seen at each step with observations, ascending; None where unknown."""
        return self._source.index.tokens

    @property
    def n_rows(self) -> int:
        """How many observations there are."""
        return self._source.index.n_rows

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(n_layers, n_heads) of the model, from its description or else from its rows; (0, 0) where no head was measured."""
        model = self.meta.get("model") or {}
        if model.get("n_layers") and model.get("n_heads"):
            return int(model["n_layers"]), int(model["n_heads"])
        axes = self._source.read(None, ("layer", "head"))
        highest = [pc.max(axes[axis]).as_py() for axis in ("layer", "head")]
        return (0, 0) if None in highest else (highest[0] + 1, highest[1] + 1)

    @property
    def kinds(self) -> dict[Metric, Kind]:
        """(probe, metric) -> "head", "pair", "curve", "head curve", "layer" or "model", in catalogue order."""
        order = {name: i for i, name in enumerate(REGISTRY)}
        found = ((name, place.kind) for name, place in self._source.index.metrics.items() if name[0])
        return dict(sorted(found, key=lambda item: (order.get(item[0][0], len(order)), item[0])))

    @property
    def head_probes(self) -> dict[str, tuple[str, ...]]:
        """Probe -> its metrics with one value per head, the main one first."""
        probes: dict[str, list[str]] = {}
        for (probe, metric), kind in self.kinds.items():
            if kind == "head" and probe in REGISTRY:
                probes.setdefault(probe, []).append(metric)
        main = {probe: self.info(probe).main_metric for probe in probes}
        return {p: tuple(sorted(ms, key=lambda m: (m != main[p], m))) for p, ms in probes.items()}

    def info(self, probe: str) -> ProbeInfo:
        """What the catalogue says of a probe; a description without claims for one that is not in it.

        Raises:
            ByroteError: neither the catalogue nor these results describe it.
        """
        if probe in REGISTRY:
            return REGISTRY[probe]
        metrics = {m: "" for p, m in self._source.index.metrics if p == probe}
        if not metrics:
            return lookup(probe)
        kinds = {kind for (p, _), kind in self.kinds.items() if p == probe}
        return ProbeInfo(
            name=probe,
            kind="head" if kinds & {"head", "head curve"} else "model",
            unit="",
            range=None,
            better=None,
            source="",
            summary="a probe that this installation does not know",
            chance="",
            metrics=metrics,
            module="",
            main_metric="score" if "score" in metrics else next(iter(metrics)),
        )

    def has(self, probe: str, metric: str | None = None, *, valid: bool = False) -> bool:
        """Whether any row of this metric, or of any of the probe, is there; with `valid`, any that is a number."""
        names = [n for n in self._source.index.metrics if n[0] == probe and metric in (None, n[1])]
        if not (names and valid):
            return bool(names)
        return bool(pc.any(self._source.read(names, ("valid",))["valid"]).as_py())

    def require(self, probe: str, metric: str | None = None) -> str:
        """The metric, or the probe's main one, when it is there.

        Raises:
            ByroteError: it was not measured here; the help names the nearest that was.
        """
        names = list(self._source.index.metrics)
        mine = sorted(m for p, m in names if p == probe)
        if not mine:
            raise ByroteError(
                f"there is no {probe!r} in the results of {self.run}",
                help=did_you_mean(probe, sorted({p for p, _ in names if p})),
            )
        metric = self.info(probe).main_metric if metric is None else metric
        if metric not in mine:
            raise ByroteError(
                f"{probe} has no metric {metric!r} in the results of {self.run}",
                help=did_you_mean(metric, mine),
            )
        return metric

    @cached_property
    def frame(self) -> pd.DataFrame:
        """All observations, tidy, the declared `arm` and `seed` after `run`. A large run is better read by `rows`."""
        return self.named(to_frame(in_order(plain(self._source.read(None, OBSERVATION_SCHEMA.names)))))

    def named(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Observations with the columns `arm` and `seed` after `run`, as far as they are declared."""
        return with_facts(rows, {"arm": self.facts.arm, "seed": self.facts.init_seed})

    @cached_property
    def usable_frame(self) -> pd.DataFrame:
        """The observations with those of `left_out` steps marked."""
        return mark_left_out(self.frame, self.left_out)

    def select(self, probe: str, metric: str, *, step: int | None = None) -> pd.DataFrame:
        """Observations of one metric, at one step or all, as measured: steps that lint leaves out are not marked."""
        return self._rows(probe, metric, step)

    def rows(
        self,
        probe: str | None = None,
        metric: str | None = None,
        *,
        step: int | None = None,
        head: Head | None = None,
        valid: bool = False,
        single: bool = False,
    ) -> pd.DataFrame:
        """Tidy observations in step order, those of left-out steps marked.

        Args:
            probe, metric: which; None is every one.
            step: one step; None is all.
            head: one head; None is all, and the whole model.
            valid: only what was measured and is not left out.
            single: only metrics with one value per step, or per head and step.

        Returns:
            Columns of the schema and `left_out`; no rows where there are none.
        """
        rows = mark_left_out(self._rows(probe, metric, step, head, single=single), self.left_out)
        return rows[rows["valid"]].reset_index(drop=True) if valid else rows

    def _rows(
        self,
        probe: str | None,
        metric: str | None,
        step: int | None = None,
        head: Head | None = None,
        *,
        single: bool = False,
    ) -> pd.DataFrame:
        """The rows as they are stored, without `left_out`."""
        narrowed = step is not None or head is not None or single
        place = self._source.index.metrics.get((probe or "", metric or ""))
        if narrowed and place is not None and place.n_rows <= _FEW_ROWS:
            return narrowed_to(self._rows(probe, metric), step, head, single=single)

        def where(rows: Any) -> Any:
            conditions = [] if step is None else [pc.equal(rows["step"], step)]
            if head is not None:
                conditions += [pc.equal(rows["layer"], head[0]), pc.equal(rows["head"], head[1])]
            conditions += [pc.is_null(rows[axis]) for axis in ("src_layer", "position")] if single else []
            return reduce(pc.and_, conditions)

        def read() -> pd.DataFrame | Compact:
            names = self._source.index.metrics
            chosen = [name for name in names if probe in (None, name[0]) and metric in (None, name[1])]
            table = self._source.read(chosen, OBSERVATION_SCHEMA.names, where if narrowed else None)
            table = plain(table) if len(chosen) == 1 else in_order(plain(table))
            return Compact(table) if table.num_rows > _FEW_ROWS else to_frame(table)

        rows = self.cached(("rows", probe, metric, step, head, single), read, rows_bytes)
        return rows.frame() if isinstance(rows, Compact) else rows.copy(deep=False)

    def ranked(self, probe: str, metric: str | None = None, *, step: int | None = None) -> pd.DataFrame:
        """The measured rows of one step, strongest first by the probe's own direction; ties go to the earlier head.

        Args:
            probe, metric: which; None is the probe's main metric.
            step: None is the last step of these results.

        Returns:
            Tidy rows with `label`, see `row_label`; none where nothing was measured.
        """
        info = self.info(probe)
        metric = info.main_metric if metric is None else metric
        rows = self.rows(probe, metric, step=self.last_step if step is None else step)
        return ranked(rows, lower=info.better_of(metric) == "lower")

    def cube(self, probe: str, metric: str | None = None) -> Cube:
        """One head metric over all steps, as arrays; NaN and not valid where there is no row.

        Args:
            probe, metric: which; None is the probe's main metric.
        """
        metric = self.info(probe).main_metric if metric is None else metric

        def make() -> Cube:
            rows = self._source.read([(probe, metric)], COLUMNS)
            return cube_of(
                rows,
                self.info(probe),
                metric,
                steps=self.all_steps,
                shape=self.shape,
                left_out=self.left_out,
            )

        return self.cached(("cube", probe, metric), make, lambda cube: cube.nbytes)

    def history(self, head: Head) -> dict[Metric, dict[int, float]]:
        """Step -> value of every metric with one value per head, as measured; NaN where there is none."""
        names = [name for name, kind in self.kinds.items() if kind == "head"]
        first = head[0] - head[0] % _LAYERS_AT_ONCE
        layers = range(first, first + _LAYERS_AT_ONCE)
        found = self.cached(("history", first), lambda: self._histories(names, layers), lambda a: a.nbytes)
        mine = found[:, :, head[0] - first, head[1]].tolist()
        return {n: dict(zip(self.steps, values, strict=True)) for n, values in zip(names, mine, strict=True)}

    def _histories(self, names: list[Metric], layers: range) -> Float[np.ndarray, "metric step layer head"]:
        """Metrics with one value per head, in some layers."""

        def where(rows: Any) -> Any:
            return pc.and_(pc.greater_equal(rows["layer"], layers.start), pc.less(rows["layer"], layers.stop))

        rows = self._source.read(names, ("probe", "metric", "step", "layer", "head", "value"), where)
        probe, metric = (rows[word].combine_chunks() for word in ("probe", "metric"))
        words = [column.dictionary.to_pylist() for column in (probe, metric)]
        number = {name: i for i, name in enumerate(names)}
        numbers = np.array([number.get(name, 0) for name in product(*words)], int).reshape([*map(len, words)])
        step, layer, head, value = (rows[column].to_numpy() for column in rows.column_names[2:])
        found = np.full((len(names), len(self.steps), len(layers), self.shape[1]), np.nan)
        which = numbers[probe.indices.to_numpy(), metric.indices.to_numpy()]
        found[which, np.searchsorted(self.steps, step), layer - layers.start, head] = value
        return found

    def by_head(self, probe: str, metric: str) -> pd.DataFrame:
        """Values of a head metric: one row per step that lint did not ask to leave out, one column per head label."""
        rows = self.select(probe, metric)
        rows = rows[~rows["step"].isin(list(self.left_out)) & rows["layer"].notna()]
        if rows.empty:
            return pd.DataFrame()
        table = rows.pivot(index="step", columns=["layer", "head"], values="value")
        table.columns = [head_label(int(layer), int(head)) for layer, head in table.columns]
        return table.sort_index()

    def curve(self, probe: str, metric: str = "score", *, head: Head | None = None) -> Curve:
        """One metric of a head, or of the whole model, over the steps where it was measured.

        Args:
            probe: its name. Steps that lint leaves out are not used.
            metric: one number per step.
            head: layer and head, None for the whole model.

        Raises:
            ByroteError: a metric that is no single number, or nothing was measured.
        """
        found = self.curves(probe, metric)
        if head not in found:
            whose = "the whole model" if head is None else head_label(*head)
            there = ", ".join(head_label(*h) if h else "the whole model" for h in found) or "nothing"
            raise ByroteError(
                f"{probe}/{metric} of {whose} was not measured at any step of {self.run}",
                help=f"measured for: {there}",
            )
        return found[head]

    def curves(
        self, probe: str, metric: str = "score", *, sequences: bool = True
    ) -> dict[Head | None, Curve]:
        """Every curve of a metric: by (layer, head), or under None for the whole model.

        Args:
            probe: its name. Steps that lint leaves out are not used.
            metric: one number per step.
            sequences: read the per-sequence values too, from a file per step; without them intervals are all there is.

        Raises:
            ByroteError: a metric that has several numbers per head and step.
        """
        if self._source.index.metrics and self.kinds.get((probe, metric), "model") not in ("head", "model"):
            raise ByroteError(
                f"{probe}/{metric} is not one number per head and step",
                help="take a metric without positions or pairs of heads; `byrote probes` lists them",
            )
        samples = self._samples(probe, metric) if sequences else {}
        return curves_of(self.run, self.rows(probe, metric, valid=True), samples, self.info(probe))

    def _samples(self, probe: str, metric: str) -> Samples:
        def size(samples: Samples) -> int:
            return sum(200 + values.nbytes for values in samples.values())

        found = self.read_samples([(probe, metric)])
        return self.cached(("samples", probe, metric), lambda: {place: own for _, place, own in found}, size)

    def read_samples(self, metrics: Collection[Metric]) -> Iterator[Sample]:
        """Per-sequence values of these (probe, metric) at every usable step; every unit is read once."""
        return read_samples(self.path, self.usable_steps, [(self.info(p), metric) for p, metric in metrics])

    def samples(self, step: int, *, probe: str | None = None) -> pd.DataFrame:
        """Observations of a step, or of a probe at it, with per-sequence values in `samples` (empty if not stored); not of imports."""
        refuse_imported(self.meta, "values per sequence")
        return to_frame(read_units(self.path, step, probe=None if probe is None else self.info(probe)))

    @property
    def outcomes(self) -> pd.DataFrame:
        """How often each probe and metric gave which answer: probe, metric, step, valid, reason and `count`."""
        keys = ["probe", "metric", "step", "valid", "reason"]

        def read() -> pd.DataFrame:
            rows = self._source.read(None, keys)
            found = rows.group_by(keys, use_threads=False).aggregate([([], "count_all")]).to_pandas()
            words = dict.fromkeys(("probe", "metric", "reason"), "object")
            return found.rename(columns={"count_all": "count"}).astype(words)

        return self.cached("outcomes", read, rows_bytes)

    def cached(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What was made before under a key, else what `make` gives; the answers must not be changed.

        The least recently used are dropped when a run's take more than some 16 MB together; larger ones are not cached.

        Args:
            key: what it is.
            make: makes it.
            size: bytes it takes.
        """
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key][0]
            made = make()
            if (n_bytes := size(made)) < _CACHE_BYTES:
                self._cache[key] = (made, n_bytes)
            while sum(n for _, n in self._cache.values()) > _CACHE_BYTES:
                self._cache.popitem(last=False)
            return made

    @property
    def _source(self) -> Source:
        with self._lock:
            return self._opened

    @cached_property
    def _opened(self) -> Source:
        return Source(self._table) if self._table is not None else open_source(self.path, write=self._write)
