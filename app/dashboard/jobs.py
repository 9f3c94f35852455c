"""Jobs: the command line in a process of its own, which outlives the tab and the server. No Streamlit, no torch.

<results>/.jobs/<id>/
    job.json          what was asked, when, and the worker's process id
    progress.jsonl    the events of `rote run --progress jsonl`, and what else it said
    exit              its exit code, written at the end
    lock              held as long as the job runs: what tells a running job from a lost one
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from checkpoints.errors import RoteError

FOLDER = ".jobs"
MAX_TAIL_BYTES = 200_000
N_LINES = 20
KEPT_JOBS = 30
_ENDED = {0: "done", 3: "done with gaps", 130: "cancelled"}
State = Literal["running", "done", "done with gaps", "cancelled", "failed", "lost"]


@dataclass(frozen=True)
class Job:
    """A job as its folder tells it.

    Attributes:
        folder: where it is kept.
        arguments: of `rote`.
        started_s: Unix time.
        state: running, or how it ended; lost: its process went without a word, as when the machine was switched off.
        events: by run, the last checkpoint event.
        errors: gaps and errors so far.
        lines: the last lines it said.
    """

    folder: Path
    arguments: tuple[str, ...]
    started_s: float
    state: State
    events: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.state == "running"

    @property
    def current(self) -> Mapping[str, Any] | None:
        """The last checkpoint event."""
        return next(reversed(list(self.events.values())), None) if self.events else None


def start(root: Path, arguments: Sequence[str]) -> Path:
    """Start `rote ARGUMENTS` and return the job's folder.

    Args:
        root: folder of results the job is kept under.
        arguments: of the command line, the verb first; `--progress jsonl` is added to `run`.

    Raises:
        RoteError: another job of the same arguments is running, or the folder cannot be written.
    """
    if any(job.running and job.arguments == tuple(arguments) for job in all_jobs(root)):
        raise RoteError("the same job is running already", help="watch it below, or cancel it first")
    folder = _new_folder(root)
    full = [*arguments, "--progress", "jsonl"] if arguments[:1] == ["run"] else list(arguments)
    worker = subprocess.Popen(
        [sys.executable, "-m", "app.dashboard.worker", str(folder), *full],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=_environment(),
    )
    _write(folder / "job.json", {"arguments": list(arguments), "started_s": time.time(), "pid": worker.pid})
    _CHILDREN[worker.pid] = worker
    return folder


def cancel(job: Job) -> None:
    """Ask a job to stop after the checkpoint in hand, as Ctrl-C does; finished work is kept."""
    if not _held(job.folder):
        return
    pid = int(json.loads((job.folder / "job.json").read_text(encoding="utf-8"))["pid"])
    try:
        os.killpg(pid, signal.SIGINT)
    except ProcessLookupError:
        return  # it ended this very moment


def all_jobs(root: Path) -> list[Job]:
    """Every job kept here, newest first."""
    _reap()
    folders = sorted((root / FOLDER).glob("*/job.json"), reverse=True) if (root / FOLDER).is_dir() else []
    return [job for file in folders[:KEPT_JOBS] if (job := read_job(file.parent)) is not None]


def read_job(folder: Path) -> Job | None:
    """One job; None where its folder holds none."""
    try:
        facts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        arguments, started = tuple(map(str, facts["arguments"])), float(facts["started_s"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    events, errors, lines = _progress(folder / "progress.jsonl")
    return Job(folder, arguments, started, _state(folder, started), events, errors, lines)


def _state(folder: Path, started_s: float) -> State:
    if _held(folder):
        return "running"
    try:
        code = int((folder / "exit").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return (
            "running" if time.time() - started_s < 5 else "lost"
        )  # the worker takes its lock in its first moments
    return _ENDED.get(code, "failed")  # type: ignore[return-value]


def _held(folder: Path) -> bool:
    """Whether somebody holds the job's lock."""
    try:
        with (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _progress(file: Path) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    events: dict[str, Any] = {}
    errors, lines = [], []
    for line in _tail(file):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            lines.append(line)
            continue
        run = str(event.get("run", ""))
        if event.get("event") == "checkpoint" and "done" in event:
            events.pop(run, None)
            events[run] = event
            lines.append(f"{run}: {event['done']}/{event['total']}, step {event.get('step')}")
        elif event.get("event") == "gap":
            errors.append(f"{run}: step {event.get('step')}: {event.get('reason')}")
        elif "error" in event:
            errors.append(str(event["error"]) + (f" ({event['help']})" if event.get("help") else ""))
        elif event.get("text"):
            lines.append(str(event["text"]))
    errors += [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return events, tuple(errors), tuple(lines[-N_LINES:])


def _tail(file: Path) -> list[str]:
    """The file's last lines, the broken first one left out."""
    try:
        with file.open("rb") as held:
            held.seek(0, os.SEEK_END)
            size = held.tell()
            held.seek(max(0, size - MAX_TAIL_BYTES))
            text = held.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    return lines[1:] if size > MAX_TAIL_BYTES else lines


def _new_folder(root: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        folder = root / FOLDER / f"{stamp}-{attempt:02d}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RoteError(
                f"cannot write to {root} ({error.strerror})",
                help="open the dashboard on a folder you can write to",
            ) from None
        return folder
    raise RoteError(f"too many jobs were started in {root} at once", help="wait a second")


def _write(file: Path, data: Mapping[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(json.dumps(data), encoding="utf-8")
    temporary.replace(file)


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
    return env


_CHILDREN: dict[int, subprocess.Popen] = {}


def _reap() -> None:
    """Collect workers of this process that have ended."""
    for pid in [pid for pid, child in _CHILDREN.items() if child.poll() is not None]:
        del _CHILDREN[pid]
