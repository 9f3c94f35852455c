"""Files of weights: read in pieces from an open file, never mapped, and the stamp by which a change of them is noticed.

A mapped file that another program cuts short ends the whole process (SIGBUS); a read that comes back short is an error
like any other. Weights may also be exchanged while they are measured: a file's size, times and inode are noted before it
is read, and compared afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.safe_read import FileRefused, open_regular

WINDOW_BYTES = 1 << 19  # a piece stays in the processor's cache until it is hashed
# A file system's clock ticks every 1 to 10 ms: a file may change again within the tick that it shows.
TICK_S = 0.02

FileStamp = tuple[int, int, int, int]
"""Size, time of change of content, time of change of anything (both in ns) and inode, of one file or folder."""
Stamp = list[list[Any]]
"""Name and `FileStamp` of each file, as JSON has them."""


def file_stamp(path: Path, *, follow_links: bool = False, missing_ok: bool = False) -> FileStamp:
    """Another whenever a file was written or replaced, also with its times put back.

    Args:
        path: the file or folder.
        follow_links: a link has the stamp of what it points to.
        missing_ok: zeros where nothing can be looked at.

    Raises:
        OSError: it is not there.
    """
    try:
        found = path.stat(follow_symlinks=follow_links)
    except OSError:
        if missing_ok:
            return 0, 0, 0, 0
        raise
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def stamp_of(files: Iterable[Path]) -> Stamp:
    """What changes whenever one of these files does: also where it was replaced by one of equal size and time.

    Waits for a tick of the clock where a file was changed just now, so that whatever follows gives another stamp.

    Raises:
        OSError: a file is not there or cannot be read.
    """
    files = list(files)
    stamp = _stamp(files)
    newest = max((entry[3] for entry in stamp), default=0) / 1e9
    if 0 <= time.time() - newest < TICK_S:
        time.sleep(TICK_S)
        stamp = _stamp(files)
    return stamp


def _stamp(files: list[Path]) -> Stamp:
    return [[file.name, *file_stamp(file, follow_links=True)] for file in files]


def open_stored(path: Path) -> BinaryIO:
    """Open a file of a checkpoint for reading; links to regular files are followed.

    Raises:
        CheckpointError: it is no regular file.
        OSError: it is not there, or cannot be read.
    """
    try:
        return open_regular(path, follow_links=True)
    except FileRefused as error:
        raise CheckpointError(error.message, help=error.help) from None


class StoredFile:
    """A regular file, open for reading at any place until it is closed or forgotten.

    Args:
        path: the file; links to regular files are followed.

    Raises:
        CheckpointError: it is no regular file.
        OSError: it is not there, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, open_stored(path)

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill a buffer from a place in the file.

        Raises:
            CheckpointError: the file ends before.
        """
        self._file.seek(start)
        done = 0
        while done < len(target):
            n = self._file.readinto(target[done:])  # type: ignore[attr-defined]
            if not n:
                raise CheckpointError(
                    f"{self.path.name} was truncated while it was read: it ends at byte {start + done}",
                    help="was the folder changed while it was measured?",
                )
            done += n

    def read(self, start: int, n_bytes: int) -> bytearray:
        """Bytes from a place in the file.

        Raises:
            CheckpointError: the file ends before.
        """
        data = bytearray(n_bytes)
        self.read_into(start, memoryview(data))
        return data

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __enter__(self) -> StoredFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StoredBytes:
    """The bytes of one tensor, which are read in pieces when they are wanted; `len` is their number.

    Args:
        file: where they are.
        start: the first of them.
        n_bytes: how many.
    """

    def __init__(self, file: StoredFile, start: int, n_bytes: int) -> None:
        self.file, self.start, self._n_bytes = file, start, n_bytes

    def __len__(self) -> int:
        return self._n_bytes

    def windows(self, window_bytes: int = WINDOW_BYTES) -> Iterator[UInt8[np.ndarray, " n"]]:
        """The bytes in order, in pieces that are valid until the next one is requested.

        Raises:
            CheckpointError: the file ends before.
        """
        buffer = np.empty(min(window_bytes, self._n_bytes), dtype=np.uint8)
        for done in range(0, self._n_bytes, window_bytes):
            window = buffer[: self._n_bytes - done]
            self.file.read_into(self.start + done, window.data)
            yield window


def windows_of(raw: Any, window_bytes: int = WINDOW_BYTES) -> Iterator[UInt8[np.ndarray, " n"]]:
    """The bytes of a stored tensor in pieces, whether they are in memory already or have to be read.

    Args:
        raw: an array of uint8, or what gives such pieces by its own `windows`, as `StoredBytes` does.
        window_bytes: the most of one piece.
    """
    if hasattr(raw, "windows"):
        yield from raw.windows(window_bytes)
        return
    for start in range(0, len(raw), window_bytes):
        yield raw[start : start + window_bytes]
