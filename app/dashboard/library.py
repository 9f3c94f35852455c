"""The runs under the folders the dashboard was opened on: found anew at every look, read again only when changed. No Streamlit.

Where nothing has been measured yet, the example is shown: four small runs, unpacked once per server.

`example.tar.xz` holds what `byrote run` stores, without what can be made again from it (observations.parquet,
fingerprints.json), and what the grid declares of its arms (byrote.toml). The series are those of `make demo`, one seed of each
arm, measured at six steps with 16 sequences:

    byrote run 'runs/demo/*/d32/seed0' -p prefix_matching -p previous_token -p copying_logit -p induction
        -p offset_profile -p composition -p repeat_loss -p held_out_loss -p exact_match -p mem_gap -p recall_vs_copy
        --steps 0,125,375,500,625,1000 --sequences 16 --save-attention -o results

Attention, and what heads write, is kept of unique data at steps 625, where a bare address opens, and 1,000, and of repeated data
at step 1,000.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
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
from byrote.probes.results.run_json import RUN_JSON
from byrote.probes.results.unit_files import unit_stamps

Identity = tuple[Any, ...]
# Set by the process that starts the server: what to open, and where the user is.
PATHS_VARIABLE, DIRECTORY_VARIABLE = "BYROTE_DASHBOARD_PATHS", "BYROTE_DASHBOARD_DIRECTORY"
MAX_RUNS_OPEN, MAX_ROWS_OPEN = 12, 4_000_000  # so many runs stay open, and more while they are small together
MAX_NAME = 500  # characters; longer ones are no names of folders
MAX_HEADS = 1 << 16  # of a model; the largest have some 20,000
MAX_REASON = 300


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


def as_variable(paths: Sequence[Path]) -> str:
    """Paths as one variable: any characters may be in them."""
    return json.dumps([str(Path(path).resolve()) for path in paths])


def of_variable(value: str) -> tuple[Path, ...]:
    """The paths of such a variable."""
    if not value.startswith("["):
        return (Path(value),)
    return tuple(Path(path) for path in json.loads(value))


def open_library(paths: Sequence[Path]) -> Library:
    """Look at the folders and read what has changed since the last look.

    Args:
        paths: results folders, or folders of several.
    """
    runs: dict[str, Results] = {}
    broken: list[Broken] = []
    for folder in run_folders(paths):
        run = _read(folder)
        if isinstance(run, Broken):
            broken.append(run)
        elif run.run in runs:
            reason = f"another run is called {run.run}: {runs[run.run].path}"
            broken.append(Broken(run.run, folder, reason, "give each run its own name"))
        else:
            runs[run.run] = run
    return Library(runs, tuple(broken), tuple(Path(p) for p in paths))


def look(paths: Sequence[Path]) -> Identity:
    """What the folders look like now, without reading any result: cheap enough to ask every few seconds."""
    return tuple((str(folder), identity_of(folder)) for folder in run_folders(paths))


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Results folders among and inside the paths, finished or in the making."""
    found: list[Path] = []
    for path in map(Path, paths):
        found += [path] if is_run_folder(path) else sorted(filter(is_run_folder, _entries(path)))
    return list(dict.fromkeys(found))


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run, or the first units of one, readable or not."""
    try:
        return path.is_dir() and (os.path.lexists(path / RUN_JSON) or (path / "units").is_dir())
    except (OSError, ValueError):
        return False


def identity_of(folder: Path) -> Identity:
    """Names, times and sizes of the files a run is read from."""
    marks: list[Any] = []
    for name in (RUN_JSON, "observations.parquet"):
        try:
            stat = (folder / name).lstat()
            marks.append((name, stat.st_mtime_ns, stat.st_size))
        except OSError:
            marks.append((name, 0, 0))
    return (*marks, hash(unit_stamps(folder)))


def _read(folder: Path) -> Results | Broken:
    """The run as it is now, or why it cannot be shown; what was read of it before is dropped."""
    with _LOCK:
        identity = identity_of(folder)
        known, run = _READ.get(folder, (None, None))
        if run is None or known != identity:
            _READ.pop(folder, None)
            run = _opened(folder)
            _READ[folder] = identity, run
        _READ.move_to_end(folder)
        while len(_READ) > MAX_RUNS_OPEN and _rows_open() > MAX_ROWS_OPEN:
            _READ.popitem(last=False)
    return run


def _rows_open() -> int:
    """Observations of all runs that are open; those whose files went or broke since they were read are let go."""
    rows = 0
    for folder, (_, run) in list(_READ.items()):
        try:
            rows += run.n_rows if isinstance(run, Results) else 0
        except (OSError, ByroteError):
            del _READ[folder]
    return rows


def _opened(folder: Path) -> Results | Broken:
    """What a folder holds. Whatever goes wrong in it is its own affair: the others are shown."""
    try:
        run = Results(folder, _meta(folder), write=False)
        _try_out(run)
    except ByroteError as error:
        return Broken(folder.name, folder, error.message, error.help)
    except Exception as error:  # a folder that somebody sent may hold anything
        what = f"{type(error).__name__}: {error}"[:MAX_REASON]
        return Broken(
            folder.name, folder, f"it cannot be read ({what})", "run the same sweep again, or remove it"
        )
    return run


def _try_out(run: Results) -> None:
    """Look at all that the pages of other runs look at too.

    Raises:
        ByroteError: run.json cannot be read or names no run, or a unit is damaged.
    """
    if not 0 < len(run.run.strip()) <= MAX_NAME:
        raise ByroteError(
            f"{run.path / RUN_JSON} does not name a run", help="run the sweep again: it rewrites run.json"
        )
    n_layers, n_heads = run.shape
    if n_layers * n_heads > MAX_HEADS:
        raise ByroteError(
            f"its model has {n_layers:,} layers of {n_heads:,} heads", help="run the sweep again"
        )
    for look_at in (
        run.steps,
        run.all_steps,
        run.usable_steps,
        run.left_out,
        run.loss,
        run.arm,
        run.gaps,
        run.kinds,
        run.head_probes,
    ):
        len(look_at)


_READ: OrderedDict[Path, tuple[Identity, Results | Broken]] = OrderedDict()
_LOCK = threading.Lock()  # two users who open the same folder read it once


def _meta(folder: Path) -> dict[str, Any]:
    """run.json, or for a first sweep that has not ended yet the little that is known."""
    if os.path.lexists(folder / RUN_JSON):
        return dict(Results.open(folder).meta)
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
