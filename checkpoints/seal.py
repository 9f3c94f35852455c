"""Seals: a file says what its own bytes hash to, so that a flipped bit or a lost page is seen when it is read.

A writer leaves 32 zeros behind a mark that its format can hold; `sealed` puts the XXH3-128 of the whole file in their place.
Every byte is covered: data, headers, and what the file says of itself. XXH3 reads at memory speed, so that a file can be
checked whenever it is read. A seal tells damage by disks, copies and power cuts; whoever alters a file can seal it again.
"""

from __future__ import annotations

import io
from enum import Enum
from typing import Any, BinaryIO

import xxhash

EMPTY = "0" * 32
_N = len(EMPTY)
_WINDOW_BYTES = 4 << 20
_SEARCHED_BYTES = 1 << 20  # of the end, or of the start, where the mark is


class Seal(Enum):
    """What a file's seal says: the bytes are those written, they are not, or there is none (as in files of 0.1)."""

    WHOLE = "whole"
    BROKEN = "broken"
    NONE = "none"


def sealed(data: bytearray | memoryview, mark: bytes, *, at_start: bool = False) -> None:
    """Seal a file in memory, in place.

    Args:
        data: the file's bytes, with `EMPTY` behind the mark.
        mark: what stands before the seal.
        at_start: whether the mark is searched for from the start; otherwise from the end.

    Raises:
        ValueError: there is no such mark.
    """
    at = seal_place(data, mark, at_start=at_start)
    if at is None:
        raise ValueError(f"no {mark!r} to put a seal behind")
    data[at : at + _N] = EMPTY.encode()
    data[at : at + _N] = xxhash.xxh3_128(data).hexdigest().encode()


def seal_of(data: bytes, mark: bytes, *, at_start: bool = False) -> Seal:
    """What the seal of a file in memory says; arguments as `sealed`."""
    return seal_of_file(io.BytesIO(data), mark, at_start=at_start)


def seal_of_file(file: BinaryIO | io.BytesIO, mark: bytes, *, at_start: bool = False) -> Seal:
    """What the seal of an open file says, which is read in windows; arguments as `sealed`.

    Raises:
        OSError: it cannot be read.
    """
    size = file.seek(0, 2)
    first = file.seek(0 if at_start else max(0, size - _SEARCHED_BYTES))
    place = seal_place(file.read(_SEARCHED_BYTES), mark, at_start=at_start)
    if place is None:
        return Seal.NONE
    at, total = first + place, xxhash.xxh3_128()
    file.seek(at)
    stored = file.read(_N)
    file.seek(0)
    _update(total, file, at)
    total.update(EMPTY.encode())
    file.seek(at + _N)
    _update(total, file, size - at - _N)
    return Seal.WHOLE if total.hexdigest().encode() == stored else Seal.BROKEN


def seal_place(data: bytes | bytearray | memoryview, mark: bytes, *, at_start: bool = False) -> int | None:
    """Where the seal begins; None where there is no mark, or nothing as long as a seal behind it."""
    first = 0 if at_start else max(0, len(data) - _SEARCHED_BYTES)
    searched = bytes(data[first : first + _SEARCHED_BYTES])
    at = searched.find(mark) if at_start else searched.rfind(mark)
    end = first + at + len(mark)
    return None if at < 0 or end + _N > len(data) else end


def _update(total: Any, file: BinaryIO | io.BytesIO, n_bytes: int) -> None:
    while n_bytes > 0 and (window := file.read(min(n_bytes, _WINDOW_BYTES))):
        total.update(window)
        n_bytes -= len(window)
