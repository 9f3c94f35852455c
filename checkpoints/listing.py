"""Folders listed once while a series is opened: every format that could read it asks for the same names.

Only inside `listed_once`: a series that is still being trained gets folders at any time, and the next look must see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_seen: ContextVar[dict[Any, Any] | None] = ContextVar("seen", default=None)


@contextmanager
def listed_once() -> Iterator[None]:
    """Within the block, what a `cached_listing` function finds is looked up once for the same arguments."""
    if _seen.get() is not None:
        yield
        return
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def cached_listing(function: Callable[P, R]) -> Callable[P, R]:
    """A function of paths whose results hold for the whole of a `listed_once` block; nobody may change what it gives."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        seen = _seen.get()
        if seen is None or kwargs:
            return function(*args, **kwargs)
        key = (function.__module__, function.__qualname__, args)
        if key not in seen:
            seen[key] = function(*args, **kwargs)
        found: R = seen[key]
        return found

    return call


@cached_listing
def children(folder: Path) -> list[Path]:
    """What a folder holds, by name.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(folder.iterdir(), key=lambda child: child.name)
