"""Results by their paths: what takes the results of a run takes the folder they are in as well. No torch."""

from __future__ import annotations

import functools
import glob
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from byrote.checkpoints.errors import ByroteError, NothingFoundError

if TYPE_CHECKING:
    from byrote.probes.results.metric import Results

F = TypeVar("F", bound=Callable[..., Any])


def opened(value: Any, *, several: bool = False) -> Any:
    """Results for a path, and a list of them for a list of paths; other objects as they are.

    Args:
        value: as it was given.
        several: whether the runs are wanted: a path may then be a folder of results folders, or a glob.

    Raises:
        ByroteError: a path is not a results folder; or checkpoints, which were not measured; or a number.
    """
    from byrote.checkpoints.series import CheckpointSeries
    from byrote.probes.results.metric import Results

    if isinstance(value, str | Path):
        return results_in([value]) if several else Results.open(value)
    if isinstance(value, CheckpointSeries):
        raise ByroteError(
            f"{value.path} holds checkpoints, not results",
            help="measure them first: results = br.measure(series)",
        )
    if isinstance(value, int | float | bytes):
        raise ByroteError(
            f"{value!r} is neither results nor the path of some", help="give Results, or their folder"
        )
    if isinstance(value, list | tuple) and any(isinstance(one, str | Path) for one in value):
        found = [opened(one, several=several) for one in value]
        return [run for one in found for run in (one if isinstance(one, list) else [one])]
    return value


def results_in(places: Iterable[str | Path]) -> list[Results]:
    """Open results folders, each once.

    Args:
        places: results folders, folders of several, or globs of either.

    Raises:
        NothingFoundError: a glob matches nothing.
        ByroteError: a path is no results folder.
    """
    from byrote.probes.results.metric import Results

    folders: list[Path] = []
    for path in (folder for place in places for folder in _expanded(str(place))):
        inside = sorted(file.parent for file in path.glob("*/run.json"))
        folders += inside if inside and not (path / "run.json").is_file() else [path]
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    return [Results.open(folder) for folder in once.values()]


def _expanded(text: str) -> list[Path]:
    """A quoted glob is expanded here; a path that exists is taken as it is, whatever characters it has."""
    if Path(text).exists() or not glob.has_magic(text):
        return [Path(text)]
    folders = sorted(Path(found) for found in glob.glob(text) if Path(found).is_dir())  # noqa: PTH207
    if not folders:
        raise NothingFoundError(f"{text} matches no folder", help="check the pattern")
    return folders


def accepts_paths(*names: str, several: bool = False) -> Callable[[F], F]:
    """Decorator: where these arguments are paths of results folders, the function gets the results.

    Args:
        names: of arguments; the first one of the function where none is named.
        several: as for `opened`.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        taken = names or tuple(signature.parameters)[:1]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            for name in taken:
                if name in given.arguments:
                    given.arguments[name] = opened(given.arguments[name], several=several)
            return function(*given.args, **given.kwargs)

        return call  # type: ignore[return-value]

    return decorate
