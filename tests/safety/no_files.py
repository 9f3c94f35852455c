"""What may stand where a regular file is expected."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_folder(path: Path) -> None:
    path.mkdir()


NO_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": put_pipe,
    "device": put_device,
    "folder": put_folder,
}
