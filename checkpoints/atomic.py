"""Atomic writes that survive a power cut, and the lock of a folder.

Everything is written under a temporary name in the same folder, ``.<name>.<process>-<host>-<count>.tmp``, synced to the disk,
and takes the place of what was there by one rename, after which the folder is synced. So a file is there whole, or as it
was before; what was reported as written is still there after a power cut. What a killed process leaves behind is removed
by `remove_leftovers`, called by whoever holds the folder's lock.

``BYROTE_SYNC=0`` leaves the syncing out, for those who can afford to measure again what a power cut takes.

A lock ends with its process, which the system sees to. On a file system of a network, a machine that dies may leave one
behind that nobody releases: so a holder touches its lock file every `BEAT_S` seconds, and one that was not touched for
`DEAD_S`, by the clock of that file system, is replaced by whoever needs it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError

LOCK = ".lock"
SYNC_VARIABLE = "BYROTE_SYNC"
BEAT_S, DEAD_S = (
    10.0,
    120.0,
)  # a holder touches its lock so often; one untouched for so long is of a machine that died
_LOOK_AGAIN_S = 1.0
_OFF = frozenset({"0", "off", "no", "false"})
_COUNT = itertools.count()
_HOST = (
    f"{zlib.crc32(socket.gethostname().encode()):08x}"  # several machines may have processes of one number
)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS})


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """An OSError of a file that is open, such as of a full disk, names no file: say which one it was."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class FileLayer:
    """Every call by which byrote changes a disk. A test puts a layer in its place that records, or that fails."""

    def create(self, path: Path, data: bytes | memoryview) -> None:
        """Write a new file; one that is there already, as a link or otherwise, is an error."""
        with _of(path), os.fdopen(os.open(path, _NEW, 0o666), "wb") as file:
            file.write(data)

    def append(self, path: Path, data: bytes) -> None:
        """Add to the end of a file, made where it is missing; a link is an error."""
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
        with _of(path), os.fdopen(os.open(path, flags, 0o666), "ab") as file:
            file.write(data)

    def make_folder(self, path: Path) -> None:
        """Create one folder."""
        path.mkdir()

    def rename(self, source: Path, target: Path) -> None:
        """Put a file, or a folder where none or an empty one is, in the place of another."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file or a link."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def restrict(self, path: Path) -> None:
        """Leave a file or folder to its owner alone."""
        path.chmod(0o700 if path.is_dir() else 0o600)

    def sync(self, path: Path) -> None:
        """Wait until a file's bytes, or a folder's entries, are on the disk."""
        is_folder = path.is_dir()
        if is_folder and os.name == "nt":
            return  # Windows opens no folder; its rename is on the disk when it returns
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            with _of(path):
                os.fsync(descriptor)
        except OSError as error:
            if not is_folder or error.errno not in _NO_FOLDER_SYNC:
                raise  # some network file systems have no sync of folders, and say so
        finally:
            os.close(descriptor)


layer: FileLayer = FileLayer()
_pending: ContextVar[dict[Path, None] | None] = ContextVar("folders to sync", default=None)


def syncing() -> bool:
    """Whether writes wait for the disk: always, unless ``BYROTE_SYNC`` turns it off."""
    return os.environ.get(SYNC_VARIABLE, "").lower() not in _OFF


@contextmanager
def folders_synced_once() -> Iterator[None]:
    """Sync the folders that are written in this block when it ends, each once, instead of after every file.

    Files are synced as ever before they take their names; a power cut inside the block can cost whole files of it.
    """
    if _pending.get() is not None:
        yield
        return
    token = _pending.set({})
    try:
        yield
    finally:
        folders = list(_pending.get() or ())
        _pending.reset(token)
        for folder in folders:
            with suppress(FileNotFoundError):  # removed again within the block
                layer.sync(folder)


@contextmanager
def explained_writes(place: Path) -> Iterator[None]:
    """Say of a file or folder that it cannot be written, and what to do.

    Raises:
        ByroteError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ByroteError(
            f"cannot write {place} ({error.strerror or error})", help="make room, or choose another place"
        ) from None


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Replace a file whole.

    Raises:
        OSError: it cannot be written, or the disk is full.
    """
    with _replacing(path) as temporary:
        layer.create(temporary, data)


def write_text(path: Path, text: str) -> None:
    r"""Replace a file whole: UTF-8, lines end in ``\n`` on every system.

    What is no UTF-8, such as a byte of a folder's name, is written as JSON escapes it: ``\udce9``.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


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


def write_private_text(path: Path, text: str) -> None:
    """Replace a file whole, in a folder that nobody else may enter; nobody else may read it either.

    Raises:
        OSError: it cannot be written.
    """
    write_text(path, text)
    layer.restrict(path)


def write_private_json(path: Path, value: Any) -> None:
    """The same for JSON.

    Raises:
        OSError: it cannot be written.
        ValueError: a NaN or an infinity.
    """
    write_private_text(path, json.dumps(value, allow_nan=False) + "\n")


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files by name, so that it is there with all of them or not there at all.

    Raises:
        OSError: it cannot be written, or `path` is there and not empty.
    """
    with _replacing(path) as temporary:
        layer.make_folder(temporary)
        for name, data in files.items():
            layer.create(temporary / name, data)
            if syncing():
                layer.sync(temporary / name)


def append(path: Path, data: bytes) -> None:
    """Add to the end of a log. It is not synced: a reader has to expect that the last lines are missing or cut.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    layer.append(path, data)


def sync(path: Path) -> None:
    """Wait until what was appended to a log is on the disk; nothing happens where there is no log.

    Raises:
        OSError: it cannot be synced.
    """
    if syncing() and path.is_file():
        layer.sync(path)


