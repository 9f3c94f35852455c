"""One run as the pages read it: an arrow table, cut per metric into rows for figures and grids for the browser.

Everything is read from the results folder and nothing is written there: while a sweep is still running, the units it
has finished are read one step at a time, and a step that did not change is not read again. No torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from byrote.checkpoints.former_name import stored_under
from byrote.dashboard.run_cache import Keeper
from byrote.interp.axes import head_label
from byrote.probes.figures.select import main_metric
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.derived import derive
from byrote.probes.results.rows import mark_left_out
from byrote.probes.results.schema import OBSERVATION_SCHEMA, to_frame
from byrote.probes.results.units import read_units
from byrote.probes.wording import interval

Identity = tuple[Any, ...]
_WORDS = ("run", "probe", "metric", "reason")
_KEPT_FRAMES, _KEPT_CUBES = 8, 48  # a frame takes many times the memory of a grid


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

    def index(self, step: int) -> int:
        """Where a step is on the first axis."""
        return self.steps.index(step)

    def typical_chance(self) -> float | None:
        """The median chance level, None where the probe states none."""
        known = self.chance[np.isfinite(self.chance)]
        return float(np.median(known)) if known.size else None

    def ranked(self, step: int) -> list[tuple[int, int]]:
        """(layer, head) measured at a step, strongest first; ties go to the earlier head."""
        at = self.index(step)
        order = np.argsort(np.where(self.valid[at], -self.value[at], np.inf), axis=None, kind="stable")
        n_heads = self.value.shape[2]
        kept = int(self.valid[at].sum())
        return [(int(i) // n_heads, int(i) % n_heads) for i in order[:kept]]

    def strongest(self, step: int) -> tuple[int, int] | None:
        """The strongest head measured at a step."""
        ranked = self.ranked(step)
        return ranked[0] if ranked else None

    def words(self, step: int, head: tuple[int, int]) -> str:
        """``0.81 [0.78, 0.84]``: a head's value at a step, with its interval."""
        at = (self.index(step), *head)
        return interval(*(float(grid[at]) for grid in (self.value, self.lo, self.hi)))


