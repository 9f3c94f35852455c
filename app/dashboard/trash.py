"""Removing a results folder: moved aside, never deleted. No Streamlit, no torch.

It goes to `.removed/<name>-<date>` beside where it was, which no page and no command looks into.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from byrote.checkpoints.atomic import LOCK, locked, make_folder, move
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import own_path
from byrote.dashboard import jobs
from byrote.dashboard.library import run_folders
from byrote.dashboard.tasks import Task
from byrote.probes.results import Results
from byrote.probes.sweep.folder import shards_at_work
from byrote.probes.wording import shell_line

REMOVED = ".removed"
_WAIT = "wait for it, or cancel it; finished work is not lost"


def remove(folder: Path, opened: Sequence[Path]) -> Path:
    """Move a results folder away.

    Args:
        folder: which.
        opened: what the dashboard was opened on; nothing outside is touched.

    Returns:
        Where it is now.

    Raises:
        ByroteError: it is no results folder in there, it is being written to, or it cannot be moved.
    """
    refuse_foreign(folder, opened)
    refuse_busy(folder)
    with _locked(folder):
        _refuse_shards(folder)
        try:
            aside = own_path(folder.parent, REMOVED)
            make_folder(aside)
            target = _free(aside / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}")
            move(folder, target)
        except OSError as error:
            raise ByroteError(
                f"{folder} cannot be moved ({error.strerror or error})",
                help="nothing was changed; move it by hand",
            ) from None
    return target


def back_again(target: Path, folder: Path) -> str:
    """The command that brings it back."""
    return shell_line(["mv", "--", str(target), str(folder)])


def refuse_foreign(folder: Path, opened: Sequence[Path]) -> None:
    """Only what the dashboard shows as results, as it lies there itself, may be moved.

    Raises:
        ByroteError: anything else.
    """
    if folder not in run_folders(opened):
        raise ByroteError(
            f"{folder} is not a results folder among those that were opened",
            help="to remove it, move it by hand",
        )
    if folder.is_symlink():
        raise ByroteError(
            f"{folder} is a link, not a folder", help="remove the link by hand; its results stay"
        )
    if folder.parent.resolve() == folder.resolve():
        raise ByroteError(
            "the dashboard was opened inside this folder", help="open the dashboard on its parent folder"
        )


def refuse_busy(folder: Path) -> None:
    """Results that change while they are looked at tell nothing.

    Raises:
        ByroteError: a sweep is writing there, or a job is about to.
    """
    for job in jobs.all_jobs(folder.parent):
        if job.running and _may_write(job.task, folder):
            raise ByroteError(f"a job is running on {folder.name}", help=_WAIT)
    lock = folder / LOCK
    if lock.is_file() and os.access(
        lock, os.W_OK
    ):  # else nobody has swept, or another user may not be disturbed
        with _locked(folder):
            _refuse_shards(folder)


def _refuse_shards(folder: Path) -> None:
    """Shards hold the folder's lock for moments alone, and locks of their own for as long as they work."""
    if shards_at_work(folder):
        raise ByroteError(f"a sweep is writing to {folder.name}", help=_WAIT)


def _locked(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock that every sweep of this folder acquires; a ByroteError where one holds it."""
    return locked(
        folder / LOCK,
        busy=ByroteError(f"a sweep is writing to {folder.name}", help=_WAIT),
        refused=lambda error: ByroteError(
            f"{folder} cannot be locked ({error.strerror})", help="ask its owner"
        ),
    )


def _may_write(task: Task, folder: Path) -> bool:
    """Whether a job measures the series of these results, or a folder of series that it is one of."""
    mine = _series_path(folder)
    return any(
        mine is None
        or read == mine
        or read in mine.parents
        or mine in read.parents
        or folder.name == read.name
        for read in jobs.checkpoints_of(task)
    )


def _series_path(folder: Path) -> Path | None:
    """Where run.json says the checkpoints are; None where it does not."""
    try:
        place = Results.open(folder).series_place
        return None if place is None else place.resolve()
    except (ByroteError, OSError):
        return None


def _free(target: Path) -> Path:
    """The name, or with a number where it is taken."""
    for name in (target.name, *(f"{target.name}-{i}" for i in range(2, 100))):
        if not (found := target.with_name(name)).exists():
            return found
    raise ByroteError(f"{target.parent} contains too many folders of that name", help="empty it")
