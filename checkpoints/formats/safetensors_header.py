"""Safetensors headers checked against the file's real size, without reading tensors.

Source: the safetensors format: 8 bytes little-endian header length, JSON header, then tensor bytes.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError, half_written
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.stored_tensor import WIDTHS
from byrote.checkpoints.stored_bytes import open_stored

MAX_HEADER_BYTES = 32 << 20  # some 200,000 tensors; the reference implementation takes three times that
MAX_AXES = 64


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in its file: byte range is absolute, end exclusive."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> tuple[TensorEntry, ...]:
    """Entries of a safetensors file, in file order, proved to lie inside the file.

    Raises:
        CheckpointError: not a safetensors file, cut short, or a header that lies about sizes.
    """
    size = path.stat().st_size
    if size < 8:
        raise CheckpointError(
            half_written(f"{path.name} is {size} bytes, too short for safetensors"),
            help="copy the file again, or wait until it is written",
        )
    with open_stored(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{path.name} is not a safetensors file, or is cut short (header claims {length} bytes, "
                f"file has {size})",
                help="copy the file again; pickled files must be named .bin",
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        entries = [_entry(name, spec, 8 + length) for name, spec in header.items() if name != "__metadata__"]
    except (
        UnicodeDecodeError,
        json.JSONDecodeError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise CheckpointError(
            f"{path.name} has a broken safetensors header ({type(error).__name__}: {shown(error)})",
            help="copy the file again",
        ) from None
    return _checked(path, size, 8 + length, entries)


def _entry(name: str, spec: dict[str, Any], base: int) -> TensorEntry:
    start, end = spec["data_offsets"]
    shape = tuple(spec["shape"])
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, start, end)) or start > end:
        raise ValueError(f"{name}: sizes must be whole numbers, none negative")
    if len(shape) > MAX_AXES:
        raise ValueError(f"{name}: it has {len(shape)} axes")
    return TensorEntry(name, str(spec["dtype"]), shape, base + start, base + end)


def _checked(path: Path, size: int, base: int, entries: list[TensorEntry]) -> tuple[TensorEntry, ...]:
    entries = sorted(entries, key=lambda e: (e.start, e.end))
    expected_start = base
    for entry in entries:
        if entry.start != expected_start:
            raise CheckpointError(
                f"{path.name}: tensors overlap or leave holes at {shown(entry.name)}",
                help="write the file again",
            )
        expected_start = entry.end
        width = WIDTHS.get(entry.dtype)
        if width is not None and math.prod(entry.shape) * width != entry.end - entry.start:
            raise CheckpointError(
                f"{path.name}: {shown(entry.name)} claims shape {shown(list(entry.shape))} of {shown(entry.dtype)} "
                f"but holds {entry.end - entry.start} bytes",
                help="the file is damaged; write it again",
            )
    if expected_start > size:
        raise CheckpointError(
            half_written(
                f"{path.name} is truncated: tensors need {expected_start} bytes, the file has {size}"
            ),
            help="copy the file again, or wait until it is written",
        )
    if expected_start < size:
        raise CheckpointError(
            f"{path.name} has {size - expected_start} bytes after its last tensor",
            help="the file is damaged; write it again",
        )
    return tuple(entries)
