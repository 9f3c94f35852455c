"""Results by their paths: what takes the results of a run takes the folder they are in as well. No torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from byrote.checkpoints.errors import ByroteError

F = TypeVar("F", bound=Callable[..., Any])


def opened(value: Any) -> Any:
    """Results for a path, and a list of them for a list of paths; anything else as it is.

    Raises:
        ByroteError: a path is not a results folder; or checkpoints, which were not measured.
    """
    from byrote.checkpoints.series import CheckpointSeries
    from byrote.probes.results.metric import Results

    if isinstance(value, str | Path):
        return Results.open(value)
    if isinstance(value, CheckpointSeries):
        raise ByroteError(
            f"{value.path} holds checkpoints, not results",
            help="measure them first: results = br.measure(series)",
        )
    if isinstance(value, list | tuple) and any(isinstance(one, str | Path) for one in value):
        return [opened(one) for one in value]
    return value


def accepts_paths(*names: str) -> Callable[[F], F]:
    """Decorator: where these arguments are paths of results folders, the function gets the results.

    Args:
        names: of arguments; the first one of the function where none is named.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        taken = names or tuple(signature.parameters)[:1]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            for name in taken:
                if name in given.arguments:
                    given.arguments[name] = opened(given.arguments[name])
            return function(*given.args, **given.kwargs)

        return call  # type: ignore[return-value]

    return decorate
