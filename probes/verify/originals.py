"""The checkpoints that were measured against what lies at their place now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.series import Checkpoint, open_series
from byrote.probes.sweep.ahead import FingerprintCache
from byrote.probes.verify.notes import Notes, mapping
from byrote.probes.wording import counted

MAX_HASHED_BYTES = 500_000_000


def check_checkpoints(root: Path, meta: Mapping[str, Any], weights: Mapping[int, str], notes: Notes) -> None:
    """Compare by size and time of the files; by content, the costly way, only where these changed.

    Args:
        root: the results folder.
        meta: run.json, which says where the series was.
        weights: step -> fingerprint its units name.
        notes: gets what is found.
    """
    path = str(mapping(meta.get("series")).get("path") or "")
    if not path or not Path(path).exists():
        notes.checked.append("the checkpoints are not where they were: not compared")
        return
    try:
        now = {checkpoint.step: checkpoint for checkpoint in open_series(path)}
    except CheckpointError as error:
        notes.add(f"the checkpoints cannot be opened: {error.message}")
        return
    cache = FingerprintCache(root / "fingerprints.json")
    hashed, unknown = 0, 0
    for step, measured in weights.items():
        if step not in now:
            notes.add("checkpoints are no longer there", f"step {step:,}")
            continue
        try:
            found, fresh = _identity(now[step], cache)
        except (CheckpointError, OSError):
            notes.add("checkpoints can no longer be read", f"step {step:,}")
            continue
        hashed, unknown = hashed + fresh, unknown + (found is None)
        if found not in (None, measured):
            notes.add("checkpoints have other weights than those that were measured", f"step {step:,}")
    told = f"{counted(len(weights.keys() & now.keys()), 'checkpoint')} by size and time of their files"
    told += f", {hashed:,} of them by content because these had changed" if hashed else ""
    told += f"; {unknown:,} of them changed in size or time and too large to hash here" if unknown else ""
    notes.checked.append(told)


def _identity(checkpoint: Checkpoint, cache: FingerprintCache) -> tuple[str | None, bool]:
    """(fingerprint, whether its content was hashed for it); None where that would take too long.

    Raises:
        CheckpointError: its files cannot be read.
    """
    known = cache.of(checkpoint)
    if known is not None:
        return fingerprint(known), False
    if checkpoint.size_bytes > MAX_HASHED_BYTES:
        return None, False
    return fingerprint(model_hashes(checkpoint)), True
