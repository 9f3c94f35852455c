"""Writes that a kill cannot tear: a temporary name in the same folder, then one rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError

TEMPORARY = ".tmp-"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file whole.

    Raises:
        ByroteError: the folder cannot be written to, or the disk is full.
    """
    with _explained(path):
        temporary = path.with_name(TEMPORARY + path.name)
        temporary.write_bytes(data)
        temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file whole; NaN and infinity are refused, since JSON has neither."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Create a folder with these files, so that it is either there with all of them or not there.

    Raises:
        ByroteError: the parent cannot be written to, or the disk is full.
    """
    with _explained(path):
        temporary = path.with_name(TEMPORARY + path.name)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.replace(path)


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    Raises:
        ByroteError: another process trains in this folder now.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; two trainings in one folder are then not caught
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ByroteError(
                f"another process is training in {folder}", help="wait for it, or choose another folder"
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ByroteError(
            f"cannot write {path}: {error.strerror or error}",
            help="make room or choose another folder; the same command goes on from the last written step",
        ) from error
