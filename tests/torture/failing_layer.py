"""A file layer whose calls fail, once or from some call on, as those of a disk that is full, broken or not ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from byrote.checkpoints import atomic

FAULTS = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES")


class FailingLayer(atomic.FileLayer):
    """The layer, of which one call fails.

    Args:
        at: which call, from 1.
        fault: name of the error, such as ENOSPC.
        for_ever: whether all later calls fail too.

    Attributes:
        calls: how many there were.
        failed: what failed first.
    """

    def __init__(self, at: int, fault: str, *, for_ever: bool) -> None:
        self.at, self.fault, self.for_ever = at, getattr(errno, fault), for_ever
        self.calls, self.failed = 0, ""

    def _reached(self, call: str, path: Path) -> bool:
        self.calls += 1
        fails = self.calls == self.at or (self.for_ever and self.calls > self.at)
        if fails and not self.failed:
            self.failed = f"{call} {path.name}"
        return fails

    def _error(self, path: Path) -> OSError:
        return OSError(self.fault, os.strerror(self.fault), str(path))

    def create(self, path: Path, data: Any) -> None:
        if self._reached("create", path):
            if self.fault in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                super().create(path, bytes(data)[: len(data) // 2])  # the room went as far as that
            raise self._error(path)
        super().create(path, data)

    def append(self, path: Path, data: Any) -> None:
        if self._reached("append", path):
            if self.fault in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                super().append(path, bytes(data)[: len(data) // 2])
            raise self._error(path)
        super().append(path, data)

    def make_folder(self, path: Path) -> None:
        if self._reached("make_folder", path):
            raise self._error(path)
        super().make_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        if self._reached("rename", target):
            raise self._error(target)
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        if self._reached("unlink", path):
            raise self._error(path)
        super().unlink(path)

    def remove_folder(self, path: Path) -> None:
        if self._reached("remove_folder", path):
            raise self._error(path)
        super().remove_folder(path)

    def sync(self, path: Path) -> None:
        if self._reached("sync", path):
            raise self._error(path)
        super().sync(path)
