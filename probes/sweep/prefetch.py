"""Fingerprints of checkpoints: the next step's bytes are read and hashed while this one is measured. No torch.

Hashing touches every byte, so when it is done the files lie in the page cache and loading them is a memory copy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from byrote.checkpoints.atomic import append, write_json
from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.fingerprint import content_of, files_of
from byrote.checkpoints.safe_read import FileRefused, read_json
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.stored_bytes import Stamp, stamp_of
from byrote.checkpoints.zeros import Zeros, doubtful_zeros
from byrote.probes.wording import visible_json

MAX_LOADS = 3  # of a checkpoint whose files keep being touched
_Loaded = TypeVar("_Loaded")


class Clock:
    """Notes what took when, in seconds since the sweep began.

    Args:
        file: gets each note as a line of JSON as soon as it is made; several processes may write to one file.
        run: the name in these lines.
    """

    def __init__(self, file: Path | None = None, run: str = "") -> None:
        self.trace: list[dict[str, Any]] = []
        self._file, self._run = file, run
        self._zero = time.monotonic()

    @contextmanager
    def time(self, what: str, step: int) -> Iterator[None]:
        """Note the length of a block."""
        start = time.monotonic() - self._zero
        try:
            yield
        finally:
            end = time.monotonic() - self._zero
            row = {"what": what, "step": step, "start_s": round(start, 4), "end_s": round(end, 4)}
            self.trace.append(row)
            if self._file is not None:
                append(self._file, f"{visible_json({'run': self._run, **row})}\n".encode())


@dataclass(frozen=True)
class Known:
    """What a checkpoint held when its files had this stamp."""

    stamp: Stamp
    fingerprint: str
    zeros: Zeros

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as cached, with their own hash: a flipped bit would give units another identity."""
        zeros = {"zeros": self.zeros.to_json()} if self.zeros.names else {}
        values = {"stamp": self.stamp, "fingerprint": self.fingerprint, **zeros}
        return {**values, "check": _check(values)}

    @classmethod
    def from_json(cls, data: Any) -> Known | None:
        """The inverse of `to_json`; None for anything else, such as what earlier versions cached."""
        if not isinstance(data, dict) or data.get("check") != _check(data):
            return None
        try:
            zeros = Zeros.from_json(data["zeros"]) if "zeros" in data else Zeros()
            stamp, identity = data["stamp"], data["fingerprint"]
        except (LookupError, TypeError):
            return None
        return cls(stamp, identity, zeros) if isinstance(identity, str) and isinstance(stamp, list) else None


def _check(values: dict[str, Any]) -> str:
    """Hash of cached values, less what `check` says."""
    text = json.dumps({name: value for name, value in values.items() if name != "check"}, sort_keys=True)
    return xxhash.xxh3_64(text.encode()).hexdigest()


