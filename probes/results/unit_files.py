"""The files of a results folder: units are primary, `observations.parquet` is derived from them. No torch, no pickle.

    results/<run>/
        run.json                          what was requested
        units/step_00000512/*.parquet     one file per (checkpoint, stimulus); provenance in the file's metadata
        observations.parquet              rebuilt when a unit is newer

Every file is written whole or not at all, so a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from byrote.checkpoints.atomic import make_folder, write_bytes
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import stored_under
from byrote.probes.results.schema import UNIT_SCHEMA
from byrote.probes.spec import ProbeInfo

SCHEMA_VERSION = 1
_PROVENANCE_KEY = b"byrote.provenance"
N_UNITS_KEY = b"byrote.n_units"


def step_folder(root: Path, step: int) -> Path:
    """Where a step's units are."""
    return root / "units" / f"step_{step:08d}"


def unit_paths(root: Path) -> list[Path]:
    """All finished units, in step and name order."""
    return sorted((root / "units").glob("step_*/*.parquet"))


def unit_of(info: ProbeInfo, metric: str) -> str:
    """Key of the unit a metric is stored in; "" for what needs no stimulus."""
    if not info.stimuli:
        return ""
    if info.kind == "direct":
        return f"{info.stimuli[0]}+{info.name}"
    return metric.split("@")[1] if "@" in metric else info.stimuli[0]


def unit_stamps(root: Path) -> tuple[tuple[str, int, int], ...]:
    """(folder, mtime in ns, units) of every step: units are only ever renamed into place, which the folder's time shows."""
    found = []
    try:
        folders = [entry for entry in os.scandir(root / "units") if entry.name.startswith("step_")]
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
    names = os.listdir(folder)  # noqa: PTH208  (called for every step at every look)
    return sum(name.endswith(".parquet") and not name.startswith(".") for name in names)


def write_unit(path: Path, table: pa.Table, provenance: Mapping[str, Any]) -> None:
    """Write one unit whole or not at all."""
    make_folder(path.parent)
    write_parquet(path, table, {_PROVENANCE_KEY: json.dumps(provenance, sort_keys=True).encode()})


def unit_provenance(path: Path) -> dict[str, Any]:
    """Provenance of a unit; {} for a file that cannot be read, which then is measured again."""
    try:
        return json.loads(stored_under(pq.read_schema(path).metadata, _PROVENANCE_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}


def read_units(root: Path, step: int) -> pa.Table:
    """All rows of one step, with samples, in the fixed order.

    Raises:
        ByroteError: a unit is damaged.
    """
    tables = []
    for file in sorted(step_folder(root, step).glob("*.parquet")):
        try:
            tables.append(pq.read_table(file, schema=UNIT_SCHEMA))
        except (OSError, pa.ArrowException) as error:
            raise ByroteError(
                f"the unit {file} is damaged", help="run the same sweep again: it measures that unit anew"
            ) from error
    return pa.concat_tables(tables) if tables else UNIT_SCHEMA.empty_table()


def write_parquet(
    path: Path, table: pa.Table, metadata: Mapping[bytes, bytes], *, rows_per_group: int | None = None
) -> None:
    """Write a table whole or not at all, with entries in the file's metadata."""
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=rows_per_group)
    write_bytes(path, memoryview(sink.getvalue()))
