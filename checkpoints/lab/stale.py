"""Runs that were made from another run which has been trained again since. No torch.

What was made before training is stored with the run, and its manifest has the hash of the weights it was made with. The other
run may go; where it is there and its weights are others now, a run of the same grid would be made from others too: it is stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.folder import MADE, SeriesFolder
from byrote.checkpoints.lab.other_run import written_weights


def stale_because(folder: SeriesFolder) -> str:
    """Which run the run in a folder was made from has been trained again since; "" where none has.

    Args:
        folder: of a run, with the configuration it is to have.
    """
    manifest = folder.manifest or {}
    recorded = manifest.get(MADE)
    listed = [one for one in recorded if isinstance(one, Mapping)] if isinstance(recorded, list) else []
    by_part = {one["part"]: one for one in listed if type(one.get("part")) is int}
    for number, part in enumerate(folder.config.arm.made_of):
        for setting in part.runs if part.reads_weights else ():
            name = getattr(part, setting)
            source = _source(by_part.get(number), setting)
            if not name or source is None:
                continue
            step = (
                getattr(part, "step", 0) if setting == part.runs[-1] else 0
            )  # of the run that is named last
            now = written_weights((folder.path / name).resolve(), step=step)
            if now is not None and now != source.get("weights"):
                return str(source.get("run") or Path(name).name)
    return ""


def _source(entry: Any, setting: str) -> Mapping[str, Any] | None:
    """What a manifest has of the weights that a setting of a part names; None where it has nothing."""
    if not isinstance(entry, Mapping):
        return None
    named = entry.get(setting)
    found = named if isinstance(named, Mapping) else entry
    return found if isinstance(found.get("weights"), str) else None


def require_current(folder: SeriesFolder) -> None:
    """Refuse to go on with a run, or to call it complete, where the run it was made from has been trained again since.

    Raises:
        ByroteError: naming both.
    """
    if other := stale_because(folder):
        raise ByroteError(
            f"{folder.path} was made from weights of {other}, which was retrained since and now has different weights",
            help="pass --fresh to train it again, or move it away to preserve it as it is",
        )