class Fingerprints:
    """Fingerprints of checkpoints, reused while size, times and inode of their files stand.

    Args:
        path: the file they are cached in.
        clock: notes when each read happened.
        ahead: whether the following checkpoint is read in a thread.
        rehash: read every byte again, whatever is cached.
    """

    def __init__(
        self, path: Path, clock: Clock | None = None, *, ahead: bool = False, rehash: bool = False
    ) -> None:
        self.path, self.clock, self.changed = path, clock or Clock(), False
        self._pool = ThreadPoolExecutor(1, "byrote-prefetch") if ahead else None
        self._coming: dict[str, Future[Known]] = {}
        self._before: Zeros | None = None
        self._cached = {} if rehash else _stored(path)
        self._resolved: dict[Path, str] = {}

    def cached(self, checkpoint: Checkpoint) -> str | None:
        """The fingerprint of a checkpoint whose files are as they were when it was read; else None.

        Raises:
            CheckpointError: the files can no longer be read.
        """
        known = self._cached.get(self._key(checkpoint))
        return known.fingerprint if known and known.stamp == _stamp(checkpoint) else None

    def of(
        self,
        checkpoint: Checkpoint,
        *,
        then: Checkpoint | None = None,
        among: CheckpointSeries | None = None,
    ) -> str:
        """Fingerprint of a checkpoint, asked for in step order; starts reading `then`, the next one, meanwhile.

        Args:
            checkpoint: which.
            then: the next one that is asked for.
            among: the series whose parts are asked for; None where all of it is, one after another.

        Raises:
            CheckpointError: a file that is not what it claims to be (of `then`: when it is requested), or tensors of
                nothing but zeros that are doubted; see `byrote.checkpoints.zeros`.
        """
        known = self._known(checkpoint)
        if self._pool is not None and then is not None and not self._needs_no_reading(then):
            self._coming.setdefault(self._key(then), self._pool.submit(self._read, then))
        before, after = self._before, then
        if among is not None and known.zeros.names:
            before, after = self._beside(checkpoint, among)
        doubted = doubtful_zeros(known.zeros, before=before, after=lambda: self._zeros(after))
        if doubted:
            names = ", ".join(doubted[:3]) + (", ..." if len(doubted) > 3 else "")
            raise CheckpointError(
                f"{len(doubted)} tensors of step {checkpoint.step} hold nothing but zeros, and those of its neighbours "
                f"do not ({names})",
                help="the file is still being written, or damaged: wait, or copy it again, then run the same command",
            )
        self._before = known.zeros
        return known.fingerprint

    def read(self, checkpoint: Checkpoint) -> None:
        """Hash a checkpoint before its turn, so that it may be `loaded`.

        Raises:
            CheckpointError: a file that is not what it claims to be.
        """
        self._known(checkpoint)

    def loaded(self, checkpoint: Checkpoint, load: Callable[[], _Loaded]) -> _Loaded:
        """What `load` returns, from the very files that were hashed: they are compared again when it has returned.

        Raises:
            CheckpointError: they were changed in between.
        """
        for _ in range(MAX_LOADS):
            hashed, loaded = self._cached[self._key(checkpoint)].fingerprint, load()
            if self.cached(checkpoint) is not None:
                return loaded
            if self._known(checkpoint).fingerprint != hashed:  # else they were only touched: load them again
                break
        raise CheckpointError(
            f"the files of step {checkpoint.step} were changed while they were measured",
            help="is training still writing them? Run the same command again to measure the new files",
        )

    def close(self, *, beside_others: bool = False) -> None:
        """Stop reading ahead and store what was learned.

        Args:
            beside_others: keep what others have stored meanwhile.
        """
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self.changed:
            there = _stored(self.path) if beside_others else {}
            cached = {key: known.to_json() for key, known in (there | self._cached).items()}
            write_json(self.path, cached, indent=None, sort_keys=True)

    def _key(self, checkpoint: Checkpoint) -> str:
        """The first weight file, and where in it the step is: several may lie in one folder, or in one file."""
        file = checkpoint.files[0] if checkpoint.files else checkpoint.path
        if file not in self._resolved:
            self._resolved[file] = str(file.resolve())
        return self._resolved[file] + "".join(f"#{key}" for key in checkpoint.inside)

    def _known(self, checkpoint: Checkpoint) -> Known:
        """What its files hold, by the cache where they are as they were."""
        key = self._key(checkpoint)
        if self.cached(checkpoint) is None:
            coming = self._coming.pop(key, None)
            self._cached[key] = coming.result() if coming else self._read(checkpoint)
            self.changed = True
        return self._cached[key]

    def _beside(
        self, checkpoint: Checkpoint, among: CheckpointSeries
    ) -> tuple[Zeros | None, Checkpoint | None]:
        """Zeros of the nearest checkpoint before that can be read and is a model, and the next checkpoint."""
        at = among.steps.index(checkpoint.step)
        earlier = (self._zeros(one) for one in reversed(among[:at]))
        before = next((zeros for zeros in earlier if zeros is not None and not zeros.all), None)
        return before, among[at + 1] if at + 1 < len(among) else None

    def _zeros(self, checkpoint: Checkpoint | None) -> Zeros | None:
        try:
            return None if checkpoint is None else self._known(checkpoint).zeros
        except CheckpointError:
            return None  # that is said when its turn comes

    def _needs_no_reading(self, checkpoint: Checkpoint) -> bool:
        try:
            return self.cached(checkpoint) is not None
        except CheckpointError:
            return True  # gone: that is said when its turn comes

    def _read(self, checkpoint: Checkpoint) -> Known:
        with self.clock.time("read", checkpoint.step):
            content = content_of(checkpoint)
        # Of a step on the hub, which is only here while it is needed, there are no files to compare.
        stamp = content.stamp if checkpoint.files else _stamp(checkpoint)
        return Known(stamp, content.fingerprint, content.zeros)


def _stored(path: Path) -> dict[str, Known]:
    """What is cached in a file; nothing where it cannot be read, and then everything is read again."""
    with suppress(OSError, ValueError, FileRefused):
        found = {key: Known.from_json(value) for key, value in read_json(path).items()}
        return {key: known for key, known in found.items() if known is not None}
    return {}


def _stamp(checkpoint: Checkpoint) -> Stamp:
    try:
        return stamp_of(files_of(checkpoint))
    except OSError as error:
        raise CheckpointError(
            f"the files of step {checkpoint.step} can no longer be read ({error.strerror or error})",
            help="was the folder changed while it was measured?",
        ) from error
