"""Open files that anybody may have made: regular files only, of a bounded size, and JSON of a bounded depth.

Checkpoint folders are published by strangers, and results folders are sent by colleagues. A pipe in them would make a
reader wait for ever, a device would never end, a link in a results folder could name any file of the reader's, and a
small file can describe an enormous one. Nothing here blocks, and nothing is read before its size is known.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from byrote.checkpoints.errors import ByroteError

MAX_JSON_BYTES = 64 << 20  # a run.json of 2,000 steps with its stimuli has 2 MB
MAX_JSON_DEPTH = 64
_WINDOW_BYTES = 1 << 20
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_WORDS: dict[type, str] = {dict: "object", list: "list"}


class FileRefused(ByroteError):
    """A file that is not what its name promises: no regular file, too large, too deep, or of another kind."""


def open_regular(path: Path, *, max_bytes: int | None = None, follow_links: bool = False) -> BinaryIO:
    """Open a file for reading, if it is a regular one.

    Args:
        path: the file.
        max_bytes: refuse a larger one; None reads any size.
        follow_links: accept a link to a regular file, as model hubs' caches and users' own folders have them. byrote
            writes no links, so that one in a results folder is refused.

    Raises:
        FileRefused: it is a link, a pipe, a device or a folder, or is too large.
        OSError: it is not there, or cannot be read.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    )
    if not follow_links:
        _refuse(path, os.lstat(path), max_bytes)
        flags |= getattr(os, "O_NOFOLLOW", 0)
    else:
        _refuse(path, path.stat(), max_bytes)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        _refuse(path, os.fstat(descriptor), max_bytes)  # another one may have taken its place
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path, *, max_bytes: int, follow_links: bool = False) -> bytes:
    """All bytes of a regular file.

    Raises:
        FileRefused: no regular file, or larger than `max_bytes`.
        OSError: it is not there, or cannot be read.
    """
    with open_regular(path, max_bytes=max_bytes, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)  # as many bytes as are requested are allocated before any is read
        while size < len(data) <= max_bytes and (more := file.read(_WINDOW_BYTES)):
            data += more
    if len(data) > max_bytes:
        raise _too_large(path, len(data), max_bytes)  # it grew meanwhile
    return data


def read_text(path: Path, *, max_bytes: int = MAX_JSON_BYTES, follow_links: bool = False) -> str:
    """A regular file as UTF-8 text.

    Raises:
        FileRefused: no regular file, or larger than `max_bytes`.
        OSError: it is not there, or cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    return read_bytes(path, max_bytes=max_bytes, follow_links=follow_links).decode("utf-8")


def read_json(
    path: Path,
    *,
    kind: type | None = dict,
    max_bytes: int = MAX_JSON_BYTES,
    max_values: int | None = None,
    follow_links: bool = False,
) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        kind: what it has to hold, an object or a list; None takes anything.
        max_bytes: refuse a larger file.
        max_values: refuse one with more commas and brackets, so that a large file cannot take many times its size; None
            takes any number.
        follow_links: see `open_regular`.

    Raises:
        FileRefused: no regular file, too large, not JSON, nested too deeply, or of another kind.
        OSError: it is not there, or cannot be read.
    """
    data = read_bytes(path, max_bytes=max_bytes, follow_links=follow_links)
    if max_values is not None and sum(map(data.count, (b",", b"[", b"{"))) > max_values:
        raise FileRefused(f"{path} holds more than {max_values:,} values")
    try:
        value = json.loads(data)
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:
        raise FileRefused(f"{path} cannot be read as JSON ({error})") from None
    if data.count(b"[") + data.count(b"{") > MAX_JSON_DEPTH and _depth_exceeds(value, MAX_JSON_DEPTH):
        raise _too_deep(path)
    if kind is not None and not isinstance(value, kind):
        raise FileRefused(f"{path} holds no JSON {_WORDS[kind]}, but {_what(value)}")
    return value


def read_toml(path: Path, *, max_bytes: int, follow_links: bool = False) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        FileRefused: no regular file, too large, not TOML, or nested too deeply.
        OSError: it is not there, or cannot be read.
    """
    try:
        return tomllib.loads(read_text(path, max_bytes=max_bytes, follow_links=follow_links))
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:  # no UTF-8, or no TOML
        if isinstance(error, FileRefused):
            raise
        raise FileRefused(f"{path} cannot be read as TOML ({error})") from None


def own_path(root: Path, *names: str) -> Path:
    """The path of one of byrote's own files, with no link on the way from its folder to it.

    Args:
        root: a folder that the user named; it may be reached by a link.
        names: of folders and, last, the file inside; what is not there yet is no error.

    Raises:
        FileRefused: one of them is a link.
    """
    path = root
    for name in names:
        path = path / name
        if path.is_symlink():
            raise FileRefused(
                f"{path} is a symbolic link; byrote follows none inside its folders",
                help="replace the link with the folder or file itself, or remove it",
            )
    return path


def _refuse(path: Path, found: os.stat_result, max_bytes: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = next((words for test, words in _KINDS if test(found.st_mode)), "something else")
        raise FileRefused(f"{path} is {what}, not a regular file", help="replace it with the file itself")
    if max_bytes is not None and found.st_size > max_bytes:
        raise _too_large(path, found.st_size, max_bytes)


def _too_large(path: Path, size: int, most: int) -> FileRefused:
    return FileRefused(f"{path} has {size:,} bytes; at most {most:,} are read of such a file")


def _too_deep(path: Path) -> FileRefused:
    return FileRefused(f"{path} is nested more than {MAX_JSON_DEPTH} levels deep")


def _depth_exceeds(value: Any, most: int) -> bool:
    level: Sequence[Any] = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _what(value: Any) -> str:
    word = _WORDS.get(type(value))
    return f"another kind of value: {json.dumps(value)[:40]}" if word is None else f"another kind: {word}"
