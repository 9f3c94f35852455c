"""The files of a results folder: units are primary, `observations.parquet` is derived from them. No torch, no pickle.

    results/<run>/
        run.json                          what was requested
        units/step_00000512/*.parquet     one file per (checkpoint, stimulus); provenance in the file's metadata
        observations.parquet              derived; it names the units that it was made from, by a digest

Every file is written whole or not at all, so a reader never sees half of one. A unit has two hashes in its metadata: the
seal is of its bytes, see `byrote.checkpoints.seal`, the content hash of its columns and provenance, however compressed.
Units of version 0.1 have neither: they are read as before and called unverified.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from byrote.checkpoints.atomic import make_folder, move
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.former_name import stored_under
from byrote.checkpoints.safe_read import FileRefused, own_path, read_bytes
from byrote.checkpoints.seal import Seal, seal_of
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp
from byrote.probes.results.parquet_files import (
    MAX_UNIT_BYTES,
    SEAL_MARK,
    footer_of,
    parquet_in_memory,
    refuse_values,
    write_parquet,
)
from byrote.probes.results.schema import UNIT_SCHEMA
from byrote.probes.spec import ProbeInfo

N_UNITS_KEY, UNITS_KEY = b"byrote.n_units", b"byrote.units"
MAX_WRITTEN_BYTES = 64 << 20
_PROVENANCE_KEY, _CONTENT_KEY = b"byrote.provenance", b"byrote.content"
_CONTENT_MARK = _CONTENT_KEY + b"\x18\x20"  # in the footer: the key, then a string of 32 bytes
_WORDS = tuple(field.name for field in UNIT_SCHEMA if field.type == pa.string())
_DAMAGE = (OSError, pa.ArrowException, FileRefused, UnicodeDecodeError, json.JSONDecodeError, RecursionError)


@dataclass(frozen=True)
class UnitFacts:
    """What a unit says of itself.

    Attributes:
        provenance: of which weights, under which settings; {} where the file cannot be read.
        state: "whole"; "unverified" where it has no hashes, as those of 0.1; "damaged".
        content: its content hash; "" where it has none.
    """

    provenance: dict[str, Any]
    state: Literal["whole", "unverified", "damaged"]
    content: str


class WrittenUnits:
    """Rows of units as this process wrote them, while their files are as they were: few and small ones only."""

    def __init__(self) -> None:
        self._rows: dict[Path, tuple[FileStamp, pa.Table]] = {}
        self._bytes = 0

    def add(self, path: Path, table: pa.Table) -> None:
        """A unit has been written."""
        self._bytes += table.nbytes
        if self._bytes <= MAX_WRITTEN_BYTES:
            self._rows[path] = (file_stamp(path), table)

    def get(self, path: Path) -> pa.Table | None:
        """Its rows; None where they have to be read."""
        stamp, table = self._rows.get(path, (None, None))
        try:
            return table if table is not None and stamp == file_stamp(path) else None
        except OSError:
            return None


def step_folder(root: Path, step: int) -> Path:
    """Where a step's units are."""
    return root / "units" / f"step_{step:08d}"


def step_of(folder: Path) -> int | None:
    """The step a folder of units is of; None for one that has no step's name."""
    return _step_named(folder.name)


def _step_named(name: str) -> int | None:
    number = name.removeprefix("step_")
    named = name.startswith("step_") and number.isascii() and number.isdigit() and len(number) < 19
    return int(number) if named and name == f"step_{int(number):08d}" else None


def _names_in(folder: Path) -> list[str]:
    """What a folder holds, by name; nothing where it is none. Series have thousands of them: no path is made."""
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def measured_steps(root: Path) -> list[int]:
    """Steps that have a folder of units, ascending."""
    steps = (_step_named(name) for name in _names_in(root / "units"))
    return sorted(step for step in steps if step is not None)


def units_of(root: Path, step: int) -> list[Path]:
    """The finished units of a step, in name order.

    Raises:
        FileRefused: its folder, or that of all units, is a link.
    """
    return _units_in(own_path(root, "units"), step_folder(root, step).name)


def _units_in(units: Path, name: str) -> list[Path]:
    folder = own_path(units, name)
    return [folder / file for file in _names_in(folder) if file.endswith(".parquet")]


def unit_paths(root: Path) -> list[Path]:
    """All finished units, in step and name order.

    Raises:
        FileRefused: a folder of them is a link.
    """
    units = own_path(root, "units")
    return [file for step in measured_steps(root) for file in _units_in(units, step_folder(root, step).name)]


def unit_of(info: ProbeInfo, metric: str) -> str:
    """Key of the unit a metric is stored in; "" for what needs no stimulus."""
    if not info.stimuli:
        return ""
    if info.kind == "direct":
        return f"{info.stimuli[0]}+{info.name}"
    return metric.split("@")[1] if "@" in metric else info.stimuli[0]


