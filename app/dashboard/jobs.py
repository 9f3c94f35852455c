"""Jobs: the command line in a process of its own, which outlives the tab and the server. No Streamlit, no torch.

In a folder of the user's own (see `byrote.dashboard.state`), one per job:

    job.json          the task, and when it was started
    lock              locked as long as the job's processes live: distinguishes a running job from a lost one
    progress.jsonl    the events of `byrote run --progress jsonl`, and what else it said
    cancel            one byte per request to stop
    exit              its exit code, written at the end

The page only writes and reads these files. Nothing typed by a user reaches a shell, no process is looked up by number,
and what is started is made anew from the task's checked parts (see `byrote.dashboard.tasks`).
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from byrote.checkpoints.atomic import (
    append,
    locked,
    make_private_folder,
    remove,
    write_private_json,
    write_private_text,
)
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import FileRefused, open_regular, read_json, read_text
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp
from byrote.dashboard.state import VARIABLE, make_place, place_of
from byrote.dashboard.tasks import RUN, TEXT, Task

JOBS = ("jobs",)
MAX_FACTS_BYTES = 1 << 20
MAX_TAIL_BYTES = 200_000
MAX_EXIT_BYTES = 32
N_LINES = 20
MAX_JOBS = 30
_ENDED: Mapping[int, State] = {0: "done", 3: "done with gaps", 130: "cancelled", -signal.SIGINT: "cancelled"}
State = Literal["running", "done", "done with gaps", "cancelled", "failed", "lost"]


@dataclass(frozen=True)
class Job:
    """A job as read from its folder.

    Attributes:
        folder: of its files.
        task: what it does.
        started_s: Unix time.
        state: running, or how it ended; lost: its process went without a word, as when the machine was switched off.
        code: its exit code, minus the signal where it was killed; None while it runs, and where it was lost.
        stop_requests: how many.
        events: by run, the last checkpoint event.
        errors: gaps and errors so far.
        lines: the last lines it said.
    """

    folder: Path
    task: Task
    started_s: float
    state: State
    code: int | None = None
    stop_requests: int = 0
    events: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words after `byrote`."""
        return tuple(self.task.arguments())

    @property
    def running(self) -> bool:
        """Whether its processes live."""
        return self.state == "running"

    @property
    def current(self) -> Mapping[str, Any] | None:
        """The last checkpoint event."""
        return next(reversed(list(self.events.values())), None) if self.events else None

    @property
    def death(self) -> str:
        """How it died, in words; "" for a job that runs, or ended as it should."""
        if self.state == "lost":
            return "ended without a message, as when the machine is switched off or the process is killed"
        if self.state != "failed" or self.code is None:
            return ""
        if self.code >= 0:
            return f"ended with code {self.code}"
        name = (
            signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"
        )
        return f"was killed ({name})" + (
            ", as happens when memory runs out" if self.code == -signal.SIGKILL else ""
        )


def start(results: Path, task: Task, *, within: Sequence[str] = JOBS, limit_s: float | None = None) -> Path:
    """Start a task and return the job's folder.

    Args:
        results: folder of results the job belongs to.
        task: what to do.
        within: names of folders below the one kept for these results.
        limit_s: killed after as many seconds; None lets it take its time.

    Raises:
        ByroteError: a job on the same checkpoints is running, the task is none that the pages start, or the user's
            state directory cannot be written.
    """
    task.check()
    place = make_place(results, *within)
    with _starting(place):
        _refuse_twin(results, task, within)
        folder = _new_folder(place)
        write_private_json(
            folder / "job.json", {"task": task.facts, "started_s": time.time(), "limit_s": limit_s}
        )
        _launch(folder, task, limit_s)
        _forget_oldest(place)
    return folder


def cancel(job: Job, *, at_once: bool = False) -> None:
    """Request a job to stop after the current checkpoint, as Ctrl-C does; requested again it is killed. Finished work is kept.

    Args:
        job: which.
        at_once: kill it, where there is nothing to finish.
    """
    if not _locked(job.folder):
        return
    with suppress(OSError):
        append(job.folder / "cancel", b"!!" if at_once else b"!")


def all_jobs(results: Path, *, within: Sequence[str] = JOBS, most: int = MAX_JOBS) -> list[Job]:
    """Jobs of these results, newest first."""
    _reap()
    return [
        job for folder in _folders(place_of(results, *within))[:most] if (job := read_job(folder)) is not None
    ]


def read_job(folder: Path) -> Job | None:
    """One job; None where its folder holds none that the pages start."""
    try:
        facts = read_json(folder / "job.json", max_bytes=MAX_FACTS_BYTES)
        task, started = Task.read(facts["task"]), float(facts["started_s"])
    except (OSError, ValueError, LookupError, TypeError, ByroteError):
        return None
    stop_requests, *_ = file_stamp(folder / "cancel", missing_ok=True)  # one byte for each
    state, code = _state(folder, stop_requested=stop_requests > 0)
    file = folder / "progress.jsonl"
    events, errors, lines = _progress(file, file_stamp(file, missing_ok=True))
    return Job(folder, task, started, state, code, stop_requests, events, errors, lines)


def _folders(place: Path) -> list[Path]:
    """Of jobs, newest first."""
    try:
        found = sorted(place.iterdir(), reverse=True)
    except OSError:
        return []
    return [
        folder
        for folder in found
        if not folder.name.startswith(".") and not folder.is_symlink() and folder.is_dir()
    ]


def age_s(job: Job) -> float:
    """Seconds since it was started."""
    return max(0.0, time.time() - job.started_s)


