"""Results by their paths: what takes the results of a run takes the folder they are in as well. No torch."""

from __future__ import annotations

import functools
import glob
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from byrote.checkpoints.errors import ByroteError, NothingFoundError, did_you_mean

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
    if value is None or isinstance(value, int | float | bytes):
        raise ByroteError(
            f"{value!r} is neither results nor the path of some", help="give Results, or their folder"
        )
    if isinstance(value, list | tuple) and any(isinstance(one, str | Path) for one in value):
        found = [opened(one, several=several) for one in value]
        return [run for one in found for run in (one if isinstance(one, list) else [one])]
    return value


def one_run(value: Any) -> Any:
    """Results of one run for what was given: themselves, or their folder.

    Raises:
        ByroteError: something else, such as a list, or one metric.
    """
    found = opened(value)
    if not hasattr(found, "usable_steps"):
        what = type(found).__name__
        more = "; groups are compared with br.compare_groups" if isinstance(found, list | tuple) else ""
        raise ByroteError(
            f"a {what} is not the results of one run", help=f"give Results, or their folder{more}"
        )
    return found


def results_in(places: Iterable[str | Path]) -> list[Results]:
    """Open results folders, each once.

    Args:
        places: results folders, folders of several, or globs of either.

    Raises:
        NothingFoundError: a glob matches nothing.
        ByroteError: a path is no results folder.
    """
    from byrote.probes.results.metric import Results

    return [Results.open(folder) for folder in folders_in(places)]


def folders_in(places: Iterable[str | Path]) -> list[Path]:
    """Those results folders, each once, unopened; a path is taken as it is where it holds none."""
    folders: list[Path] = []
    for path in (folder for place in places for folder in _expanded(str(place))):
        inside = sorted(file.parent for file in path.glob("*/run.json"))
        folders += inside if inside and not (path / "run.json").is_file() else [path]
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    return list(once.values())


def _expanded(text: str) -> list[Path]:
    """A quoted glob is expanded here; a path that exists is taken as it is, whatever characters it has."""
    if Path(text).exists() or not glob.has_magic(text):
        return [Path(text)]
    folders = sorted(Path(found) for found in glob.glob(text) if Path(found).is_dir())  # noqa: PTH207
    if not folders:
        raise NothingFoundError(f"{text} matches no folder", help="check the pattern")
    return folders


def accepts_paths(*names: str, several: bool = False, one: bool = False) -> Callable[[F], F]:
    """Decorator: where these arguments are paths of results folders, the function gets the results.

    Args:
        names: of arguments; the first one of the function where none is named.
        several: as for `opened`.
        one: whether each is one run, and nothing else.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        taken = names or tuple(signature.parameters)[:1]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise _misused(function.__name__, signature, kwargs, error) from None
            for name in taken:
                if name in given.arguments:
                    value = given.arguments[name]
                    given.arguments[name] = one_run(value) if one else opened(value, several=several)
            return function(*given.args, **given.kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _misused(name: str, signature: inspect.Signature, given: Iterable[str], error: TypeError) -> ByroteError:
    """What is wrong with the arguments of a call, for somebody who guessed them."""
    parameters = signature.parameters.values()
    by_name = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    if unknown := [one for one in given if one not in signature.parameters]:
        return ByroteError(
            f"{name}() has no argument {unknown[0]!r}", help=did_you_mean(unknown[0], signature.parameters)
        )
    if "too many" in str(error):
        first = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        return ByroteError(
            f"{name}() takes {', '.join(first)} and nothing more without a name",
            help=f"name the rest: {', '.join(f'{one}=' for one in by_name)}",
        )
    needed = [one.name for one in parameters if one.default is one.empty and one.kind < one.VAR_KEYWORD]
    return ByroteError(f"{name}(): {error}", help=f"it needs {', '.join(needed)}")
