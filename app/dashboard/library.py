"""The runs under the folders the dashboard was opened on: found anew at every look, read again only when changed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results
from byrote.probes.results.units import unit_stamps

Identity = tuple[Any, ...]
# Set by the process that starts the server: what to open, and where the user is.
PATHS_VARIABLE, DIRECTORY_VARIABLE = "BYROTE_DASHBOARD_PATHS", "BYROTE_DASHBOARD_DIRECTORY"
MAX_RUNS_OPEN = 12


@dataclass(frozen=True)
class Broken:
    """A results folder that cannot be shown, and why."""

    name: str
    path: Path
    reason: str
    help: str


@dataclass(frozen=True)
class Library:
    """What is there to look at.

    Attributes:
        runs: by name, in the order found.
        broken: folders that cannot be read; the rest works.
        paths: the folders opened.
        is_example: nothing was found there; the runs are those that come with byrote.
    """

    runs: dict[str, Results] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()
    paths: tuple[Path, ...] = ()
    is_example: bool = False


def open_library(paths: Sequence[Path]) -> Library:
    """Look at the folders and read what has changed since the last look.

    Args:
        paths: results folders, or folders of several.
    """
    runs: dict[str, Results] = {}
    broken: list[Broken] = []
    for folder in run_folders(paths):
        try:
            run = _read(folder, identity_of(folder))
        except ByroteError as error:
            broken.append(Broken(folder.name, folder, error.message, error.help))
            continue
        if run.run in runs:
            reason = f"another run is called {run.run}: {runs[run.run].path}"
            broken.append(Broken(run.run, folder, reason, "give each run its own name"))
            continue
        runs[run.run] = run
    return Library(runs, tuple(broken), tuple(Path(p) for p in paths))


def look(paths: Sequence[Path]) -> Identity:
    """What the folders look like now, without reading any result: cheap enough to ask every few seconds."""
    return tuple((str(folder), identity_of(folder)) for folder in run_folders(paths))


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Results folders among and inside the paths, finished or in the making."""
    found: list[Path] = []
    for path in map(Path, paths):
        entries = path.iterdir() if path.is_dir() else ()
        inside = sorted(p for p in entries if not p.name.startswith(".") and is_run_folder(p))
        found += [path] if is_run_folder(path) else inside
    return list(dict.fromkeys(found))


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run, or the first units of one."""
    return path.is_dir() and ((path / "run.json").is_file() or (path / "units").is_dir())


def identity_of(folder: Path) -> Identity:
    """Names, times and sizes of the files a run is read from."""
    marks: list[Any] = []
    for name in ("run.json", "observations.parquet"):
        try:
            stat = (folder / name).stat()
            marks.append((name, stat.st_mtime_ns, stat.st_size))
        except OSError:
            marks.append((name, 0, 0))
    return (*marks, hash(unit_stamps(folder)))


def _read(folder: Path, identity: Identity) -> Results:
    """The run as it is now; what was read of it before is let go.

    Raises:
        ByroteError: run.json cannot be read or names no run, or a unit is damaged.
    """
    with _LOCK:
        known, run = _READ.get(folder, (None, None))
        if run is None or known != identity:
            _READ.pop(folder, None)
            run = Results(folder, _meta(folder), write=False)
            run.steps  # noqa: B018  (finds a unit that is damaged)
            _READ[folder] = identity, run
        _READ.move_to_end(folder)
        while len(_READ) > MAX_RUNS_OPEN:
            _READ.popitem(last=False)
    return run


_READ: OrderedDict[Path, tuple[Identity, Results]] = OrderedDict()
_LOCK = threading.Lock()  # two users who open the same folder read it once


def _meta(folder: Path) -> dict[str, Any]:
    """run.json, or for a first sweep that has not ended yet the little that is known."""
    if (folder / "run.json").is_file():
        meta = dict(Results.open(folder).meta)
        if not isinstance(meta.get("run"), str):
            raise ByroteError(
                f"{folder / 'run.json'} names no run", help="run the sweep again: it rewrites run.json"
            )
        return meta
    return {"schema": 1, "run": folder.name, "status": "running", "series": {}, "gaps": []}
