"""Attention on a text of one's own: asked for on the Head page, computed by a worker process. No Streamlit, no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from app.dashboard import jobs
from app.dashboard.saved import SavedRun
from checkpoints.errors import RoteError
from checkpoints.formats import FORMATS
from probes.attention import StoredText, texts_in

MAX_CHARS = 4000


@dataclass(frozen=True)
class Request:
    """One text at one checkpoint.

    Attributes:
        folder: where its files are kept.
        job: the worker's, None before it is started.
    """

    folder: Path
    job: jobs.Job | None

    @property
    def file(self) -> Path:
        """What the worker writes."""
        return self.folder / "attention.safetensors"

    def texts(self) -> list[StoredText]:
        """The result; [] while there is none."""
        return texts_in(self.file)


def request(run: SavedRun, step: int, text: str) -> Request:
    """The request for a text, started or not: the same text at the same step is computed once."""
    if len(text) > MAX_CHARS:
        raise RoteError(f"the text has {len(text):,} characters", help=f"at most {MAX_CHARS:,} are read here")
    name = hashlib.blake2b(
        f"{run.path}\0{run.identity!r}\0{step}\0{text}".encode(), digest_size=8
    ).hexdigest()
    folder = run.path.parent / jobs.FOLDER / "own_text" / name
    return Request(folder, _job(folder))


def begin(run: SavedRun, step: int, text: str) -> Request:
    """Start the worker, unless the answer is there or on its way.

    Raises:
        RoteError: the checkpoints are not where they were, or nothing can be written beside the results.
    """
    asked = request(run, step, text)
    if asked.file.is_file() or (asked.job is not None and asked.job.running):
        return asked
    series = series_path(run)
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RoteError(
            f"cannot write beside {run.path} ({error.strerror})", help="open results you can write to"
        ) from None
    bos = (run.meta.get("vocabulary") or {}).get("bos")
    wanted = {"series": str(series), "step": step, "text": text, "out": str(asked.file), "bos": bos}
    (asked.folder / "request.json").write_text(json.dumps(wanted), encoding="utf-8")
    job = jobs.start(asked.folder, ["-m", "app.dashboard.attend", str(asked.folder / "request.json")])
    return Request(asked.folder, jobs.read_job(job))


def series_path(run: SavedRun) -> Path:
    """Where the run's checkpoints are.

    Raises:
        RoteError: not recorded, or no longer there.
    """
    held = (run.meta.get("series") or {}).get("path")
    path = Path(str(held)) if held else None
    if path is None or not any(module.sniff(path) for module in FORMATS.values() if path.exists()):
        raise RoteError(
            f"the checkpoints of {run.name} are not at {path}",
            help="a text of your own needs them: put them back there",
        )
    return path


def model_bytes(run: SavedRun, step: int) -> int | None:
    """Size of the checkpoint's files, which is about what loading it takes; None where unknown."""
    path = series_path(run)
    folders = (
        [f for f in path.iterdir() if f.is_dir() and any(c.isdigit() for c in f.name)]
        if path.is_dir()
        else []
    )
    mine = [
        f
        for f in folders
        if f.name.rstrip("/").endswith(f"{step:08d}") or f.name.split("-")[-1].split("step")[-1] == str(step)
    ]
    return sum(p.stat().st_size for p in mine[0].rglob("*") if p.is_file()) if mine else None


def _job(folder: Path) -> jobs.Job | None:
    found = jobs.all_jobs(folder) if folder.is_dir() else []
    return found[0] if found else None
