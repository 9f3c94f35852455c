"""Train one arm into a folder; resumed after an interruption at any moment, it ends in the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from byrote.checkpoints import atomic
from byrote.checkpoints.errors import PlaceError
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.folder import SeriesFolder, cannot_write, explained
from byrote.checkpoints.lab.stale import require_current

OnEvent = Callable[[dict[str, Any]], None]


def train(
    out: str | Path, config: LabConfig, *, fresh: bool = False, on_event: OnEvent | None = None
) -> Path:
    """Train a series, go on with an interrupted one, or find it complete and do nothing.

    Equal configurations give equal weights, byte for byte, on one machine and one torch version, however
    often training was interrupted.

    Args:
        out: the series' folder: missing, empty, or holding a series of this configuration.
        config: what to train.
        fresh: delete the series that is there, whatever its configuration, and start from step 0.
        on_event: called with a dictionary, always with the key `event`:
            `step` about twice a second (step, total, train_loss_nats, steps_per_s, eta_s),
            `checkpoint` for each written step (its manifest entry and total),
            `resumed` (step), `unverified` (reason: a series of version 0.1 has no hashes of its files), `done` (path, steps, already_complete).

    Returns:
        The folder.

    Raises:
        ByroteError: the folder holds something else, a series of another configuration, or one made from a run that has
            been trained again since, or cannot be written to; training diverged; the device is not there.
    """
    folder = SeriesFolder(Path(out), config)  # refuses before anything is created
    emit = on_event or (lambda event: None)
    with explained(folder.path):
        atomic.make_folder(folder.path)
    with locked(folder.path), explained(folder.path):
        folder = SeriesFolder(folder.path, config)  # again, now that nobody else can write
        if fresh:
            if folder.manifest is not None:
                folder.clear()
        else:
            folder.require_same()
            require_current(folder)
        already_complete = folder.complete
        if already_complete:
            folder.require_steps()
            folder.tidy()
        else:
            from byrote.checkpoints.lab.loop import run  # the only way to torch: looking needs none

            run(folder, emit)
        emit(
            {
                "event": "done",
                "path": str(folder.path),
                "steps": config.steps,
                "already_complete": already_complete,
            }
        )
    return folder.path


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold a folder for this process; the lock ends with the process, however it ends.

    Raises:
        ByroteError: another process trains in this folder now, or it cannot be written to.
    """
    return atomic.locked(
        folder / atomic.LOCK,
        busy=PlaceError(
            f"another process is training in {folder}", help="wait for it, or choose another folder"
        ),
        refused=lambda error: cannot_write(folder, error),
    )