class SavedRun(Keeper):
    """A results folder at one moment.

    Args:
        path: the folder.
        meta: run.json, or what stands for it while a first sweep runs.
        table: every observation.
        identity: of the files it was read from.
    """

    def __init__(self, path: Path, meta: dict[str, Any], table: pa.Table, identity: Identity) -> None:
        super().__init__()
        self.path, self.meta, self.table, self.identity = path, meta, table, identity
        self.name = str(meta["run"])
        self.rows: Callable[[str, str], pd.DataFrame] = lru_cache(_KEPT_FRAMES)(self._rows)
        self.cube: Callable[[str, str], Cube] = lru_cache(_KEPT_CUBES)(self._cube)

    def answers_key(self) -> Identity:
        """The folder and what it was read from."""
        return (self.path, self.identity)

    @cached_property
    def results(self) -> Results:
        """The outline as `Results`: one row per step and the verdicts. Figures get their rows from `part`."""
        return self.part(("induction", "verdict"))

    def part(self, *metrics: tuple[str, str], head: tuple[int, int] | None = None) -> Results:
        """`Results` that hold these metrics, of one head or all, and one bare row per step, so that all steps are known."""
        results = Results(self.path, self.meta)
        held = [self.rows(*pair) for pair in metrics]
        if head is not None:
            held = [rows[(rows["layer"] == head[0]) & (rows["head"] == head[1])] for rows in held]
        frames = [self._step_rows, *held]
        results.__dict__["frame"] = pd.concat([f for f in frames if not f.empty] or frames[:1])
        return results

    @cached_property
    def full(self) -> Results:
        """The same as `Results`: figures read the metrics that they draw."""
        return Results(self.path, self.meta, self.table)

    def whole(self) -> Results:
        """`Results` with every observation, for comparisons and exports."""
        results = Results(self.path, self.meta)
        results.__dict__["frame"] = to_frame(_plain(self.table))
        return results

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps with observations, and those that could not be read, ascending."""
        measured = pc.unique(self.table["step"]).to_pylist()
        gaps = [int(g["step"]) for g in self.gaps if g.get("step") is not None]
        return tuple(sorted({*measured, *gaps}))

    @cached_property
    def measured_steps(self) -> tuple[int, ...]:
        """Steps with observations, ascending."""
        return tuple(sorted(pc.unique(self.table["step"]).to_pylist()))

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """What could not be measured."""
        return list(self.meta.get("gaps") or [])

    @cached_property
    def left_out(self) -> dict[int, str]:
        """Steps that lint asked to leave out, and why."""
        return Results(self.path, self.meta).left_out

    @cached_property
    def tokens(self) -> dict[int, int | None]:
        """Tokens seen at each step."""
        seen = self._step_rows.set_index("step")["tokens_seen"]
        return {int(s): None if pd.isna(t) else int(t) for s, t in seen.items()}

    @cached_property
    def loss(self) -> dict[int, float]:
        """Recorded training loss by step, nats."""
        stored = (self.meta.get("series") or {}).get("loss_nats") or {}
        return {int(step): float(value) for step, value in stored.items() if value is not None}

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(n_layers, n_heads); (0, 0) where no head was measured."""
        model = self.meta.get("model") or {}
        if model.get("n_layers") and model.get("n_heads"):
            return int(model["n_layers"]), int(model["n_heads"])
        highest = [pc.max(self.table[axis]).as_py() for axis in ("layer", "head")]
        return (0, 0) if None in highest else (highest[0] + 1, highest[1] + 1)

    @cached_property
    def kinds(self) -> dict[tuple[str, str], str]:
        """(probe, metric) -> "head", "pair", "curve", "head curve" or "model", in catalogue order."""
        counts = self.table.group_by(["probe", "metric"]).aggregate(
            [(axis, "count") for axis in ("layer", "src_layer", "position")]
        )
        found = {(row["probe"], row["metric"]): _kind(row) for row in counts.to_pylist()}
        order = {name: i for i, name in enumerate(REGISTRY)}
        return dict(sorted(found.items(), key=lambda item: (order.get(item[0][0], 999), item[0])))

    @cached_property
    def head_probes(self) -> dict[str, tuple[str, ...]]:
        """Probe -> its metrics with one value per head, the main one first."""
        probes: dict[str, list[str]] = {}
        for (probe, metric), kind in self.kinds.items():
            if kind == "head" and probe in REGISTRY:
                probes.setdefault(probe, []).append(metric)
        return {p: tuple(sorted(ms, key=lambda m: (m != main_metric(p), m))) for p, ms in probes.items()}

    @property
    def arm(self) -> dict[str, Any]:
        """What a lab series says of its data; {} for others."""
        manifest = (self.meta.get("series") or {}).get("manifest") or {}
        return dict(manifest.get("arm") or {})

    def has(self, probe: str, metric: str) -> bool:
        """Whether any row of this metric is there."""
        return (probe, metric) in self.kinds

    def head_rows(self, layer: int, head: int) -> pd.DataFrame:
        """Every row about one head that is one value per step."""
        mask = pc.and_(pc.equal(self.table["layer"], layer), pc.equal(self.table["head"], head))
        mask = pc.and_(mask, pc.and_(pc.is_null(self.table["src_layer"]), pc.is_null(self.table["position"])))
        return to_frame(_plain(self.table.filter(mask)))

    @cached_property
    def _step_rows(self) -> pd.DataFrame:
        """One row per step that belongs to no probe."""
        steps = self.table.group_by("step").aggregate([("tokens_seen", "max")]).sort_by("step")
        n = steps.num_rows
        columns = {
            "run": [self.name] * n, "step": steps["step"], "tokens_seen": steps["tokens_seen_max"],
            "probe": [""] * n, "metric": [""] * n, "n": [0] * n, "valid": [False] * n, "reason": [""] * n,
        }  # fmt: skip
        arrays = [
            columns.get(field.name, pa.nulls(n, field.type))
            if not isinstance(columns.get(field.name), list)
            else pa.array(columns[field.name], field.type)
            for field in OBSERVATION_SCHEMA
        ]
        return to_frame(pa.table(arrays, schema=OBSERVATION_SCHEMA))

    def _rows(self, probe: str, metric: str) -> pd.DataFrame:
        mask = pc.and_(pc.equal(self.table["probe"], probe), pc.equal(self.table["metric"], metric))
        return to_frame(_plain(self.table.filter(mask)))

    def _cube(self, probe: str, metric: str) -> Cube:
        rows = mark_left_out(self._rows(probe, metric), self.left_out)  # a frame few will draw is not kept
        rows = rows[rows["layer"].notna() & rows["position"].isna() & rows["src_layer"].isna()]
        shape = (len(self.steps), *self.shape)
        at = np.searchsorted(self.steps, rows["step"].to_numpy())
        where = (at, rows["layer"].to_numpy(dtype=np.int64), rows["head"].to_numpy(dtype=np.int64))
        floats = {name: np.full(shape, np.nan, dtype=np.float64) for name in ("value", "lo", "hi", "chance")}
        for name, grid in floats.items():
            grid[where] = rows[name].to_numpy(dtype=np.float64)
        n, valid = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        n[where], valid[where] = rows["n"].to_numpy(), rows["valid"].to_numpy(dtype=bool)
        measured = np.isfinite(floats["value"])
        limits = limits_of(probe, metric, floats["value"])
        return Cube(self.steps, **floats, n=n, valid=valid & measured, measured=measured, limits=limits)


