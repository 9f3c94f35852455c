"""Reading ahead: the next step's bytes are read and hashed while this one is measured. No torch.

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


class FingerprintCache:
    """Hashes of tensors and configs by file, reused while a file's size and modification time stand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = {}
        self.changed = False
        if path.is_file():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
                self.known = known if isinstance(known, dict) else {}
            except ValueError:
                self.known = {}

    def of(self, checkpoint: Checkpoint) -> dict[str, str] | None:
        """Hashes of a checkpoint if its files are as they were, else None."""
        known = self.known.get(_key(checkpoint))
        return known["hashes"] if known and known["stamp"] == _stamp(checkpoint) else None

    def put(self, checkpoint: Checkpoint, stamp: list[Any], hashes: dict[str, str]) -> None:
        """Remember the hashes of files as they were at `stamp`."""
        self.known[_key(checkpoint)] = {"stamp": stamp, "hashes": hashes}
        self.changed = True

    def save(self) -> None:
        """Write the cache when it changed."""
        if self.changed:
            write_json(self.path, self.known, indent=2, sort_keys=True)


class Prefetcher:
    """Fingerprints of checkpoints, the following one's computed in a thread.

    Args:
        cache: of fingerprints.
        clock: notes when each read happened.
        enabled: False reads each checkpoint only when it is asked for.
    """

    def __init__(self, cache: FingerprintCache, clock: Clock, *, enabled: bool) -> None:
        self.cache, self.clock = cache, clock
        self._pool = ThreadPoolExecutor(1, "byrote-prefetch") if enabled else None
        self._coming: dict[str, Future[tuple[list[Any], dict[str, str]]]] = {}

    def fingerprint(self, checkpoint: Checkpoint, *, then: Checkpoint | None = None) -> str:
        """Fingerprint of a checkpoint; starts reading `then` meanwhile.

        Raises:
            CheckpointError: a file that is not what it claims to be (of `then`: when it is asked for).
        """
        hashes = self.cache.of(checkpoint)
        if hashes is None:
            coming = self._coming.pop(_key(checkpoint), None)
            stamp, hashes = coming.result() if coming else self._read(checkpoint)
            self.cache.put(checkpoint, stamp, hashes)
        if self._pool is not None and then is not None and not self._needs_no_reading(then):
            self._coming[_key(then)] = self._pool.submit(self._read, then)
        return fingerprint(hashes)

    def close(self) -> None:
        """Stop reading ahead and keep what was learned."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self.cache.save()

    def _needs_no_reading(self, checkpoint: Checkpoint) -> bool:
        try:
            return self.cache.of(checkpoint) is not None
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