def unit_name(file: Path) -> str:
    """Key of the unit in a file."""
    return file.name.rsplit(".", 2)[0]


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
    """Write one unit whole or not at all, with its hashes.

    Raises:
        OSError: it cannot be written.
    """
    encoded = json.dumps(provenance, sort_keys=True).encode()
    make_folder(path.parent)
    write_parquet(
        path, table, {_PROVENANCE_KEY: encoded, _CONTENT_KEY: content_hash(table, encoded).encode()}
    )


def content_hash(table: pa.Table, provenance: bytes) -> str:
    """BLAKE2 of a unit's columns, value by value, and of its provenance: the same however the file is compressed."""
    total = hashlib.blake2b(provenance, digest_size=16)
    for field in UNIT_SCHEMA:
        total.update(f"\0{field.name} {field.type}\0".encode())
        _hash_values(total, table[field.name].cast(field.type).combine_chunks())
    return total.hexdigest()


def _hash_values(total: Any, column: pa.Array | pa.ChunkedArray) -> None:
    if isinstance(column, pa.ChunkedArray):  # of no chunk at all
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    total.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).data)
    if pa.types.is_list(column.type):
        total.update(pc.list_value_length(column).fill_null(0).to_numpy().data)
        _hash_values(total, column.flatten())
    elif pa.types.is_string(column.type):
        filled = column.fill_null("")
        total.update(pc.binary_length(filled).to_numpy().data)
        offsets, text = filled.buffers()[1:]
        if text is not None and len(filled):
            ends = np.frombuffer(offsets, np.int32)[filled.offset : filled.offset + len(filled) + 1]
            total.update(memoryview(text)[ends[0] : ends[-1]])
    elif pa.types.is_boolean(column.type):
        total.update(np.packbits(column.fill_null(False).to_numpy(zero_copy_only=False)).data)
    else:
        total.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).data)


def unit_facts(path: Path) -> UnitFacts:
    """What a unit says of itself, and whether its bytes are those that were written; the whole file is read.

    Args:
        path: the unit; one without hashes is decoded too.
    """
    try:
        facts = _sealed_facts(path)
    except _DAMAGE:
        return UnitFacts({}, "damaged", "")
    return checked_unit(path)[0] if facts is None else facts


def checked_unit(path: Path) -> tuple[UnitFacts, pa.Table | None]:
    """`unit_facts` of a unit that is decoded and compared with its content hash, and its rows; None of a damaged one."""
    try:
        file, _, seal = parquet_in_memory(path, UNIT_SCHEMA, words=_WORDS)
        metadata = file.metadata.metadata
        encoded = stored_under(metadata, _PROVENANCE_KEY, b"{}")
        content = (metadata or {}).get(_CONTENT_KEY, b"").decode("ascii")
        provenance = json.loads(encoded)
        if seal is Seal.BROKEN or (seal is Seal.NONE) != (not content) or not _is_provenance(provenance):
            return UnitFacts({}, "damaged", content), None
        table = _decoded(path, file)
        if content and content_hash(table, encoded) != content:
            return UnitFacts({}, "damaged", content), None
    except _DAMAGE:
        return UnitFacts({}, "damaged", ""), None
    return UnitFacts(provenance, "whole" if content else "unverified", content), table


def _sealed_facts(path: Path) -> UnitFacts | None:
    """The facts of a unit whose seal is whole, read from its footer as they stand there; None for any other.

    A sweep that is run again looks at every unit, and parsing all of a footer takes three times as long.
    """
    data = read_bytes(path, max_bytes=MAX_UNIT_BYTES)
    if seal_of(data, SEAL_MARK) is not Seal.WHOLE:
        return None
    stored, content = (_metadata_entry(data, key) for key in (_PROVENANCE_KEY, _CONTENT_KEY))
    provenance = json.loads(stored or b"null")
    if not content or not _is_provenance(provenance):
        return None
    return UnitFacts(provenance, "whole", content.decode("ascii"))


def _is_provenance(value: Any) -> bool:
    """Whether what a unit says of itself is of the kinds that byrote writes."""
    kinds = {"probes": dict, "plugins": dict, "versions": dict, "fingerprint": str, "stimulus": str}
    if not isinstance(value, dict) or not all(
        isinstance(value.get(k, kind()), kind) for k, kind in kinds.items()
    ):
        return False
    plugins = value.get("plugins", {}).values()
    versions = value.get("probes", {}).values()
    return all(isinstance(one, dict) for one in plugins) and all(isinstance(v, int) for v in versions)


def _metadata_entry(data: bytes, key: bytes) -> bytes:
    """A value of a parquet file's metadata, found by its key: a string after it, its length in groups of 7 bits."""
    at = data.rfind(key + b"\x18") + len(key) + 1
    if at <= len(key):
        return b""
    length = shift = 0
    while at < len(data):
        length |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            break
    return data[at : at + length]