def limits_of(probe: str, metric: str, values: np.ndarray) -> tuple[float, float]:
    """The fixed range to draw a metric on, from the catalogue or the data; 0.1% tails do not stretch the latter."""
    from byrote.probes.figures.select import value_range

    finite = values[np.isfinite(values)]
    ends = np.quantile(finite, [0.001, 0.999]) if finite.size else []
    lo, hi = value_range(probe, metric, [float(v) for v in ends])
    return float(lo), float(hi)


def load(path: Path, meta: dict[str, Any], identity: Identity) -> SavedRun:
    """Read a run: its derived observations where they are current, else its units.

    Raises:
        ByroteError: a unit is damaged.
    """
    file = path / "observations.parquet"
    table = None
    if _current(path, file):
        try:
            table = pq.read_table(file, read_dictionary=list(_WORDS))
        except (OSError, pa.ArrowException):
            table = None
    if table is None:
        table = _from_units(path)
    table = _narrow(table.unify_dictionaries())  # row groups and steps each have dictionaries of their own
    return SavedRun(path, meta, table, identity)


def unit_stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """(folder, mtime in ns, units) of every step: units are only ever renamed into place, which the folder's time shows."""
    found = []
    try:
        folders = [entry for entry in os.scandir(path / "units") if entry.name.startswith("step_")]
    except OSError:
        return ()
    for entry in folders:
        try:
            changed = entry.stat().st_mtime_ns
            found.append((entry.name, changed, _n_units(entry.path, changed)))
        except OSError:
            continue  # replaced this very moment; the next look sees it
    return tuple(sorted(found))


@lru_cache(maxsize=4096)
def _n_units(folder: str, changed: int) -> int:
    """Units in a step's folder; `changed` makes a folder that got another one another key."""
    names = os.listdir(folder)  # noqa: PTH208  (asked for every step at every look)
    return sum(name.endswith(".parquet") and not name.startswith(".") for name in names)


def _current(path: Path, file: Path) -> bool:
    try:
        built = file.stat().st_mtime_ns
        counted = int(stored_under(pq.read_schema(file).metadata, b"byrote.n_units", b"-1"))
    except (OSError, ValueError, pa.ArrowException):
        return False
    stamps = unit_stamps(path)
    return not stamps or (counted == sum(n for _, _, n in stamps) and all(at <= built for _, at, _ in stamps))


def _from_units(path: Path) -> pa.Table:
    stamps = [stamp for stamp in unit_stamps(path) if stamp[0][5:].isdigit()]
    tables = [_one_step(path, int(stamp[0][5:]), stamp) for stamp in stamps]
    return pa.concat_tables(tables) if tables else _encoded(OBSERVATION_SCHEMA.empty_table())


@lru_cache(maxsize=1024)
def _one_step(path: Path, step: int, stamp: tuple[str, int, int]) -> pa.Table:
    """A step's rows and the verdicts that follow from them; `stamp` makes a changed step another key."""
    units = read_units(path, step)
    return _encoded(pa.concat_tables([units.drop_columns(["samples"]), derive(units)]))


def _encoded(table: pa.Table) -> pa.Table:
    for name in _WORDS:
        place = table.schema.get_field_index(name)
        column = table[name].cast(pa.dictionary(pa.int32(), pa.string()))
        table = table.set_column(place, name, column)
    return table


def _narrow(table: pa.Table) -> pa.Table:
    """Layers, heads and counts in four bytes: a table of a large run is held in memory as long as it is looked at."""
    for name in ("layer", "head", "src_layer", "src_head", "position", "n"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.int32()))
    return table


def _plain(table: pa.Table) -> pa.Table:
    return table.cast(OBSERVATION_SCHEMA)


def _kind(row: dict[str, Any]) -> str:
    if row["src_layer_count"]:
        return "pair"
    if row["layer_count"]:
        return "head curve" if row["position_count"] else "head"
    return "curve" if row["position_count"] else "model"


def head_names(run: SavedRun) -> list[str]:
    """Labels of all heads of a run, layer by layer."""
    n_layers, n_heads = run.shape
    return [head_label(layer, head) for layer in range(n_layers) for head in range(n_heads)]