def _state(folder: Path, *, stop_requested: bool) -> tuple[State, int | None]:
    if _locked(folder):
        return "running", None
    try:
        code = int(read_text(folder / "exit", max_bytes=MAX_EXIT_BYTES))
    except (OSError, ValueError, FileRefused):
        return "lost", None
    state = _ENDED.get(code, "failed")
    return ("cancelled" if stop_requested and state == "failed" else state), code


def _locked(folder: Path) -> bool:
    """Whether somebody holds the job's lock."""
    import fcntl  # not on Windows, where no job can be started

    try:
        with _opened_lock(folder) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _opened_lock(folder: Path) -> BinaryIO:
    """The job's lock file, for writing, which network file systems want of whoever locks; nothing is written to it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "the lock of a job is not a regular file")
    return os.fdopen(descriptor, "r+b", buffering=0)


@lru_cache(maxsize=2 * MAX_JOBS)
def _progress(file: Path, changed: FileStamp) -> tuple[Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
    """(events, errors, last lines) of a file; `changed` makes a file that grew another key."""
    events: dict[str, Any] = {}
    errors: list[str] = []
    lines: list[str] = []
    for line in _tail(file):
        event = _event(line)
        run = str(event.get("run", ""))
        if event.get("event") == "checkpoint" and _counts(event):
            events.pop(run, None)  # so that the run worked on comes last
            events[run] = event
            lines.append(f"{run}: {event['done']}/{event['total']}, step {event.get('step')}")
        elif event.get("event") == "gap":
            errors.append(f"{run}: step {event.get('step')}: {event.get('reason')}")
        elif "error" in event:
            errors.append(str(event["error"]) + (f" ({event['help']})" if event.get("help") else ""))
        elif line.startswith("error: "):
            errors.append(line.removeprefix("error: "))
        elif line.startswith("help: ") and errors:
            errors[-1] += f" ({line.removeprefix('help: ')})"
        elif text := event.get("text", "" if event else line):
            lines.append(str(text))
    return events, tuple(errors), tuple(lines[-N_LINES:])


def _event(line: str) -> dict[str, Any]:
    """The line as an event; {} for one of another kind."""
    try:
        event = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _counts(event: Mapping[str, Any]) -> bool:
    return all(isinstance(event.get(name), int) for name in ("done", "total"))


def _tail(file: Path) -> list[str]:
    """The file's last lines, the broken first one left out."""
    try:
        with open_regular(file) as data:
            size = data.seek(0, os.SEEK_END)
            data.seek(max(0, size - MAX_TAIL_BYTES))
            text = data.read(MAX_TAIL_BYTES).decode("utf-8", errors="replace")
    except (OSError, FileRefused):
        return []
    lines = text.splitlines()
    return lines[1:] if size > MAX_TAIL_BYTES else lines


def command_of(task: Task, folder: Path) -> list[str]:
    """What is put after `python -m`: a program of byrote's, and its arguments.

    Args:
        task: what to do.
        folder: of the job.
    """
    if task.verb == RUN:
        return ["byrote", *task.arguments(), "--progress", "jsonl", "--traceback"]
    return ["byrote.dashboard.text_worker", str(folder)]


def _launch(folder: Path, task: Task, limit_s: float | None) -> None:
    """Start the worker with the job's lock in its hand, so that it counts as running from the first moment."""
    import fcntl  # a descriptor that is handed over holds the lock as long as one of the job's processes lives

    write_private_text(folder / "lock", "")
    with _opened_lock(folder) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        how = {"folder": str(folder), "lock": lock.fileno(), "limit_s": limit_s, "private": task.verb == TEXT}
        worker = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "byrote.dashboard.job_worker",
                json.dumps(how),
                *command_of(task, folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a closed terminal or a stopped server does not reach it
            pass_fds=(lock.fileno(),),
        )
    _CHILDREN[worker.pid] = worker


def _refuse_twin(results: Path, task: Task, within: Sequence[str]) -> None:
    mine = checkpoints_of(task)
    for job in all_jobs(results, within=within):
        if not job.running:
            continue
        if job.task == task:
            raise ByroteError("this job is already running", help="watch it below, or cancel it first")
        for one in mine:
            for other in checkpoints_of(job.task):
                if one == other or one in other.parents or other in one.parents:
                    raise ByroteError(
                        f"a job on {other} is already running",
                        help="wait for it, or cancel it; finished work is not lost",
                    )


def checkpoints_of(task: Task) -> list[Path]:
    """The folders a sweep reads; none for what writes no results."""
    return [Path(path).resolve() for path in task.paths] if task.measures else []


@contextmanager
def _starting(place: Path) -> Iterator[None]:
    """One start at a time, so that two tabs cannot both find nothing running."""
    busy = ByroteError("another job is being started", help="try again")
    with locked(place / ".starting", busy=busy, refused=partial(_unwritable, place), wait_s=math.inf):
        yield


def _new_folder(place: Path) -> Path:
    now = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        folder = place / f"{now}-{attempt:02d}"
        if os.path.lexists(folder):
            continue
        try:
            make_private_folder(folder)
        except OSError as error:
            raise _unwritable(place, error) from None
        return folder
    raise ByroteError(f"too many jobs were started in {place} at once", help="wait a second")


def _forget_oldest(place: Path) -> None:
    """Folders of jobs that ended long ago go, the newest stay."""
    for folder in _folders(place)[MAX_JOBS:]:
        if not _locked(folder):
            with suppress(OSError):
                remove(folder)


def _unwritable(place: Path, error: OSError) -> ByroteError:
    return ByroteError(
        f"cannot write to {place} ({error.strerror})", help=f"set {VARIABLE} to a folder you can write to"
    )


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


def _reap() -> None:
    """Collect workers of this process that have ended."""
    for pid, child in list(_CHILDREN.items()):
        if child.poll() is not None:
            _CHILDREN.pop(pid, None)
