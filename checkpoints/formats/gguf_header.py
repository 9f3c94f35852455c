"""The header of a GGUF file, read by a reader of our own: metadata, and where each tensor lies, without reading tensors.

The `gguf` library's reader maps the whole file (one that is cut short meanwhile ends the process), copies every value of
every array, and believes the counts it finds; so it is not given files from unknown hands. Here every count is compared with
the bytes there are, arrays of text are walked over and not built, and the places of the tensors must follow one another as
llama.cpp demands.

Source: docs/gguf.md and src/gguf.cpp of github.com/ggml-org/ggml; versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp, open_stored

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 64 << 20  # a vocabulary of 300 thousand words with as many merges has 12 MB
MAX_TENSORS = 100_000
MAX_FIELDS = 10_000
MAX_TEXTS = 2_000_000  # in arrays, all together
MAX_NAME_BYTES = 512
MAX_TEXT_BYTES = 1 << 16  # longer ones are walked over
MAX_NUMBERS = 1 << 12  # longer arrays of numbers are walked over
MAX_AXES = 4
MAX_LENGTH = 1 << 31
_DAMAGED = "it is damaged or still being written; copy it again"
_TEXT, _ARRAY = 8, 9
# ggml's numbers for kinds of values -> how struct reads them.
_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class Kind:
    """How numbers are stored.

    Attributes:
        name: ggml's, which for plain numbers is also safetensors'.
        block: numbers that are stored together.
        block_bytes: bytes of a block.
        bits: of one number, scales apart; 0 where nothing was rounded to fewer bits than the weights had.
    """

    name: str
    block: int
    block_bytes: int
    bits: int = 0


KINDS = {
    0: Kind("F32", 1, 4), 1: Kind("F16", 1, 2), 30: Kind("BF16", 1, 2), 28: Kind("F64", 1, 8),
    2: Kind("Q4_0", 32, 18, 4), 3: Kind("Q4_1", 32, 20, 4), 6: Kind("Q5_0", 32, 22, 5), 7: Kind("Q5_1", 32, 24, 5),
    8: Kind("Q8_0", 32, 34, 8), 10: Kind("Q2_K", 256, 84, 2), 11: Kind("Q3_K", 256, 110, 3), 12: Kind("Q4_K", 256, 144, 4),
    13: Kind("Q5_K", 256, 176, 5), 14: Kind("Q6_K", 256, 210, 6), 16: Kind("IQ2_XXS", 256, 66, 2),
    17: Kind("IQ2_XS", 256, 74, 2), 18: Kind("IQ3_XXS", 256, 98, 3), 19: Kind("IQ1_S", 256, 50, 1),
    20: Kind("IQ4_NL", 32, 18, 4), 21: Kind("IQ3_S", 256, 110, 3), 22: Kind("IQ2_S", 256, 82, 2),
    23: Kind("IQ4_XS", 256, 136, 4), 29: Kind("IQ1_M", 256, 56, 1), 34: Kind("TQ1_0", 256, 54, 1),
    35: Kind("TQ2_0", 256, 66, 2), 39: Kind("MXFP4", 32, 17, 4),
}  # fmt: skip


@dataclass(frozen=True)
class StoredBlocks:
    """Where one tensor lies in its file: its shape in row-major order, and the absolute range of its bytes."""

    name: str
    kind: Kind
    number: int
    shape: tuple[int, ...]
    start: int
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        metadata: numbers, texts, and short arrays of numbers as tuples, by name; other arrays are left out.
        tensors: by name, in the file's order.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredBlocks]


def read_header(path: Path) -> Header:
    """The header of a file, every tensor proved to lie inside it.

    Raises:
        CheckpointError: it is no GGUF file, of a version or kind of numbers that is not read, cut short, or says what
            cannot be.
        OSError: it cannot be read.
    """
    return _read(path, file_stamp(path, follow_links=True))


@lru_cache(maxsize=16)
def _read(path: Path, stamp: FileStamp) -> Header:
    """By the file's stamp: a vocabulary takes a while to walk over, and opening, hashing and building each ask."""
    with open_stored(path) as file:
        return _Reader(path.name, file, stamp[0]).header()


