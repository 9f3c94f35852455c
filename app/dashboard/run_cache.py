"""Answers kept with the run they are about: worked out once for all users, gone when the run is read anew. No Streamlit."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Keeper:
    """What a run needs to hold answers; mixed into `SavedRun`."""

    def __init__(self) -> None:
        self._answers: dict[str, OrderedDict[Hashable, Any]] = {}
        self._lock = threading.Lock()

    def answers_key(self) -> Hashable:
        """What stands for this run in the key of another's answer."""
        raise NotImplementedError

    def find(self, name: str, key: Hashable) -> tuple[Any] | None:
        """The kept answer, in a tuple of one."""
        with self._lock:
            held = self._answers.get(name)
            if held is None or key not in held:
                return None
            held.move_to_end(key)
            return (held[key],)

    def keep(self, name: str, key: Hashable, answer: Any, *, most: int) -> None:
        """Keep an answer, and let go of the one that was asked for longest ago."""
        with self._lock:
            held = self._answers.setdefault(name, OrderedDict())
            held[key] = answer
            while len(held) > most:
                held.popitem(last=False)


def run_cache(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `functools.lru_cache`, for functions whose first argument is a run; the answers must not be changed.

    A running sweep makes a new run of every look at its folder. A cache beside the function would hold on to all of
    them; this one goes with the run, and other runs among the arguments are told apart by what they were read from.

    Args:
        most: answers kept per run.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            run: Any = args[0]
            key = (_key(args[1:]), _key(tuple(sorted(kwargs.items()))))
            found = run.find(name, key)
            if found is not None:
                return found[0]
            answer = function(*args, **kwargs)
            run.keep(name, key, answer, most=most)
            return answer

        return call

    return wrap


def _key(value: Any) -> Hashable:
    if isinstance(value, Keeper):
        return value.answers_key()
    return tuple(map(_key, value)) if isinstance(value, tuple) else value
