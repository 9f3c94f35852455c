"""Atomic writes, and the lock of a folder.

Everything is written under a temporary name in the same folder, ``.<name>.<process>-<count>.tmp``, and takes the place
of what was there by one rename. What a killed process leaves behind is removed by `remove_leftovers`, called by
whoever holds the folder's lock.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError

LOCK = ".lock"
_COUNT = itertools.count()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a file or folder, which takes its place when the block ends.

    Where the block raises, the temporary one is removed and `path` stays as it was. A folder can only take the place
    of nothing or of an empty folder.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_COUNT)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file whole.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    r"""Replace a file whole: UTF-8, lines end in ``\n`` on every system.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(
    path: Path, value: Any, *, indent: int | None = 1, sort_keys: bool = False, ensure_ascii: bool = True
) -> None:
    """Replace a JSON file whole.

    Raises:
        OSError: it cannot be written.
        ValueError: a NaN or an infinity, which JSON has no words for; what was not measured is null.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, allow_nan=False, ensure_ascii=ensure_ascii)
    write_text(path, text + "\n")


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files by name, so that it is there with all of them or not there at all.

    Raises:
        OSError: it cannot be written, or `path` is there and not empty.
    """
    with replacing(path) as temporary:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is one that a killed process left behind."""
    return name.startswith(".") and name.endswith(".tmp")


def leftovers(root: Path) -> list[Path]:
    """Temporary files and folders of killed processes, at any depth under a folder."""
    return sorted(root.rglob(".*.tmp"))


def remove_leftovers(root: Path) -> None:
    """Remove temporary files and folders of killed processes; only for who holds the lock of the folder.

    Raises:
        OSError: one of them cannot be removed.
    """
    for path in leftovers(root):
        remove(path)


@contextmanager
def locked(
    file: Path, *, busy: ByroteError, refused: Callable[[OSError], ByroteError], wait: bool = False
) -> Iterator[None]:
    """Hold a lock file for the length of a block; a process that ends, however it ends, releases it.

    Args:
        file: the lock file; made where it is missing, and left there.
        busy: raised where another process holds it.
        refused: makes the error for a file that cannot be opened or locked.
        wait: wait until it is free, instead of raising `busy`.

    Raises:
        ByroteError: `busy`, or what `refused` makes.
    """
    from filelock import FileLock, Timeout  # 0.1 s to import

    lock = FileLock(file, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise busy from None
    except OSError as error:
        raise refused(error) from None
    try:
        yield
    finally:
        lock.release()


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
