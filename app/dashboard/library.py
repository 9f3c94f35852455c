"""The runs under the folders the dashboard was opened on: found anew at every look, read again only when changed. No Streamlit.

Where nothing has been measured yet, the example is shown: two small runs, unpacked once per server.

`example.tar.xz` holds what `byrote run` stores, without what can be made again from it (observations.parquet,
fingerprints.json). The series are those of `make demo`, measured at twelve steps with 16 sequences:

    byrote run runs/unique runs/repeated -p prefix_matching -p previous_token -p copying_logit -p induction
        -p offset_profile -p composition -p repeat_loss -p exact_match -p mem_gap -p recall_vs_copy
        --steps first,16,64,100,200,300,400,500,600,1k,1600,last --sequences 16 --save-attention -o results

Attention, and what heads write, is saved at step 2,400 alone.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tarfile
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, ref

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results
from byrote.probes.results.unit_files import unit_stamps

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
    """The run as it is now; what was read of it before is dropped.

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


PACKED = Path(__file__).with_name("example.tar.xz")


def or_example(found: Library) -> Library:
    """The example's runs, with the requested folders; the same library where it cannot be unpacked.

    Args:
        found: a library without runs.
    """
    folder = _unpacked()
    if folder is None:
        return found
    return replace(open_library([folder]), paths=found.paths, is_example=True)


@lru_cache(maxsize=1)
def _unpacked() -> Path | None:
    folder = Path(tempfile.mkdtemp(prefix="byrote-example-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with tarfile.open(PACKED) as packed:
            packed.extractall(folder, filter="data")
    except (OSError, tarfile.TarError):
        return None
    return folder


P = ParamSpec("P")
R = TypeVar("R")
_ANSWERS: WeakKeyDictionary[Any, dict[str, OrderedDict[Hashable, Any]]] = WeakKeyDictionary()
_ANSWERS_LOCK = threading.Lock()
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
            with _ANSWERS_LOCK:
                answers = _ANSWERS.setdefault(args[0], {}).setdefault(name, OrderedDict())
                if key in answers:
                    answers.move_to_end(key)
                    return answers[key]
            answer = function(*args, **kwargs)
            with _ANSWERS_LOCK:
                answers[key] = answer
                while len(answers) > most:
                    answers.popitem(last=False)
            return answer

        return call

    return wrap


@run_cache(1)
def number_of(run: Results) -> int:
    """A number that no other results have in this process: which identifies a series in the browser."""
    return next(_NUMBERS)


def _key(value: Any) -> Hashable:
    if isinstance(value, Results):
        return ref(value)
    return tuple(map(_key, value)) if isinstance(value, tuple) else value
