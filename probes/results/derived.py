"""Derived results: verdicts and observations.parquet, computed from units alone. No forward pass, no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import stored_under
from byrote.checkpoints.seal import Seal
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp
from byrote.probes.registry import REGISTRY
from byrote.probes.results.parquet_files import open_parquet, parquet_seal, write_parquet
from byrote.probes.results.run_json import stored_run_json
from byrote.probes.results.schema import (
    OBSERVATION_SCHEMA,
    STORED_ORDER,
    Measured,
    in_order,
    to_frame,
    unit_table,
    withheld,
)
from byrote.probes.results.source import Source, encoded
from byrote.probes.results.unit_files import (
    N_UNITS_KEY,
    UNITS_KEY,
    WrittenUnits,
    measured_steps,
    read_units,
    unit_paths,
    units_digest,
    units_of,
)
from byrote.probes.spec import ProbeInfo

_ROWS_PER_GROUP = 65536
OBSERVATIONS = "observations.parquet"


def open_source(root: Path, *, write: bool) -> Source:
    """The observations of a results folder: from observations.parquet where it is current and whole, else from the units.

    Args:
        root: the folder.
        write: whether observations.parquet may be made anew; where that is not possible, the rows stay in memory.

    Raises:
        ByroteError: a unit is damaged.
    """
    if observations_current(root):
        source = Source(root / OBSERVATIONS)
        with suppress(OSError, pa.ArrowException, ByroteError):  # damaged: the units are the truth
            if source.index:
                return source
    if write:
        with suppress(OSError):  # a folder that is only read
            return Source(rebuild_observations(root))
    dtype = _dtype_of(root)
    tables = [_one_step(root, step, _step_stamps(root, step), dtype) for step in measured_steps(root)]
    return Source(pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table())


def _step_stamps(root: Path, step: int) -> tuple[tuple[str, FileStamp], ...]:
    found = []
    for file in units_of(root, step):
        with suppress(OSError):  # replaced this very moment
            found.append((file.name, file_stamp(file)))
    return tuple(found)


@lru_cache(maxsize=1024)
def _one_step(root: Path, step: int, stamps: tuple[tuple[str, FileStamp], ...], dtype: str) -> pa.Table:
    """A step's observations; `stamps` makes a changed step another key, so that a running sweep's are read once."""
    return encoded(_step_observations(root, step, None, dtype))


def _dtype_of(root: Path) -> str:
    """The precision that a folder was measured in, as its last sweep says."""
    provenance = stored_run_json(root).get("provenance")
    return str(provenance.get("dtype") or "float32") if isinstance(provenance, dict) else "float32"


def _step_observations(
    root: Path,
    step: int,
    damaged: Callable[[Path], None] | None,
    dtype: str,
    written: WrittenUnits | None = None,
) -> pa.Table:
    units = read_units(root, step, damaged=damaged, written=written)
    try:
        return observations_of(units, dtype=dtype)
    except (LookupError, ValueError, TypeError, pa.ArrowException) as error:
        reason = str(error).split("\n")[0][:200]
        raise ByroteError(
            f"the units of step {step} in {root} are inconsistent ({type(error).__name__}: {reason})",
            help="measure this run again with --fresh, or remove the folder of that step and run the same sweep again",
        ) from error


def observations_current(root: Path) -> bool:
    """Whether observations.parquet holds what the units give, by the digest of the units it was made from.

    What version 0.1 wrote has no digest: it is current where it counts as many units and none is newer. A folder without
    units holds nothing else. Its own seal is looked at when it is read.
    """
    file = root / OBSERVATIONS
    try:
        with open_parquet(file, OBSERVATION_SCHEMA) as opened:
            metadata = opened.metadata.metadata
        made_from = (metadata or {}).get(UNITS_KEY)
        units = unit_paths(root)
        if not units or made_from is not None:
            return not units or made_from == units_digest(root, units=units).encode()
        built = file.stat().st_mtime_ns
        counted = int(stored_under(metadata, N_UNITS_KEY, b"-1"))
        return len(units) == counted and all(unit.stat().st_mtime_ns <= built for unit in units)
    except (OSError, ValueError, ByroteError, pa.ArrowException):
        return False


def observations_whole(root: Path) -> bool:
    """Whether observations.parquet is there and its bytes are those that were written, as far as its seal can say."""
    try:
        return parquet_seal(root / OBSERVATIONS) is not Seal.BROKEN
    except (OSError, ByroteError):
        return False


def rebuild_observations(
    root: Path, *, damaged: Callable[[Path], None] | None = None, written: WrittenUnits | None = None
) -> Path:
    """Derive observations.parquet from the units and the verdicts that follow from them; a metric's rows lie together.

    Args:
        root: the results folder.
        damaged: called with each damaged unit, which then is left out; None raises.
        written: what this process has just written, which need not be read again.

    Raises:
        ByroteError: a unit is damaged.
        OSError: it cannot be written.
    """
    dtype = _dtype_of(root)
    tables = [_step_observations(root, step, damaged, dtype, written) for step in measured_steps(root)]
    table = pa.concat_tables(tables) if tables else OBSERVATION_SCHEMA.empty_table()
    file, units = root / OBSERVATIONS, unit_paths(root)
    metadata = {N_UNITS_KEY: str(len(units)).encode(), UNITS_KEY: units_digest(root, units=units).encode()}
    write_parquet(file, in_order(table, STORED_ORDER), metadata, rows_per_group=_ROWS_PER_GROUP)
    return file


def observations_of(units: pa.Table, *, dtype: str = "float32") -> pa.Table:
    """What observations.parquet says of one step: its units without samples, and the verdicts that follow from them.

    Args:
        units: all rows of one step, with samples.
        dtype: in which the model was run: verdicts that its rounding may decide are not given.
    """
    return pa.concat_tables([units.drop_columns(["samples"]), derive(units, dtype=dtype)])


def derive(units: pa.Table, *, dtype: str = "float32") -> pa.Table:
    """Verdict rows of one step from its units; none when the probes a verdict reads were not requested.

    Args:
        units, dtype: as for `observations_of`.

    Returns:
        A table in `OBSERVATION_SCHEMA`.
    """
    if not units.num_rows:
        return OBSERVATION_SCHEMA.empty_table()
    frame = to_frame(units)
    rows_of = _by_metric(frame)
    measured = [m for info in REGISTRY.values() if info.inputs for m in _verdict(info, rows_of, dtype)]
    first = frame.iloc[0]
    tokens_seen = None if pd.isna(first["tokens_seen"]) else int(first["tokens_seen"])
    table = unit_table(measured, run=first["run"], step=int(first["step"]), tokens_seen=tokens_seen)
    return table.drop_columns(["samples"])


def _by_metric(frame: pd.DataFrame) -> Callable[[tuple[str, str]], pd.DataFrame]:
    """The rows of a probe's metric, in the order of the frame; those of one lie together as units are written."""
    places = frame.groupby(["probe", "metric"], sort=False).indices

    def rows_of(metric: tuple[str, str]) -> pd.DataFrame:
        at = places.get(metric)
        if at is None:
            return frame.iloc[:0]
        together = at[-1] - at[0] == len(at) - 1
        return frame.iloc[at[0] : at[-1] + 1] if together else frame.iloc[at]

    return rows_of


def _is_unsampled(part: pd.DataFrame) -> bool:
    """Whether some of a metric's values stand without an interval and without samples."""
    valid, lo, n = (part[name].to_numpy() for name in ("valid", "lo", "n"))
    return bool((valid & np.isnan(lo) & (n == 0)).any())


def _verdict(
    info: ProbeInfo, rows_of: Callable[[tuple[str, str]], pd.DataFrame], dtype: str
) -> Sequence[Measured]:
    """One verdict on a step; nothing where a probe it needs was not requested."""
    rows = {name: rows_of(metric) for name, metric in info.inputs.items()}
    verdict = info.implementation()
    arguments = inspect.signature(verdict.update).parameters
    if verdict.finisher is None or any(
        rows[n].empty and arguments[n].default is inspect.Parameter.empty for n in rows
    ):
        return ()
    if any(_is_unsampled(part) for part in rows.values()):  # imported numbers: nothing to test
        return ()
    rounds = {"dtype": dtype} if "dtype" in inspect.signature(verdict.finisher).parameters else {}
    found = verdict.finisher({name: part for name, part in rows.items() if not part.empty}, **rounds)
    return [withheld(info, measured) for measured in found]
