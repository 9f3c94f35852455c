"""Read and check files of `torch.save` without torch: where each tensor is stored, and the plain values beside them.

torch.save writes an uncompressed zip: `data.pkl` describes the objects, `data/<key>` holds each storage's bytes. Before
torch 1.6 it wrote pickles followed by the storages. Both are checked here before torch may see them: `torch.load` with
weights_only=True runs no foreign code, but can still be made to allocate or compute without end.

Source: torch/serialization.py, torch/_utils.py and torch/_weights_only_unpickler.py of torch 2.13.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from byrote.checkpoints.errors import CheckpointError, half_written
from byrote.checkpoints.formats.inert_pickle import CONVERT, InertPickle, shown
from byrote.checkpoints.formats.stored_tensor import References, Storage, makers
from byrote.checkpoints.stored_bytes import open_stored

MAX_PICKLE_BYTES = 32 << 20
MAX_DIRECTORY_BYTES = 64 << 20
MAX_SIZE_RATIO = 1.01  # of contents to file; torch stores, so anything more is a zip bomb
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_PICKLE_START, _ZIP_START = b"\x80", b"PK\x03\x04"
_DAMAGED = "the file is damaged; copy or save it again"


@dataclass(frozen=True)
class TorchFile:
    """A checked file.

    Attributes:
        path: the file.
        content: what was saved, with `StoredTensor` where tensors were. Read only: it is shared.
        start_bytes: where each storage begins in the file, by key.
        is_zip: written by torch 1.6 or later; such files can be memory-mapped.
    """

    path: Path
    content: Any
    start_bytes: Mapping[str, int]
    is_zip: bool


def read_torch_file(path: Path) -> TorchFile:
    """Check a file that `torch.save` wrote and read everything in it but the tensors' values.

    Raises:
        CheckpointError: not such a file, damaged, made to exhaust memory, or asking for more than plain weights need.
    """
    state = path.stat()
    read = _read_once(path, state.st_size, (state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
    if isinstance(read, CheckpointError):
        raise CheckpointError(read.message, help=read.help)
    return read


def read_torch_slice(path: Path, start: int, length: int) -> TorchFile:
    """As `read_torch_file`, for a zip that `torch.save` wrote into the middle of a file.

    Args:
        path: the file.
        start: where the zip begins, in bytes.
        length: of the zip, in bytes.
    """
    with open_stored(path) as file:
        return _read_zip(path, _Window(file, start, length), length)


@lru_cache(maxsize=8)
def _read_once(path: Path, size: int, _changed: tuple[int, ...]) -> TorchFile | CheckpointError:
    """Refusals are cached too: every format that could read a folder reads its files."""
    try:
        return _read(path, size)
    except CheckpointError as error:
        return CheckpointError(error.message, help=error.help)


def _read(path: Path, size: int) -> TorchFile:
    with open_stored(path) as file:
        start = file.read(4)
        file.seek(257)
        if file.read(5) == b"ustar":
            raise CheckpointError(f"{path.name} is in torch's tar format of before 2017", help=CONVERT)
        if start == _ZIP_START:
            return _read_zip(path, _Window(file, 0, size), size)
    if start[:1] == _PICKLE_START:
        return _read_legacy(path, size)
    if not size:
        raise CheckpointError(half_written(f"{path.name} is empty"), help=_DAMAGED)
    raise CheckpointError(
        f"{path.name} ({size} bytes) is not a file that torch.save wrote",
        help=_DAMAGED + "; safetensors files must end in .safetensors",
    )


# --- the zip ---------------------------------------------------------------------------------------------------------


class _Window(io.RawIOBase):
    """A part of an open file, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self.file, self.start, self.size, self.position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = max(0, offset + (0, self.position, self.size)[whence])
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.size - self.position)
        wanted = left if size is None or size < 0 else min(size, left)
        self.file.seek(self.start + self.position)
        chunk = self.file.read(wanted)
        self.position += len(chunk)
        return chunk


def _read_zip(path: Path, window: _Window, size: int) -> TorchFile:
    try:
        _refuse_large_directory(window, size)
        with zipfile.ZipFile(window) as archive:
            entries = _entries(path, size, archive.infolist())
        _refuse_unreadable_kind(path, entries)
    except (
        zipfile.BadZipFile,
        struct.error,
        ValueError,
        NotImplementedError,
        EOFError,
        OverflowError,
    ) as error:
        damage = f"{path.name} is a damaged zip ({shown(error)})"
        # zipfile's words, and those of `_refuse_large_directory`: the list of entries, written last, is not at the end
        no_end = "not a zip file" in str(error) or "truncated" in str(error)
        raise CheckpointError(half_written(damage) if no_end else damage, help=_DAMAGED) from None
    window.seek(_start(path, window, entries["data.pkl"]))
    pickled = window.read(entries["data.pkl"].file_size)
    sizes = {name[5:]: info.file_size for name, info in entries.items() if name.startswith("data/")}
    persistent = References(path.name, sizes)
    content = InertPickle(pickled, makers(), where=path.name, persistent=persistent, max_protocol=2).read()
    starts = {key: window.start + _start(path, window, entries[f"data/{key}"]) for key in persistent.storages}
    return TorchFile(path, content, starts, is_zip=True)


