"""One tidy table of trained runs: a row per run and step, its facts and what was measured. No torch.

Claims are judged from this table alone, so that it is all that has to be preserved of a grid: a parquet file of some hundred
kilobytes for some hundred runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.safe_read import FileRefused
from byrote.probes.results.parquet_files import parquet_in_memory, write_parquet
from byrote.probes.rules import is_lasting

NAMES = ("grid", "arm", "size")
SEEDS = ("init_seed", "data_seed")
FACTS = ("guess_nats", "repeat_frac", "epochs", "pool", "synthetic_share", "generation", "parameters",
         "parameters_without_embeddings")  # fmt: skip
COLUMNS = (*NAMES, *SEEDS, "step", *FACTS)
MAX_ROWS, MAX_METRICS, MAX_NAME_BYTES = 1_000_000, 200, 200
Exchanged = Mapping[tuple[str, tuple[int, int]], Mapping[tuple[str, str], tuple[str, str]]]
Curve = tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,60}")


@dataclass(frozen=True)
class Place:
    """Runs that differ in nothing but their seeds.

    Attributes:
        grid: name of the grid.
        arm: what their data are.
        size: what their model is; "" where a grid has one.
    """

    grid: str
    arm: str
    size: str = ""


def tidy(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """The table of rows: all columns there, of their types, in order, one row per run and step.

    Args:
        rows: with the names, the seeds and the step; facts that are missing are NaN, any other column is a metric.

    Raises:
        ByroteError: a run and step that stands there twice, or a metric with a name that is none.
    """
    table = pd.DataFrame(rows if isinstance(rows, pd.DataFrame) else list(rows))
    for name in COLUMNS:
        if name not in table:
            table[name] = "" if name in NAMES else np.nan
    metrics = sorted(set(table.columns) - set(COLUMNS))
    odd = [name for name in metrics if not _METRIC.fullmatch(name)]
    if odd:
        raise ByroteError(
            f"{odd[0]!r} is not a valid metric name", help="use letters, digits and underscores"
        )
    table = table[[*COLUMNS, *metrics]]
    whole = dict.fromkeys((*SEEDS, "step"), np.int64)
    table = table.astype(dict.fromkeys(NAMES, str) | whole | dict.fromkeys((*FACTS, *metrics), np.float64))
    keys = [*NAMES, *SEEDS, "step"]
    twice = table.duplicated(keys)
    if twice.any():
        raise ByroteError(
            f"a run of {table.loc[twice, 'grid'].iloc[0]} appears twice at step {table.loc[twice, 'step'].iloc[0]}",
            help="give each run once",
        )
    return table.sort_values(keys, kind="stable", ignore_index=True)


def is_metric(name: str) -> bool:
    """Whether a column may have this name and be a metric."""
    return _METRIC.fullmatch(name) is not None and name not in COLUMNS


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Names of what was measured."""
    return [name for name in table.columns if name not in COLUMNS]


def write_runs(path: Path, table: pd.DataFrame) -> None:
    """Write the table whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    table = tidy(table)
    write_parquet(
        path, pa.Table.from_pandas(table, schema=_schema(metrics_of(table)), preserve_index=False), {}
    )


def read_runs(path: Path) -> pd.DataFrame:
    """A table that anybody may have written.

    Raises:
        ByroteError: it is not there, or no such table.
    """
    try:
        names = _metric_names(path)
        found, _, _ = parquet_in_memory(path, _schema(names), max_rows=MAX_ROWS)
        with found:
            table = found.read().to_pandas()
    except FileNotFoundError:
        raise ByroteError(f"{path} does not exist", help="byrote reproduce writes one") from None
    except (OSError, pa.ArrowException) as error:
        raise ByroteError(f"{path} cannot be read ({error})", help="it is damaged; make it again") from None
    if table[[*NAMES, *SEEDS, "step"]].isna().any(axis=None) or (
        table[list(NAMES)].map(len) > MAX_NAME_BYTES
    ).any(axis=None):
        raise FileRefused(f"{path} has rows without a name, a seed or a step", help="make it again")
    return tidy(table)


def _metric_names(path: Path) -> list[str]:
    """Columns beyond the facts, as the file's footer names them."""
    import io

    import pyarrow.parquet as pq

    from byrote.checkpoints.safe_read import read_bytes
    from byrote.checkpoints.seal import Seal, seal_of
    from byrote.probes.results.parquet_files import MAX_UNIT_BYTES, SEAL_MARK

    data = read_bytes(path, max_bytes=MAX_UNIT_BYTES)
    if seal_of(data, SEAL_MARK) is not Seal.WHOLE:
        raise FileRefused(
            f"{path} is damaged: its contents no longer match their checksum", help="it is damaged"
        )
    names = [name for name in pq.read_schema(io.BytesIO(data)).names if name not in COLUMNS]
    if len(names) > MAX_METRICS or not all(_METRIC.fullmatch(name) for name in names):
        raise FileRefused(f"{path} has columns that are not metrics", help="it is not a table of runs")
    return names


