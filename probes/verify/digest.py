"""One short name for what a results folder holds."""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from pathlib import Path

from byrote.probes.results.units import unit_paths

_END = struct.Struct("<I4s")  # length of the parquet footer, and the mark that ends the file


def digest(path: str | Path) -> str:
    """SHA-256 over the names and footers of the units: what was measured, under which settings, on which weights.

    A footer holds the unit's provenance, its number of rows and the range of every column. Copies have the same digest,
    and it changes when a unit does, comes or goes; of run.json and observations.parquet it says nothing.
    """
    total = hashlib.sha256()
    for file in unit_paths(Path(path)):
        try:
            stat = file.stat()
            footer = _footer_hash(file, stat.st_mtime_ns, stat.st_size)
        except OSError:
            footer = b"unreadable"
        total.update(f"{file.parent.name}/{file.name}\0".encode() + footer)
    return total.hexdigest()


@lru_cache(maxsize=32_768)
def _footer_hash(file: Path, changed: int, size: int) -> bytes:
    """Of the file's end alone; `changed` makes a file that was replaced another key. The whole file where it is no parquet."""
    with file.open("rb") as held:
        held.seek(max(0, size - _END.size))
        end = held.read()
        length, mark = _END.unpack(end) if len(end) == _END.size else (size, b"")
        held.seek(max(0, size - _END.size - length) if mark == b"PAR1" else 0)
        return hashlib.sha256(held.read()).digest()