def _refuse_large_directory(window: _Window, size: int) -> None:
    """zipfile reads the whole directory at once; look at its size first."""
    window.seek(size - 22)
    tail = window.read(22)
    if tail[:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("truncated, or with a comment that torch never writes")
    (directory,) = struct.unpack("<12xL6x", tail)
    window.seek(size - 42)
    locator = window.read(20)
    if locator[:4] == b"PK\x06\x07":
        window.seek(struct.unpack("<8xQ4x", locator)[0])
        (directory,) = struct.unpack("<40xQ8x", window.read(56))
    if directory > min(size, MAX_DIRECTORY_BYTES):
        raise zipfile.BadZipFile(f"its directory claims {directory} bytes")


def _entries(path: Path, size: int, listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Entries by the name torch uses for them, proved to be stored and to fit the file."""
    total = sum(info.file_size for info in listed)
    if any(info.compress_type != zipfile.ZIP_STORED for info in listed) or total > size * MAX_SIZE_RATIO:
        raise CheckpointError(
            f"{path.name} holds {total} bytes compressed into {size}: torch never compresses, a zip bomb does",
            help="unpack it yourself and save the tensors again",
        )
    roots = {info.filename.partition("/")[0] for info in listed}
    entries = {info.filename.partition("/")[2]: info for info in listed}
    if len(entries) != len(listed) or len(roots) != 1:
        raise CheckpointError(
            f"{path.name} has several entries of one name, or none with a name that torch uses", help=_DAMAGED
        )
    for name, info in entries.items():
        if ".." in info.filename.split("/") or info.filename.startswith("/") or "\\" in name:
            raise CheckpointError(
                f"{path.name} has an entry that leads out of it: {shown(info.filename)}", help=_DAMAGED
            )
        if info.compress_size != info.file_size or info.flag_bits & 1:
            raise CheckpointError(f"{path.name}: sizes of {shown(name)} disagree", help=_DAMAGED)
    return entries


def _refuse_unreadable_kind(path: Path, entries: Mapping[str, zipfile.ZipInfo]) -> None:
    if "data.pkl" not in entries:
        raise CheckpointError(f"{path.name} is a zip, but not one of torch's (no data.pkl)", help=_DAMAGED)
    if "constants.pkl" in entries or any(name.startswith("code/") for name in entries):
        raise CheckpointError(f"{path.name} is a TorchScript program, not weights", help=CONVERT)
    if entries["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"{path.name}: data.pkl is {entries['data.pkl'].file_size} bytes; more than {MAX_PICKLE_BYTES} is refused",
            help=CONVERT,
        )
    if "byteorder" in entries and entries["byteorder"].file_size != len("little"):
        raise CheckpointError(
            f"{path.name} was written on a big-endian machine", help="save it again as safetensors"
        )


def _start(path: Path, window: _Window, info: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind its local header, whose lengths are stored in the header alone.

    Not through zipfile, which refuses what torch writes with checksums switched off.
    """
    window.seek(info.header_offset)
    header = window.read(30)
    if len(header) < 30 or header[:4] != _ZIP_START:
        raise CheckpointError(f"{path.name}: {shown(info.filename)} is missing", help=_DAMAGED)
    name, extra = struct.unpack("<26xHH", header)
    start = info.header_offset + 30 + name + extra
    if start + info.file_size > window.size:
        raise CheckpointError(
            half_written(f"{path.name} is truncated inside {shown(info.filename)}"), help=_DAMAGED
        )
    return start


# --- before torch 1.6 ------------------------------------------------------------------------------------------------


def _read_legacy(path: Path, size: int) -> TorchFile:
    with open_stored(path) as file:
        head = file.read(MAX_PICKLE_BYTES)
    persistent = References(path.name, None)
    position = 0

    def following(reference: Callable[[Any], Any] | None = None) -> Any:
        nonlocal position
        pickled = InertPickle(
            memoryview(head)[position:], makers(), where=path.name, persistent=reference, max_protocol=2
        )
        value = pickled.read()
        position += pickled.position
        return value

    if following() != _LEGACY_MAGIC or following() != _LEGACY_PROTOCOL:
        raise CheckpointError(f"{path.name} is pickled, but not by torch.save", help=CONVERT)
    machine = following()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise CheckpointError(
            f"{path.name} was written on a big-endian machine", help="save it again as safetensors"
        )
    content, keys = following(persistent), following()
    return TorchFile(
        path, content, _legacy_starts(path, size, position, persistent.storages, keys), is_zip=False
    )


def _legacy_starts(
    path: Path, size: int, position: int, storages: Mapping[str, Storage], keys: Any
) -> dict[str, int]:
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise CheckpointError(f"{path.name} lists storages other than those it uses", help=_DAMAGED)
    starts = {}
    with open_stored(path) as file:
        for key in map(str, keys):
            file.seek(position)
            length = file.read(8)
            numel = struct.unpack("<q", length)[0] if len(length) == 8 else -1
            starts[key] = position + 8
            position = starts[key] + storages[key].size_bytes
            if numel != storages[key].numel or position > size:
                raise CheckpointError(
                    half_written(f"{path.name} is truncated inside storage {shown(key)}"), help=_DAMAGED
                )
    return starts