def _schema(metrics: Iterable[str]) -> pa.Schema:
    kinds = dict.fromkeys(NAMES, pa.string()) | dict.fromkeys((*SEEDS, "step"), pa.int64())
    kinds |= dict.fromkeys((*FACTS, *metrics), pa.float64())
    return pa.schema([pa.field(name, kind) for name, kind in kinds.items()])


class Runs:
    """A table of runs as claims read it: by grid, arm and size, seed by seed.

    Args:
        table: see `tidy`.
        exchanged: for null comparisons: of which arm the values of an arm are taken instead, by grid and seeds.
        only: the metrics that are exchanged; None exchanges all.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        exchanged: Exchanged | None = None,
        only: frozenset[str] | None = None,
    ) -> None:
        self.table, self.exchanged, self.only = table, exchanged or {}, only

    def exchanging(self, exchanged: Exchanged, only: frozenset[str] | None = None) -> Runs:
        """The same runs with the labels of some exchanged."""
        other = Runs(self.table, exchanged, only)
        other.__dict__ |= {"_by_run": self._by_run, "_curves": self._curves}
        return other

    @cached_property
    def _by_run(self) -> dict[tuple[str, str, str, int, int], Int[np.ndarray, " steps"]]:
        """The rows of each run, by their numbers in the table."""
        return dict(self.table.groupby([*NAMES, *SEEDS], sort=False).indices)

    @cached_property
    def _curves(self) -> dict[Any, Curve]:
        return {}

    def arms(self, grid: str, size: str | None = None) -> list[str]:
        """Arms of a grid, in the order of their names."""
        rows = self.table[self.table["grid"] == grid]
        rows = rows if size is None else rows[rows["size"] == size]
        return sorted(rows["arm"].unique())

    def seeds(self, *places: Place) -> list[tuple[int, int]]:
        """(init seed, data seed) that runs of all these places have, ascending.

        Raises:
            ByroteError: there are no such runs, or none in common.
        """
        sets = []
        for place in places:
            found = {
                (i, d) for g, a, s, i, d in self._by_run if (g, a, s) == (place.grid, place.arm, place.size)
            }
            if not found:
                raise ByroteError(
                    f"the table has no runs of {place.arm!r} in {place.grid!r}",
                    help=did_you_mean(place.arm, self.arms(place.grid))
                    if self.arms(place.grid)
                    else "train its grid first",
                )
            sets.append(found)
        common = sorted(set.intersection(*sets))
        if not common:
            raise ByroteError(
                f"runs of {', '.join(place.arm for place in places)} in {places[0].grid} share no seeds",
                help="train all arms with the same seeds",
            )
        return common

    def curve(self, place: Place, metric: str, seed: tuple[int, int]) -> Curve:
        """(steps, values) of one run where the metric was measured.

        Raises:
            ByroteError: it was not.
        """
        arm, size = place.arm, place.size
        if self.only is None or metric in self.only:
            arm, size = self.exchanged.get((place.grid, seed), {}).get((arm, size), (arm, size))
        key = (place.grid, arm, size, *seed)
        if (key, metric) not in self._curves:
            self._curves[key, metric] = self._read(key, metric)
        return self._curves[key, metric]

    def _read(self, key: tuple[str, str, str, int, int], metric: str) -> Curve:
        rows, (grid, arm, _, seed, _) = self._by_run[key], key
        if metric not in self.table:
            raise ByroteError(
                f"{metric} was not measured in {grid}", help=did_you_mean(metric, metrics_of(self.table))
            )
        steps, values = (self.table[name].to_numpy(np.float64)[rows] for name in ("step", metric))
        known = ~np.isnan(values)
        if not known.any():
            raise ByroteError(
                f"{metric} of {arm} in {grid}, seed {seed}, was not measured", help="measure it"
            )
        return steps[known], values[known]

    def final(
        self, place: Place, metric: str, seeds: Iterable[tuple[int, int]]
    ) -> Float[np.ndarray, " seeds"]:
        """Value at the last step where it was measured, one per seed."""
        return np.array([self.curve(place, metric, seed)[1][-1] for seed in seeds])

    def onset(
        self,
        place: Place,
        metric: str,
        seeds: Iterable[tuple[int, int]],
        *,
        below: float | None = None,
        above: float | None = None,
    ) -> Float[np.ndarray, " seeds"]:
        """First step from which a metric is past a threshold, and still so at the next measured one; inf for never.

        Args:
            place: of the runs.
            metric: that crosses.
            seeds: of the runs.
            below, above: the threshold; one of the two.
        """
        found = []
        for seed in seeds:
            steps, values = self.curve(place, metric, seed)
            past = values < below if below is not None else values > (np.inf if above is None else above)
            lasting = is_lasting(past[:, None])[:, 0]
            found.append(max(1.0, steps[int(lasting.argmax())]) if lasting.any() else np.inf)
        return np.array(found)

    def fact(self, place: Place, name: str) -> float:
        """A fact that all runs of a place share; NaN where it is not known.

        Raises:
            ByroteError: there are no such runs.
        """
        seed = self.seeds(place)[0]
        return float(self.table[name].iloc[self._by_run[(place.grid, place.arm, place.size, *seed)][0]])
