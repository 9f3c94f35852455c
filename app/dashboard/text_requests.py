"""Attention on a text of one's own: requested on the Head page, computed by a worker process. No Streamlit, no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import remove
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.formats import format_at
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.dashboard import findings, jobs
from byrote.dashboard.state import place_of
from byrote.dashboard.tasks import TEXT, Task
from byrote.probes.attention import FORMAT, WRITTEN_BYTES, StoredText, stored_texts
from byrote.probes.results import Results

MAX_CHARS = 4000
MAX_TOKENS = 512
MAX_STEPS = 12
MAX_BYTES_OVER_STEPS = 500e6  # of one text at all its steps
LIMIT_S = 900.0  # for each checkpoint
MAX_ANSWERS, MAX_BYTES = 100, 2e9  # stored per results folder
PLACE, ANSWER = "own_text", "attention.safetensors"
BYTES_PER_S = 150e6  # reading and placing weights; the libraries take about as long as a small model
LIBRARIES_S = 10.0


@dataclass(frozen=True)
class Request:
    """One text at one checkpoint.

    Attributes:
        folder: of its files.
        job: the worker's, None before it is started.
    """

    folder: Path
    job: jobs.Job | None

    @property
    def file(self) -> Path:
        """What the worker writes."""
        return self.folder / ANSWER

    @property
    def running(self) -> bool:
        """Whether the worker is at it."""
        return self.job is not None and self.job.running

    def texts(self) -> list[StoredText]:
        """The result; [] while there is none."""
        return stored_texts(self.file)

    def failure(self) -> list[str]:
        """Why there is no answer, in lines; [] while one may come."""
        return [] if self.file.is_file() else _failure(self.job)


@dataclass(frozen=True)
class OverSteps:
    """One text at several checkpoints of a run.

    Attributes:
        files: step -> answer, of every checkpoint of the run at which the text was measured, ascending.
        missing: steps to measure in addition, the one looked at first.
        job: the last worker that measured this text at several steps; None where there was none.
    """

    files: dict[int, Path]
    missing: tuple[int, ...]
    job: jobs.Job | None

    @property
    def running(self) -> bool:
        """Whether a worker is at it."""
        return self.job is not None and self.job.running

    @property
    def progress(self) -> tuple[int, int]:
        """How many checkpoints the worker has done, and of how many."""
        current = self.job.current if self.job is not None else None
        n_steps = len(self.job.task.options["steps"]) if self.job is not None else 0
        return (min(int(current["done"]), n_steps) if current else 0), n_steps

    def failure(self) -> list[str]:
        """What the worker could not measure and why, in lines; [] while it runs and where nothing is missing."""
        return _failure(self.job) if self.missing else []


def _failure(job: jobs.Job | None) -> list[str]:
    if job is None or job.running:
        return []
    if job.state == "cancelled":
        return ["Cancelled."]
    if job.errors:
        return list(job.errors)
    return [f"The worker {job.death or 'ended without an answer'}.", *job.lines[-5:]]


@dataclass(frozen=True)
class Cost:
    """What a text will take.

    Attributes:
        n_bytes: of the checkpoint's files; None where they have still to be fetched.
        seconds: about how long.
        most_tokens: how many fit.
        has_tokenizer: False: the text is read as token ids.
    """

    n_bytes: int | None
    seconds: float | None
    most_tokens: int
    has_tokenizer: bool


def cost(run: Results, steps: Sequence[int]) -> Cost:
    """What running a text at some steps takes; nothing is loaded.

    Raises:
        ByroteError: a checkpoint is not where it was.
    """
    checkpoints = [checkpoint_of(run, step) for step in steps]
    there = all(one.files for one in checkpoints)
    n_bytes = sum(one.size_bytes or 0 for one in checkpoints) if there else None
    seconds = None if n_bytes is None else LIBRARIES_S + n_bytes / BYTES_PER_S
    return Cost(n_bytes, seconds, most_tokens(run, len(steps)), tokenizer_of(checkpoints[0]) is not None)


def most_tokens(run: Results, n_steps: int = 1) -> int:
    """How many tokens fit: the model's context, at most `MAX_TOKENS`, and what may be stored of several steps."""
    n_ctx = (run.meta.get("model") or {}).get("n_ctx")
    most = min(n_ctx, MAX_TOKENS) if isinstance(n_ctx, int) and n_ctx > 1 else MAX_TOKENS
    if n_steps == 1:
        return most
    n_layers, n_heads = run.shape
    room = MAX_BYTES_OVER_STEPS / (n_steps * max(1, n_layers * n_heads))  # n (n + WRITTEN_BYTES) for n tokens
    return min(most, math.isqrt(int(room) + (WRITTEN_BYTES // 2) ** 2) - WRITTEN_BYTES // 2)


def request(run: Results, step: int, text: str) -> Request:
    """The request for a text, started or not: the same text on the same files is computed once.

    Raises:
        ByroteError: a text that is too long or is none, or the checkpoint is not where it was.
    """
    _refuse(text)
    name = answer_name(checkpoint_of(run, step), text)
    return Request(_place(run, name), _job(run, name))


def over_steps(run: Results, step: int, text: str) -> OverSteps:
    """At which steps a text was measured, and at which it can be measured in addition.

    Those are at most `MAX_STEPS`: the one looked at, that of the run's first event, and others spread evenly from the
    first to the last, as far as their checkpoints are still there.

    Raises:
        ByroteError: a text that is too long or is none, or the checkpoints are not where they were.
    """
    _refuse(text)
    known = set(run.all_steps)
    there = {one.step: one for one in _series_of(run).checkpoints if one.step in known}
    files = {s: _place(run, answer_name(one, text)) / ANSWER for s, one in sorted(there.items())}
    files = {s: file for s, file in files.items() if file.is_file()}
    events = [s for s, _ in findings.events(run)][:1]
    wanted = findings.spread(sorted(there), MAX_STEPS - 2, [s for s in (step, *events) if s in there])
    missing = sorted((s for s in wanted if s not in files), key=lambda s: (s != step, s))
    return OverSteps(files, tuple(missing), _job(run, _name_over(run, text)))


def begin(run: Results, step: int, text: str) -> Request:
    """Start the worker, unless the answer is there or on its way.

    Raises:
        ByroteError: the checkpoints are not where they were, or the user's state directory cannot be written.
    """
    answer = request(run, step, text)
    if answer.file.is_file() or answer.running:
        return answer
    return Request(answer.folder, _start(run, [step], text, answer.folder.name))


def begin_over(run: Results, step: int, text: str) -> OverSteps:
    """Start the worker on every step that is missing, unless there is none or it is running.

    Raises:
        ByroteError: as `begin`.
    """
    now = over_steps(run, step, text)
    if now.running or not now.missing:
        return now
    return replace(now, job=_start(run, now.missing, text, _name_over(run, text)))


def _start(run: Results, steps: Sequence[int], text: str, name: str) -> jobs.Job | None:
    options = {"steps": [*steps], "text": text, "most_tokens": most_tokens(run, len(steps))}
    task = Task(TEXT, (str(series_path(run)),), options)
    job = jobs.start(run.path.parent, task, within=(PLACE, name), limit_s=LIMIT_S * len(steps))
    _forget_oldest(place_of(run.path.parent, PLACE))
    return jobs.read_job(job)


def _refuse(text: str) -> None:
    if len(text) > MAX_CHARS:
        raise ByroteError(f"the text has {len(text):,} characters", help=f"at most {MAX_CHARS:,} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ByroteError(
            "the text contains half of a surrogate pair, which is not a character", help="paste it again"
        ) from None


def answer_name(checkpoint: Checkpoint, text: str) -> str:
    """The name of the folder for a text at a checkpoint: files that changed get another."""
    marks = [file_stamp(file, missing_ok=True) for file in checkpoint.files]
    return _hashed([FORMAT, str(checkpoint.path), checkpoint.step, marks, text])


def _name_over(run: Results, text: str) -> str:
    """The same for the jobs that measure it at several."""
    return _hashed([FORMAT, str(series_path(run)), "over steps", text])


def _hashed(parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def _place(run: Results, name: str) -> Path:
    return place_of(run.path.parent, PLACE, name)


def _job(run: Results, name: str) -> jobs.Job | None:
    """The last one."""
    found = jobs.all_jobs(run.path.parent, within=(PLACE, name), most=1)
    return found[0] if found else None


def again(answer: Request) -> Request:
    """The request as it stands now."""
    return replace(answer, job=answer.job and jobs.read_job(answer.job.folder))


def series_path(run: Results) -> Path:
    """Where the run's checkpoints are.

    Raises:
        ByroteError: not recorded, or no longer there.
    """
    path = run.series_place
    if path is None or format_at(path) is None:
        raise ByroteError(
            f"the checkpoints of {run.run} are not at {path}",
            help="a text of your own needs them: put them back there, or start the dashboard where the sweep was run",
        )
    return path


def checkpoint_of(run: Results, step: int) -> Checkpoint:
    """The checkpoint behind a step of the results.

    Raises:
        ByroteError: it is not where it was.
    """
    return _series_of(run).at(step)


def _series_of(run: Results) -> CheckpointSeries:
    path = series_path(run)
    return _series(path, file_stamp(path, missing_ok=True))


@lru_cache(maxsize=8)
def _series(path: Path, stamp: FileStamp) -> CheckpointSeries:
    """Opening reads names and small files; `stamp` makes a folder that got another step another key."""
    return open_series(path)


def _forget_oldest(place: Path) -> None:
    """The newest answers stay; one that is still computed is among them."""
    with suppress(OSError):
        newest_first = sorted(
            (p for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")),
            key=lambda p: -file_stamp(p, missing_ok=True)[1],
        )
        n_bytes = 0
        for at, old in enumerate(newest_first):
            size = file_stamp(old / ANSWER, missing_ok=True)[0]
            n_bytes += size
            if at >= MAX_ANSWERS or (size and at > MAX_STEPS and n_bytes > MAX_BYTES):
                remove(old)