def make_folder(path: Path) -> None:
    """Create a folder and those above it; one that is there is left as it is.

    Raises:
        OSError: it cannot be made, or a file has that name.
    """
    missing = list(itertools.takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    for folder in reversed(missing):
        try:
            layer.make_folder(folder)
        except FileExistsError:
            if not folder.is_dir():
                raise
        _sync_folder(folder.parent)


def make_private_folder(path: Path) -> None:
    """Create a folder, and those above it, that nobody but its owner may enter; one that is there is left as it is.

    Raises:
        OSError: it cannot be made, or a file has that name.
    """
    if not path.is_dir():
        make_folder(path)
        layer.restrict(path)


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name; a file takes the place of what has it.

    Raises:
        OSError: it cannot be moved, or a folder that is not empty has that name.
    """
    layer.rename(source, target)
    _sync_folder(target.parent)
    if source.parent != target.parent:
        _sync_folder(source.parent)


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


def remove_leftovers_of(path: Path) -> None:
    """Remove what killed processes left of writing one file; for a file in a folder that has no lock.

    Raises:
        OSError: one of them cannot be removed.
    """
    begin = f".{path.name}."
    for left in path.parent.glob("*.tmp"):
        process, _, rest = left.name.removeprefix(begin).partition("-")
        here = rest.startswith(f"{_HOST}-") or "-" not in rest
        numbered = left.name.startswith(begin) and process.isascii() and process.isdigit()
        if numbered and here and not _runs(int(process)):
            remove(left)


def _runs(process: int) -> bool:
    """Whether there is such a process; one that is not ours counts, and where nobody can tell, it is assumed."""
    if os.name == "nt":
        return True  # there, signal 0 would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def locked(
    file: Path, *, busy: ByroteError, refused: Callable[[OSError], ByroteError], wait_s: float = 0
) -> Iterator[None]:
    """Hold a lock file for the length of a block; a process that ends, however it ends, releases it.

    Nothing is ever written to the file, and no link is followed to it. While it is held, its time is kept current.

    Args:
        file: the lock file; made where it is missing, and left there.
        busy: raised where another process holds it.
        refused: makes the error for a file that cannot be opened or locked.
        wait_s: how long it is waited for before `busy` is raised; `math.inf` waits until it is free.

    Raises:
        ByroteError: `busy`, or what `refused` makes.
    """
    from filelock import Timeout  # 0.1 s to import

    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise refused(
            OSError(errno.EINVAL, f"{file.name} is a symbolic link, a pipe or a folder, not a regular file")
        )
    try:
        lock = _acquired(file, wait_s)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise refused(error) from None
    try:
        with _beating(file):
            yield
    finally:
        lock.release()


def _acquired(file: Path, wait_s: float) -> Any:
    """The lock, once it is held; one that a dead machine left is replaced."""
    from filelock import FileLock, Timeout

    lock, last = FileLock(file), time.monotonic() + wait_s
    while True:
        try:
            lock.acquire(timeout=max(0.0, min(_LOOK_AGAIN_S, last - time.monotonic())), poll_interval=0.02)
            return lock
        except Timeout:
            if _is_abandoned(file):
                layer.unlink(file)
            elif time.monotonic() >= last:
                raise


@contextmanager
def _beating(file: Path) -> Iterator[None]:
    """Touch a file that is held for as long as the block runs and the file is the one that was there."""
    ended, mine = threading.Event(), file.lstat().st_ino

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with suppress(OSError):
                if file.lstat().st_ino != mine:
                    return
                os.utime(file)

    with suppress(OSError):
        os.utime(file)
    beating = threading.Thread(target=beat, name="byrote-lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()


def _is_abandoned(file: Path) -> bool:
    """Whether a lock that is held was last touched long ago, by a process that is not of this machine."""
    try:
        touched = file.stat().st_mtime_ns
        if _is_locked_here(file) or (_now_ns(file) - touched) / 1e9 < DEAD_S:
            return False
        time.sleep(_LOOK_AGAIN_S)  # it may have been acquired this very moment
        return file.stat().st_mtime_ns == touched
    except OSError:
        return False  # nobody can tell


def _is_locked_here(file: Path) -> bool:
    """Whether a process of this machine holds it, where the system lists its locks."""
    try:
        held = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        return any(line.split()[-3].endswith(f":{file.stat().st_ino}") for line in held)
    except (OSError, ValueError, IndexError):
        return False


def _now_ns(file: Path) -> int:
    """The time by the clock that the times of a file are of, which may be another machine's."""
    probe = file.with_name(f".{file.name}.{os.getpid()}-{_HOST}-{next(_COUNT)}.tmp")
    os.close(os.open(probe, _NEW, 0o600))
    try:
        return probe.stat().st_mtime_ns
    finally:
        probe.unlink()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds; links are removed, never followed. Nothing happens where there is none.

    Raises:
        OSError: it cannot be removed.
    """
    if os.path.lexists(path):
        _remove(path)
        _sync_folder(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            _remove(entry)
        layer.remove_folder(path)
    else:
        with suppress(FileNotFoundError):
            layer.unlink(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a file or folder, which takes its place when the block ends.

    Where the block raises, the temporary one is removed and `path` stays as it was. A folder can only take the place
    of nothing or of an empty folder.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{_HOST}-{next(_COUNT)}.tmp")
    try:
        yield temporary
        if syncing():
            layer.sync(temporary)
        layer.rename(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # a disk that refuses this too must not hide why
            _remove(temporary)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if not syncing():
        return
    pending = _pending.get()
    if pending is None:
        layer.sync(folder)
    else:
        pending[folder] = None