def unit_provenance(path: Path) -> dict[str, Any]:
    """Provenance of a unit; {} for a file that cannot be read, which then is measured again."""
    return unit_facts(path).provenance


def read_unit(path: Path, columns: Sequence[str] = UNIT_SCHEMA.names) -> pa.Table:
    """The rows of a unit; all of its bytes are compared with its seal.

    Args:
        path: the unit.
        columns: to be decoded.

    Raises:
        ByroteError: it is damaged.
    """
    try:
        file, _, seal = parquet_in_memory(path, UNIT_SCHEMA, words=_WORDS)
        if seal is Seal.BROKEN or (seal is Seal.NONE) != (_CONTENT_KEY not in (file.metadata.metadata or {})):
            raise FileRefused("its contents no longer match their checksum")
        return _decoded(path, file, columns)
    except _DAMAGE as error:
        message = error.message if isinstance(error, ByroteError) else str(error).split("\n")[0]
        raise ByroteError(
            f"the unit {path} is damaged ({message[:200]})",
            help="run the same sweep again: it measures that unit again",
        ) from error


def _decoded(path: Path, file: Any, columns: Sequence[str] = UNIT_SCHEMA.names) -> pa.Table:
    table = file.read(columns=list(columns)).select(columns)
    refuse_values(path, table)
    return table.cast(pa.schema([UNIT_SCHEMA.field(name) for name in columns]))


def read_units(
    root: Path,
    step: int,
    *,
    damaged: Callable[[Path], None] | None = None,
    written: WrittenUnits | None = None,
    probe: ProbeInfo | None = None,
) -> pa.Table:
    """All rows of one step, with samples, in the fixed order.

    Args:
        root: the results folder.
        step: whose units.
        probe: only its rows, from the units named as those it is stored in, where there are any.
        damaged: called with each damaged unit, which then is left out; None raises.
        written: what this process has just written, which need not be read again.

    Raises:
        ByroteError: a unit is damaged, or a link.
    """
    tables = []
    files = units_of(root, step)
    if probe is not None:
        own = {*probe.stimuli, unit_of(probe, "")}
        files = [file for file in files if unit_name(file) in own] or files
    for file in files:
        if written is not None and (rows := written.get(file)) is not None:
            tables.append(rows)
            continue
        try:
            tables.append(read_unit(file))
        except ByroteError:
            if damaged is None:
                raise
            damaged(file)
    rows = pa.concat_tables(tables) if tables else UNIT_SCHEMA.empty_table()
    return rows if probe is None else rows.filter(pc.equal(rows["probe"], probe.name))


def units_digest(root: Path, *, whole: bool = False, units: Sequence[Path] | None = None) -> str:
    """SHA-256 over the names of all units and what they hold.

    Args:
        root: the results folder.
        units: its `unit_paths`, where they have been listed.
        whole: read every unit and compare its bytes with its seal, instead of its footer alone; a damaged one counts as
            such. Each file is read once in a process, as long as it stays as it is.

    Raises:
        FileRefused: a folder of units is a link.
    """
    total, content_of = hashlib.sha256(), _checked_content if whole else _stated_content
    for file in unit_paths(root) if units is None else units:
        try:
            content = content_of(file, file_stamp(file))
        except (OSError, FileRefused):
            content = "unreadable"
        total.update(f"{file.parent.name}/{file.name}\0{content}\0".encode(errors="surrogateescape"))
    return total.hexdigest()


@lru_cache(maxsize=65_536)
def _stated_content(file: Path, stamp: FileStamp) -> str:
    """The content hash in a unit's footer, or the hash of the footer of one that has none; `stamp` makes a new file another key."""
    footer = footer_of(file)
    at = footer.rfind(_CONTENT_MARK)
    if at < 0:
        return hashlib.sha256(footer).hexdigest()
    start = at + len(_CONTENT_MARK)
    return footer[start : start + 32].decode("ascii", errors="replace")


@lru_cache(maxsize=65_536)
def _checked_content(file: Path, stamp: FileStamp) -> str:
    return "damaged" if unit_facts(file).state == "damaged" else _stated_content(file, stamp)


def set_aside(path: Path) -> Path:
    """Give a damaged file a name under which nothing reads it: `<name>.damaged`, or with a number where that is taken.

    Returns:
        The new path.

    Raises:
        OSError: it cannot be renamed.
    """
    names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
    free = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    move(path, free)
    return free


def set_aside_files(root: Path) -> list[Path]:
    """Damaged files that sweeps set aside."""
    return sorted(file for folder in ("units", "arrays") for file in (root / folder).glob("*/*.damaged*"))
