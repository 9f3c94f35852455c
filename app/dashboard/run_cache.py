"""Answers cached with the results they are about: worked out once for all users, gone when a run is read anew. No Streamlit."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, ref

from byrote.probes.results import Results

P = ParamSpec("P")
R = TypeVar("R")
_ANSWERS: WeakKeyDictionary[Any, dict[str, OrderedDict[Hashable, Any]]] = WeakKeyDictionary()
_LOCK = threading.Lock()
_NUMBERS = itertools.count()


def run_cache(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `functools.lru_cache`, for functions whose first argument is a run's results; the answers must not be changed.

    A running sweep makes new results of every look at its folder. A cache beside the function would hold on to all of
    them; this one goes with the results, and other results among the arguments are known by weak references.

    Args:
        most: answers cached per run.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            key = (_key(args[1:]), _key(tuple(sorted(kwargs.items()))))
            with _LOCK:
                answers = _ANSWERS.setdefault(args[0], {}).setdefault(name, OrderedDict())
                if key in answers:
                    answers.move_to_end(key)
                    return answers[key]
            answer = function(*args, **kwargs)
            with _LOCK:
                answers[key] = answer
                while len(answers) > most:
                    answers.popitem(last=False)
            return answer

        return call

    return wrap


@run_cache(1)
def number_of(run: Results) -> int:
    """A number that no other results have in this process: what the browser knows a series by."""
    return next(_NUMBERS)


def _key(value: Any) -> Hashable:
    if isinstance(value, Results):
        return ref(value)
    return tuple(map(_key, value)) if isinstance(value, tuple) else value
