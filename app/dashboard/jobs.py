"""Jobs: the command line in a process of its own, which outlives the tab and the server. No Streamlit, no torch.

<results>/.jobs/<id>/
    job.json          the arguments, and when it was started
    lock              locked as long as the job's processes live: distinguishes a running job from a lost one
    progress.jsonl    the events of `byrote run --progress jsonl`, and what else it said
    cancel            one byte per request to stop
    exit              its exit code, written at the end

The page only writes and reads these files. Nothing typed by a user reaches a shell, and no process is looked up by number.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from byrote.checkpoints.atomic import locked, write_json
from byrote.checkpoints.errors import ByroteError

FOLDER = ".jobs"
MAX_TAIL_BYTES = 200_000
N_LINES = 20
MAX_JOBS = 30
_ENDED: Mapping[int, State] = {0: "done", 3: "done with gaps", 130: "cancelled", -signal.SIGINT: "cancelled"}
State = Literal["running", "done", "done with gaps", "cancelled", "failed", "lost"]


@dataclass(frozen=True)
class Job:
    """A job as read from its folder.

    Attributes:
        folder: of its files.
        arguments: of `byrote`.
        started_s: Unix time.
        state: running, or how it ended; lost: its process went without a word, as when the machine was switched off.
        code: its exit code, minus the signal where it was killed; None while it runs, and where it was lost.
        stop_requests: how many.
        events: by run, the last checkpoint event.
        errors: gaps and errors so far.
        lines: the last lines it said.
    """

    folder: Path
    arguments: tuple[str, ...]
    started_s: float
    state: State
    code: int | None = None
    stop_requests: int = 0
    events: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

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
            return "died without a word, as when the machine is switched off or the process is killed"
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


def start(root: Path, arguments: Sequence[str], *, limit_s: float | None = None) -> Path:
    """Start `byrote ARGUMENTS` and return the job's folder.

    Args:
        root: folder of results the job belongs to.
        arguments: of the command line, the verb first; `--progress jsonl` is added to `run`. Or `-m MODULE ...`.
        limit_s: killed after as many seconds; None lets it take its time.

    Raises:
        ByroteError: a job on the same checkpoints is running, an argument is none, or the folder cannot be written.
    """
    arguments = list(arguments)
    if any("\0" in word for word in arguments):
        raise ByroteError("a path cannot hold a NUL character", help="write the path as the shell would")
    with _starting(root):
        _refuse_twin(root, arguments)
        folder = _new_folder(root)
        facts = {"arguments": arguments, "started_s": time.time(), "limit_s": limit_s}
        write_json(folder / "job.json", facts, indent=None)
        _launch(folder, _command(arguments), limit_s)
        _forget_oldest(root)
    return folder


def cancel(job: Job, *, at_once: bool = False) -> None:
    """Request a job to stop after the current checkpoint, as Ctrl-C does; requested again it is killed. Finished work is kept.

    Args:
        job: which.
        at_once: kill it, where there is nothing to finish.
    """
    if not _locked(job.folder):
        return
    with suppress(OSError), (job.folder / "cancel").open("ab") as file:
        file.write(b"!!" if at_once else b"!")


def all_jobs(root: Path, *, most: int = MAX_JOBS) -> list[Job]:
    """Jobs stored here, newest first."""
    _reap()
    files = sorted((root / FOLDER).glob("*/job.json"), reverse=True) if (root / FOLDER).is_dir() else []
    return [job for file in files[:most] if (job := read_job(file.parent)) is not None]


def read_job(folder: Path) -> Job | None:
    """One job; None where its folder holds none."""
    try:
        facts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        arguments, started = tuple(map(str, facts["arguments"])), float(facts["started_s"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    stop_requests = _size(folder / "cancel")
    state, code = _state(folder, stop_requested=stop_requests > 0)
    file = folder / "progress.jsonl"
    events, errors, lines = _progress(file, stamp(file))
    return Job(folder, arguments, started, state, code, stop_requests, events, errors, lines)


def age_s(job: Job) -> float:
    """Seconds since it was started."""
    return max(0.0, time.time() - job.started_s)


def _state(folder: Path, *, stop_requested: bool) -> tuple[State, int | None]:
    if _locked(folder):
        return "running", None
    try:
        code = int((folder / "exit").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "lost", None
    state = _ENDED.get(code, "failed")
    return ("cancelled" if stop_requested and state == "failed" else state), code


def _locked(folder: Path) -> bool:
    """Whether somebody holds the job's lock."""
    import fcntl  # not on Windows, where no job can be started

    try:
        with (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@lru_cache(maxsize=2 * MAX_JOBS)
def _progress(
    file: Path, changed: tuple[int, int]
) -> tuple[Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
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
        with file.open("rb") as data:
            size = data.seek(0, os.SEEK_END)
            data.seek(max(0, size - MAX_TAIL_BYTES))
            text = data.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    return lines[1:] if size > MAX_TAIL_BYTES else lines


def _command(arguments: list[str]) -> list[str]:
    """What is put after `python -m`: a module's own arguments, or those of the command line for a program."""
    if arguments[:1] == ["-m"]:
        return arguments[1:]
    more = ["--progress", "jsonl", "--traceback"] if arguments[:1] == ["run"] else []
    return ["byrote", *arguments, *more]


def _launch(folder: Path, command: Sequence[str], limit_s: float | None) -> None:
    """Start the worker with the job's lock in its hand, so that it counts as running from the first moment."""
    import fcntl  # a descriptor that is handed over holds the lock as long as one of the job's processes lives

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        facts = json.dumps({"folder": str(folder), "lock": lock.fileno(), "limit_s": limit_s})
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "byrote.dashboard.job_worker", facts, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a closed terminal or a stopped server does not reach it
            pass_fds=(lock.fileno(),),
        )
    _CHILDREN[worker.pid] = worker


def _refuse_twin(root: Path, arguments: Sequence[str]) -> None:
    mine = _checkpoints(arguments)
    for job in all_jobs(root):
        if not job.running:
            continue
        if job.arguments == tuple(arguments):
            raise ByroteError("the same job is running already", help="watch it below, or cancel it first")
        other = _checkpoints(job.arguments)
        if mine and other and (mine == other or mine in other.parents or other in mine.parents):
            raise ByroteError(
                f"a job on {other} is running already",
                help="wait for it, or cancel it; finished work is kept",
            )


def _checkpoints(arguments: Sequence[str]) -> Path | None:
    """The folder a sweep reads; None for what writes no results."""
    if len(arguments) < 2 or arguments[0] != "run" or "--dry-run" in arguments:
        return None
    return Path(arguments[1]).resolve()


@contextmanager
def _starting(root: Path) -> Iterator[None]:
    """One start at a time, so that two tabs cannot both find nothing running."""
    try:
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root, error) from None
    busy = ByroteError("another job is being started", help="try again")
    refused = partial(_unwritable, root)
    with locked(root / FOLDER / ".starting", busy=busy, refused=refused, wait=True):
        yield


def _new_folder(root: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        folder = root / FOLDER / f"{stamp}-{attempt:02d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _unwritable(root, error) from None
        return folder
    raise ByroteError(f"too many jobs were started in {root} at once", help="wait a second")


def _forget_oldest(root: Path) -> None:
    """Folders of jobs that ended long ago go, the newest stay."""
    folders = sorted((root / FOLDER).glob("*/job.json"), reverse=True)
    for file in folders[MAX_JOBS:]:
        if not _locked(file.parent):
            shutil.rmtree(file.parent, ignore_errors=True)


def _unwritable(root: Path, error: OSError) -> ByroteError:
    return ByroteError(
        f"cannot write to {root} ({error.strerror})", help="open the dashboard on a folder you can write to"
    )


def stamp(file: Path) -> tuple[int, int]:
    """(mtime in ns, bytes): another whenever the file changed; (0, 0) where there is none."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _size(file: Path) -> int:
    return stamp(file)[1]


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


def _reap() -> None:
    """Collect workers of this process that have ended."""
    for pid, child in list(_CHILDREN.items()):
        if child.poll() is not None:
            _CHILDREN.pop(pid, None)
