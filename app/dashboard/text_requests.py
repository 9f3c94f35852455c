"""Attention on a text of one's own: requested on the Head page, computed by a worker process. No Streamlit, no torch."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from byrote.checkpoints.atomic import remove
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.formats import format_at
from byrote.checkpoints.opening import open_series
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp
from byrote.checkpoints.vocabulary import tokenizer_of
from byrote.dashboard import jobs
from byrote.dashboard.state import place_of
from byrote.dashboard.tasks import TEXT, Task
from byrote.probes.attention import FORMAT, StoredText, stored_texts
from byrote.probes.results import Results

MAX_CHARS = 4000
MAX_TOKENS = 512
LIMIT_S = 900.0
MAX_ANSWERS = 20
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
        job = self.job
        if job is None or job.running or self.file.is_file():
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


def cost(run: Results, step: int) -> Cost:
    """What running a text at a step takes; nothing is loaded.

    Raises:
        ByroteError: the checkpoint is not where it was.
    """
    checkpoint = checkpoint_of(run, step)
    n_bytes = checkpoint.size_bytes if checkpoint.files else None
    seconds = None if n_bytes is None else LIBRARIES_S + n_bytes / BYTES_PER_S
    return Cost(n_bytes, seconds, most_tokens(run), tokenizer_of(checkpoint) is not None)


def most_tokens(run: Results) -> int:
    """How many tokens fit: the model's context, at most `MAX_TOKENS`."""
    n_ctx = (run.meta.get("model") or {}).get("n_ctx")
    return min(n_ctx, MAX_TOKENS) if isinstance(n_ctx, int) and n_ctx > 1 else MAX_TOKENS


def request(run: Results, step: int, text: str) -> Request:
    """The request for a text, started or not: the same text on the same files is computed once.

    Raises:
        ByroteError: a text that is too long or is none, or the checkpoint is not where it was.
    """
    if len(text) > MAX_CHARS:
        raise ByroteError(
            f"the text has {len(text):,} characters", help=f"at most {MAX_CHARS:,} are read here"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ByroteError("the text holds half a character", help="paste it again") from None
    checkpoint = checkpoint_of(run, step)
    marks = [file_stamp(file, missing_ok=True) for file in checkpoint.files]
    named = json.dumps([FORMAT, str(checkpoint.path), step, marks, text])
    name = hashlib.blake2b(named.encode(), digest_size=8).hexdigest()
    found = jobs.all_jobs(run.path.parent, within=(PLACE, name), most=1)
    return Request(place_of(run.path.parent, PLACE, name), found[0] if found else None)


def begin(run: Results, step: int, text: str) -> Request:
    """Start the worker, unless the answer is there or on its way.

    Raises:
        ByroteError: the checkpoints are not where they were, or the user's state directory cannot be written.
    """
    answer = request(run, step, text)
    if answer.file.is_file() or answer.running:
        return answer
    options = {"step": step, "text": text, "most_tokens": most_tokens(run)}
    task = Task(TEXT, (str(series_path(run)),), options)
    job = jobs.start(run.path.parent, task, within=(PLACE, answer.folder.name), limit_s=LIMIT_S)
    _forget_oldest(answer.folder.parent)
    return Request(answer.folder, jobs.read_job(job))


def again(answer: Request) -> Request:
    """The request as it stands now."""
    return Request(answer.folder, None if answer.job is None else jobs.read_job(answer.job.folder))


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
    path = series_path(run)
    return _series(path, file_stamp(path, missing_ok=True)).at(step)


@lru_cache(maxsize=8)
def _series(path: Path, stamp: FileStamp) -> CheckpointSeries:
    """Opening reads names and small files; `stamp` makes a folder that got another step another key."""
    return open_series(path)


def _forget_oldest(folder: Path) -> None:
    """The newest answers stay; one that is still computed is among them."""
    with suppress(OSError):
        newest_first = sorted(
            (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")),
            key=lambda p: -file_stamp(p, missing_ok=True)[1],
        )
        for old in newest_first[MAX_ANSWERS:]:
            remove(old)
