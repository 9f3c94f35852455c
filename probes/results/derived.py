"""Derived results: verdicts and observations.parquet, computed from units alone. No forward pass, no torch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from byrote.checkpoints.former_name import stored_under
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import (
    OBSERVATION_SCHEMA,
    STORED_ORDER,
    Measured,
    in_order,
    to_frame,
    unit_table,
)
from byrote.probes.results.source import Source, encoded
from byrote.probes.results.unit_files import N_UNITS_KEY, read_units, unit_paths, unit_stamps, write_parquet
from byrote.probes.spec import ProbeInfo

_ROWS_PER_GROUP = 65536


def open_source(root: Path, *, write: bool) -> Source:
    """The observations of a results folder: from observations.parquet where it is current, else from the units.

    Args:
        root: the folder.
        write: whether observations.parquet may be made anew; where that is not possible, the rows stay in memory.

    Raises:
        ByroteError: a unit is damaged.
    """
    file = root / "observations.parquet"
    if _is_current(root, file):
        source = Source(file)
        with suppress(OSError, pa.ArrowException):  # damaged: the units are the truth
            if source.index:
                return source
    if write:
        try:
            return Source(rebuild_observations(root))
        except OSError:  # a folder that is only read
            pass
    steps = [(int(stamp[0][5:]), stamp) for stamp in unit_stamps(root) if stamp[0][5:].isdigit()]
    tables = [_one_step(root, step, stamp) for step, stamp in steps]
    return Source(pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table())


@lru_cache(maxsize=1024)
def _one_step(root: Path, step: int, stamp: tuple[str, int, int]) -> pa.Table:
    """A step's observations; `stamp` makes a changed step another key, so that a running sweep's are read once."""
    return encoded(observations_of(read_units(root, step)))


def _is_current(root: Path, file: Path) -> bool:
    """Whether observations.parquet holds what the units give; a folder without units holds nothing else."""
    try:
        built = file.stat().st_mtime_ns
        counted = int(stored_under(pq.read_schema(file).metadata, N_UNITS_KEY, b"-1"))
    except (OSError, ValueError, pa.ArrowException):
        return False
    units = unit_paths(root)
    return not units or (len(units) == counted and all(unit.stat().st_mtime_ns <= built for unit in units))


def rebuild_observations(root: Path) -> Path:
    """Derive observations.parquet from the units and the verdicts that follow from them; a metric's rows lie together."""
    steps = [int(folder.name[5:]) for folder in (root / "units").glob("step_*") if folder.name[5:].isdigit()]
    tables = [observations_of(read_units(root, step)) for step in sorted(steps)]
    table = pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table()
    file, n_units = root / "observations.parquet", str(len(unit_paths(root))).encode()
    write_parquet(file, in_order(table, STORED_ORDER), {N_UNITS_KEY: n_units}, rows_per_group=_ROWS_PER_GROUP)
    return file


def observations_of(units: pa.Table) -> pa.Table:
    """What observations.parquet says of one step: its units without samples, and the verdicts that follow from them."""
    return pa.concat_tables([units.drop_columns(["samples"]), derive(units)])


def derive(units: pa.Table) -> pa.Table:
    """Verdict rows of one step from its units; none when the probes a verdict reads were not requested.

    Args:
        units: all rows of one step, with samples.

    Returns:
        A table in `OBSERVATION_SCHEMA`.
    """
    if not units.num_rows:
        return OBSERVATION_SCHEMA.empty_table()
    frame = to_frame(units)
    measured = [m for info in REGISTRY.values() if info.inputs for m in _verdict(info, frame)]
    first = frame.iloc[0]
    tokens_seen = None if pd.isna(first["tokens_seen"]) else int(first["tokens_seen"])
    table = unit_table(measured, run=first["run"], step=int(first["step"]), tokens_seen=tokens_seen)
    return table.drop_columns(["samples"])


def _verdict(info: ProbeInfo, frame: pd.DataFrame) -> Sequence[Measured]:
    """One verdict on a step; nothing where a probe it needs was not requested."""
    rows = {
        name: frame[(frame["probe"] == probe) & (frame["metric"] == metric)]
        for name, (probe, metric) in info.inputs.items()
    }
    verdict = info.implementation()
    arguments = inspect.signature(verdict.update).parameters
    if verdict.finisher is None or any(
        rows[n].empty and arguments[n].default is inspect.Parameter.empty for n in rows
    ):
        return ()
    return verdict.finisher({name: part for name, part in rows.items() if not part.empty})
