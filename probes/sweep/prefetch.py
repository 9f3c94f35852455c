"""Fingerprints of checkpoints: the next step's bytes are read and hashed while this one is measured. No torch.

Hashing touches every byte, so when it is done the files lie in the page cache and loading them is a memory copy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import write_json
from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.series import Checkpoint


class Clock:
    """Notes what took when, in seconds since the sweep began."""

    def __init__(self) -> None:
        self.trace: list[dict[str, Any]] = []
        self._zero = time.monotonic()

    @contextmanager
    def time(self, what: str, step: int) -> Iterator[None]:
        """Note the length of a block."""
        start = time.monotonic() - self._zero
        try:
            yield
        finally:
            end = time.monotonic() - self._zero
            self.trace.append(
                {"what": what, "step": step, "start_s": round(start, 4), "end_s": round(end, 4)}
            )


class Fingerprints:
    """Hashes of tensors and configs by file, reused while a file's size and modification time stand.

    Args:
        path: the file they are cached in.
        clock: notes when each read happened.
        ahead: whether the following checkpoint is read in a thread.
    """

    def __init__(self, path: Path, clock: Clock | None = None, *, ahead: bool = False) -> None:
        self.path, self.clock, self.changed = path, clock or Clock(), False
        self._pool = ThreadPoolExecutor(1, "byrote-prefetch") if ahead else None
        self._coming: dict[str, Future[tuple[list[Any], dict[str, str]]]] = {}
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        self.known: dict[str, Any] = known if isinstance(known, dict) else {}

    def hashes(self, checkpoint: Checkpoint) -> dict[str, str] | None:
        """Hashes of a checkpoint if its files are as they were, else None."""
        known = self.known.get(_key(checkpoint))
        return known["hashes"] if known and known["stamp"] == _stamp(checkpoint) else None

    def of(self, checkpoint: Checkpoint, *, then: Checkpoint | None = None) -> str:
        """Fingerprint of a checkpoint; starts reading `then` meanwhile.

        Raises:
            CheckpointError: a file that is not what it claims to be (of `then`: when it is requested).
        """
        hashes = self.hashes(checkpoint)
        if hashes is None:
            coming = self._coming.pop(_key(checkpoint), None)
            stamp, hashes = coming.result() if coming else self._read(checkpoint)
            self.known[_key(checkpoint)] = {"stamp": stamp, "hashes": hashes}
            self.changed = True
        if self._pool is not None and then is not None and not self._needs_no_reading(then):
            self._coming[_key(then)] = self._pool.submit(self._read, then)
        return fingerprint(hashes)

    def close(self) -> None:
        """Stop reading ahead and keep what was learned."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self.changed:
            write_json(self.path, self.known, indent=2, sort_keys=True)

    def _needs_no_reading(self, checkpoint: Checkpoint) -> bool:
        try:
            return self.hashes(checkpoint) is not None
        except CheckpointError:
            return True  # gone: that is said when its turn comes

    def _read(self, checkpoint: Checkpoint) -> tuple[list[Any], dict[str, str]]:
        with self.clock.time("read", checkpoint.step):
            stamp = _stamp(checkpoint)  # before reading: a file changed meanwhile is read again next time
            try:
                return stamp, model_hashes(checkpoint)
            except OSError as error:
                raise _unreadable(checkpoint, error) from error


def _key(checkpoint: Checkpoint) -> str:
    """The first weight file: several steps may lie in one folder."""
    return str((checkpoint.files[0] if checkpoint.files else checkpoint.path).resolve())


def _stamp(checkpoint: Checkpoint) -> list[Any]:
    files = [*checkpoint.files, *([checkpoint.config_path] if checkpoint.config_path else [])]
    try:
        return [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
    except OSError as error:
        raise _unreadable(checkpoint, error) from error


def _unreadable(checkpoint: Checkpoint, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"the files of step {checkpoint.step} can no longer be read ({error.strerror or error})",
        help="was the folder changed while it was measured?",
    )
