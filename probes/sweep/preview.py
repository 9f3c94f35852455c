"""What a sweep would do, without doing it: units missing and stored, forward passes. No torch, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.series import CheckpointSeries
from byrote.probes.results.units import step_folder
from byrote.probes.sweep.ahead import FingerprintCache
from byrote.probes.sweep.folder import refuse_other_series
from byrote.probes.sweep.plan import WEIGHTS, SweepConfig
from byrote.probes.sweep.setting import Setting
from byrote.probes.sweep.units import Units


@dataclass(frozen=True)
class Preview:
    """What a sweep would do.

    Attributes:
        path: the results folder.
        to_measure: units that are missing or no longer agree with the weights or settings.
        stored: units that would be reused.
        forward_passes: units to measure that need the model run; the others read weights only.
    """

    path: Path
    to_measure: int
    stored: int
    forward_passes: int


def preview(
    series: CheckpointSeries, config: SweepConfig, *, out: str | Path, fresh: bool = False
) -> Preview:
    """Count what `sweep` with the same arguments would measure and reuse.

    Stored units are looked at one by one, as the sweep does: weights are hashed, no model is built.

    Raises:
        ByroteError: the results folder belongs to another series.
        CheckpointError: a checkpoint cannot be read.
    """
    root = Path(out) / series.name
    known = FingerprintCache(root / "fingerprints.json")
    setting = Setting(series, config, root)
    units = Units(root, config, setting)
    missing: list[str] = []
    if not fresh:
        refuse_other_series(root, series)
        setting.recall()
    for checkpoint in series:
        if not setting.shape or not step_folder(root, checkpoint.step).is_dir():
            # Nothing is stored, so nothing has to be hashed.
            missing += [group.key for group in units.wanted]
            continue
        identity = fingerprint(known.of(checkpoint) or model_hashes(checkpoint))
        missing += [todo.group.key for todo in units.look(checkpoint, identity).missing]
    return Preview(
        path=root,
        to_measure=len(missing),
        stored=len(series) * len(units.wanted) - len(missing),
        forward_passes=sum(stimulus != WEIGHTS for stimulus in missing),
    )
