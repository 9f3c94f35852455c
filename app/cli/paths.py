"""What a person names on the command line becomes series, or results; where nothing is there, exit code 4."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byrote.checkpoints import CheckpointError, CheckpointSeries
from byrote.checkpoints.formats import format_at
from byrote.checkpoints.opening import open_runs
from byrote.cli.exits import NothingFoundError, report
from byrote.cli.session import Session

if TYPE_CHECKING:
    from byrote.probes.results import Results

_GLOB = frozenset("*?[")


@dataclass
class Opened:
    """Series found, in the order given, and runs inside a folder of runs that could not be opened."""

    series: list[CheckpointSeries] = field(default_factory=list)
    broken: list[tuple[Path, CheckpointError]] = field(default_factory=list)

    def report_broken(self, session: Session) -> None:
        """Print the errors of the runs that could not be opened."""
        for path, error in self.broken:
            report(session, f"{path}: {error.message}", error.help)


def open_all(paths: Sequence[str], **options: Any) -> Opened:
    """Open everything named.

    Args:
        paths: series, folders of series, globs, step folders of one series, or hub repositories.
        options: as for `checkpoints.open_series`.

    Raises:
        NothingFoundError: a path is there and holds no checkpoint that can be read.
        CheckpointError: a path that is not there, or a series that is broken.
    """
    opened = Opened()
    try:
        opened.series = open_runs(
            list(paths), on_broken=lambda path, error: opened.broken.append((path, error)), **options
        )
    except CheckpointError as error:
        if any(_holds_nothing(text) for text in paths):
            raise NothingFoundError(error.message, help=error.help) from None
        raise
    if not opened.series:
        raise opened.broken[0][1]
    return opened


def open_results(paths: Sequence[str]) -> list[Results]:
    """Open results folders.

    Args:
        paths: results folders, folders of several, or globs of either.

    Raises:
        NothingFoundError: a glob matches nothing.
        ByroteError: a path is no results folder.
    """
    from byrote.probes.results import Results

    folders: list[Path] = []
    for path in (folder for text in paths for folder in _expand(text)):
        inside = sorted(file.parent for file in path.glob("*/run.json"))
        folders += inside if inside and not (path / "run.json").is_file() else [path]
    return [Results.open(folder) for folder in dict.fromkeys(folders)]


def _expand(text: str) -> list[Path]:
    """A quoted glob is expanded here; a path that exists is taken as it is, whatever characters it has."""
    if Path(text).exists() or not _GLOB & set(text):
        return [Path(text)]
    folders = sorted(Path(found) for found in glob.glob(text) if Path(found).is_dir())  # noqa: PTH207
    if not folders:
        raise NothingFoundError(f"{text} matches no folder", help="check the pattern")
    return folders


def _holds_nothing(text: str) -> bool:
    """Whether a path is a fine folder, or a glob, with no checkpoint to be read: there is nothing to do."""
    path = Path(text)
    if not path.exists():
        return bool(_GLOB & set(text)) and not any(Path(found).is_dir() for found in glob.glob(text))  # noqa: PTH207
    if not path.is_dir():
        return False
    found = format_at(path)
    try:
        return found is None or not found.discover(path).checkpoints
    except CheckpointError:
        return False  # damaged, not empty
