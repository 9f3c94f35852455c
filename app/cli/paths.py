"""What a person names on the command line becomes series: a folder, a folder of runs, or a glob."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.cli.exits import NothingFoundError
from checkpoints import CheckpointError, CheckpointSeries, open_series
from checkpoints.formats import FORMATS

_GLOB = frozenset("*?[")


@dataclass
class Opened:
    """Series found, in the order given, and runs inside a folder of runs that could not be opened."""

    series: list[CheckpointSeries] = field(default_factory=list)
    broken: list[tuple[Path, CheckpointError]] = field(default_factory=list)


def open_all(paths: Sequence[str]) -> Opened:
    """Open everything named.

    Args:
        paths: folders of one series, folders of several, or globs of either.

    Raises:
        NothingFoundError: a path is there and holds no checkpoint.
        CheckpointError: a path that is not there, or a series that is broken.
    """
    opened = Opened()
    for path in [folder for text in paths for folder in _expand(text)]:
        runs = _runs_inside(path)
        if not runs:
            opened.series.append(_open(path))
            continue
        for run in runs:
            try:
                opened.series.append(_open(run))
            except CheckpointError as error:
                opened.broken.append((run, error))
    if not opened.series:
        raise opened.broken[0][1]
    return opened


def _expand(text: str) -> list[Path]:
    """A quoted glob is expanded here; a path that exists is taken as it is, whatever characters it has."""
    if Path(text).exists() or not _GLOB & set(text):
        return [Path(text)]
    folders = sorted(Path(found) for found in glob.glob(text) if Path(found).is_dir())  # noqa: PTH207
    if not folders:
        raise NothingFoundError(f"{text} matches no folder", help="check the pattern; quote it as it stands")
    return folders


def _runs_inside(path: Path) -> list[Path]:
    """The series in a folder that is none itself."""
    if not path.is_dir() or _sniffed(path):
        return []
    children = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [child for child in children if _sniffed(child)]


def _sniffed(path: Path) -> bool:
    return any(module.sniff(path) for module in FORMATS.values())


def _open(path: Path) -> CheckpointSeries:
    try:
        return open_series(path)
    except CheckpointError as error:
        if path.is_dir() and not _has_readable(path):
            raise NothingFoundError(error.message, help=error.help) from None
        raise


def _has_readable(path: Path) -> bool:
    """Whether the folder is of a known format and so damaged, not empty: only then is it a usage error."""
    for module in FORMATS.values():
        if module.sniff(path):
            try:
                return bool(module.discover(path).checkpoints)
            except CheckpointError:
                return True
    return False
