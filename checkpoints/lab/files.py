"""Files of a series in training: written whole, every failure said with the way out; and the lock of its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from byrote.checkpoints import atomic
from byrote.checkpoints.errors import ByroteError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file whole.

    Raises:
        ByroteError: the folder cannot be written to, or the disk is full.
    """
    with _explained(path):
        atomic.write_bytes(path, data)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file whole; NaN and infinity are refused, since JSON has neither."""
    with _explained(path):
        atomic.write_json(path, value)


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Create a folder with these files, so that it is either there with all of them or not there.

    Raises:
        ByroteError: the parent cannot be written to, or the disk is full.
    """
    with _explained(path):
        atomic.write_folder(path, files)


def make_folder(path: Path) -> None:
    """Create a folder and its parents where they are missing.

    Raises:
        ByroteError: it cannot be created.
    """
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none.

    Raises:
        ByroteError: it cannot be removed.
    """
    with _explained(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    Raises:
        ByroteError: another process trains in this folder now, or it cannot be written to.
    """
    return atomic.locked(
        folder / atomic.LOCK,
        busy=ByroteError(
            f"another process is training in {folder}", help="wait for it, or choose another folder"
        ),
        refused=lambda error: _cannot_write(folder, error),
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> ByroteError:
    return ByroteError(
        f"cannot write {path}: {error.strerror or error}",
        help="make room or choose another folder; the same command goes on from the last written step",
    )