class _Reader:
    def __init__(self, name: str, file: BinaryIO, size: int) -> None:
        self.name, self.file, self.size = name, file, size
        self.at, self.texts = 0, 0

    def header(self) -> Header:
        if self.take(4) != MAGIC:
            raise self.refused("is not a GGUF file", "GGUF files begin with these four letters")
        self.refuse_other_version(self.number("I"))
        n_tensors, n_fields = self.number("Q"), self.number("Q")
        for n, most, what in (
            (n_tensors, MAX_TENSORS, "tensors"),
            (n_fields, MAX_FIELDS, "fields of metadata"),
        ):
            if n > most:
                raise self.refused(f"claims {n:,} {what}; at most {most:,} are read", _DAMAGED)
        metadata: dict[str, Any] = {}
        for _ in range(n_fields):
            name = self.name_of("a field")
            if name in metadata:
                raise self.refused(f"has two fields {shown(name)}", _DAMAGED)
            metadata[name] = self.value(self.number("I"), name)
        table = [self.described() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            raise self.refused(f"says general.alignment = {shown(alignment)}", _DAMAGED)
        return Header(
            {name: value for name, value in metadata.items() if value is not None},
            self.placed(table, alignment),
        )

    def placed(
        self, table: list[tuple[str, tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, StoredBlocks]:
        """The tensors at their places, each right behind the one before it."""
        base = _aligned(self.at, alignment)
        tensors: dict[str, StoredBlocks] = {}
        expected = end = 0
        for name, shape, number, offset in table:
            kind, where = KINDS[number], f"{shown(name)} of shape {list(shape)}"
            if name in tensors:
                raise self.refused(f"holds two tensors {shown(name)}", _DAMAGED)
            if shape[-1] % kind.block:
                raise self.refused(f"{where} has no whole blocks of {kind.block} {kind.name}", _DAMAGED)
            if offset != expected:
                raise self.refused(f"tensors overlap or leave holes at {shown(name)}", _DAMAGED)
            n_bytes = math.prod(shape) // kind.block * kind.block_bytes
            end = offset + n_bytes
            if base + end > self.size:
                raise self.refused(
                    f"is cut short: {where} ends at byte {base + end:,} of {self.size:,}", _DAMAGED
                )
            tensors[name] = StoredBlocks(name, kind, number, shape, base + offset, n_bytes)
            expected = _aligned(end, alignment)
        if self.size > base + expected:
            raise self.refused(f"has {self.size - base - end:,} bytes after its last tensor", _DAMAGED)
        return tensors

    def described(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape in row-major order, number of its kind and offset of one tensor."""
        name, n_axes = self.name_of("a tensor"), self.number("I")
        if not 1 <= n_axes <= MAX_AXES:
            raise self.refused(f"{shown(name)} has {n_axes} axes", _DAMAGED)
        lengths = struct.unpack(f"<{n_axes}Q", self.take(8 * n_axes))
        if not all(0 < n < MAX_LENGTH for n in lengths):
            raise self.refused(f"{shown(name)} has shape {list(lengths)[::-1]}", _DAMAGED)
        number = self.number("I")
        if number not in KINDS:
            raise self.refused(
                f"stores {shown(name)} in a number type that byrote does not read (ggml's {number})",
                f"byrote reads {', '.join(kind.name for kind in KINDS.values())}",
            )
        return name, lengths[::-1], number, self.number("Q")

    def value(self, kind: int, name: str) -> Any:
        """A value; None for a long text or an array that is walked over."""
        if kind in _VALUES:
            return self.number(_VALUES[kind])
        if kind == _TEXT:
            return self.text(MAX_TEXT_BYTES)
        if kind != _ARRAY:
            raise self.refused(f"{shown(name)} has an unknown value type ({kind})", _DAMAGED)
        kind, n = self.number("I"), self.number("Q")
        if kind in _VALUES:
            width = struct.calcsize(f"<{_VALUES[kind]}")
            if n > MAX_NUMBERS:
                self.skip(n * width)
                return None
            return struct.unpack(f"<{n}{_VALUES[kind]}", self.take(n * width))
        if kind != _TEXT:
            raise self.refused(f"{shown(name)} is an array of arrays or of an unknown value type", _DAMAGED)
        self.texts += n
        if self.texts > MAX_TEXTS:
            raise self.refused(f"{shown(name)} claims {n:,} texts; at most {MAX_TEXTS:,} are read", _DAMAGED)
        for _ in range(n):
            self.skip(self.number("Q"))
        return None

    def text(self, most: int) -> str | None:
        """A text of at most so many bytes; None for a longer one, which is walked over."""
        n = self.number("Q")
        if n > most:
            self.skip(n)
            return None
        return self.take(n).decode("utf-8", "replace")

    def name_of(self, what: str) -> str:
        found = self.text(MAX_NAME_BYTES)
        if found is None:
            raise self.refused(f"has {what} whose name is longer than {MAX_NAME_BYTES} bytes", _DAMAGED)
        return found

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def take(self, n: int) -> bytes:
        self.moved(n)
        found = self.file.read(n)
        if len(found) < n:
            raise self.refused("ends within its header", _DAMAGED)
        return found

    def skip(self, n: int) -> None:
        self.moved(n)
        if n:
            self.file.seek(n, 1)

    def moved(self, n: int) -> None:
        self.at += n
        if self.at > min(self.size, MAX_HEADER_BYTES):
            what = "ends within its header" if self.at > self.size else "has more than 64 MiB of header"
            raise self.refused(what, _DAMAGED)

    def refuse_other_version(self, version: int) -> None:
        if version in VERSIONS:
            return
        if version and not version & 0xFFFF:
            raise self.refused("is big-endian", "convert the model again for a little-endian machine")
        raise self.refused(
            f"has GGUF version {version}", "versions 2 and 3 are read; convert the model again"
        )

    def refused(self, what: str, help: str) -> CheckpointError:
        return CheckpointError(f"{self.name} {what}", help=help)


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
