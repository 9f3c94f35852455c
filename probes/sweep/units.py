"""Which units a results folder holds, which are missing, and which no longer say the truth. No torch.

A unit is what one pass measured at one checkpoint. It carries its provenance; one that disagrees with the weights, the
versions or the settings asked for is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.probes.attention import lacks_attention
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured, unit_table
from byrote.probes.results.units import step_folder, unit_provenance, write_unit
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import refuse_other_series
from byrote.probes.sweep.plan import WEIGHTS, Group, contents, groups, provenance, unit_name
from byrote.probes.sweep.prefetch import FingerprintCache
from byrote.probes.sweep.stimulus_set import StimulusSet


@dataclass(frozen=True)
class Found:
    """What one checkpoint holds and lacks.

    Attributes:
        missing: groups still to measure, each with those of its probes that are lacking.
        superseded: units of other weights or settings.
    """

    missing: list[Group]
    superseded: list[Path]

    def remove_superseded(self) -> int:
        """Before anything new is written, so that a kill never leaves numbers of two sets of weights side by side.

        Returns:
            How many were removed.
        """
        for path in self.superseded:
            path.unlink()
        return len(self.superseded)


class Units:
    """The units of one results folder, as a sweep with these settings sees them.

    Args:
        root: the results folder.
        config: what is asked for.
        stimuli: what the models are shown.
    """

    def __init__(self, root: Path, config: SweepConfig, stimuli: StimulusSet) -> None:
        self.root, self.config, self.stimuli = root, config, stimuli
        self.wanted = groups(config.infos)

    def look(self, checkpoint: Checkpoint, identity: str) -> Found:
        """What of this checkpoint is still to measure, and what is superseded; every stored unit is read once.

        Probes already stored with equal provenance are left out.
        """
        current: dict[str, set[str]] = {}
        superseded = []
        for path in sorted(step_folder(self.root, checkpoint.step).glob("*.parquet")):
            key, found = path.name.split(".")[0], unit_provenance(path)
            probes, plugins = found.pop("probes", {}), found.pop("plugins", {})
            stimulus = self._wanted_stimulus(key, probes) or str(found.get("stimulus", ""))
            if found == self._provenance(checkpoint, identity, stimulus) and all(
                _current(name, version, plugins.get(name)) for name, version in probes.items()
            ):
                current.setdefault(key, set()).update(probes)
            else:
                superseded.append(path)
        lacking = (
            Group(g.stimuli, tuple(i for i in g.probes if i.name not in current.get(g.key, ())))
            for g in self.wanted
        )
        return Found([group for group in lacking if group.probes], superseded)

    def write(
        self, group: Group, measured: Sequence[Measured], *, run: str, checkpoint: Checkpoint, identity: str
    ) -> None:
        """Write one unit with what it says of itself, whole or not at all.

        Args:
            group: what was measured.
            measured: its numbers.
            run: name of the run.
            checkpoint: that was measured.
            identity: hash of its weights.
        """
        table = unit_table(measured, run=run, step=checkpoint.step, tokens_seen=checkpoint.tokens_seen)
        stimulus = self.stimuli.ids_of(group.stimuli) or group.key
        facts = self._provenance(checkpoint, identity, stimulus) | contents(group.probes)
        write_unit(step_folder(self.root, checkpoint.step) / unit_name(group.key, group.probes), table, facts)

    def lacks_attention(self, checkpoint: Checkpoint, identity: str) -> bool:
        """Whether attention was asked to be kept and is not."""
        return self.config.save_attention and lacks_attention(
            self.root, checkpoint.step, fingerprint=identity, stimuli=self.stimuli.stimuli
        )

    def _provenance(self, checkpoint: Checkpoint, identity: str, stimulus: str) -> dict[str, Any]:
        return provenance(self.config, fingerprint=identity, format=checkpoint.format, stimulus=stimulus)

    def _wanted_stimulus(self, key: str, probes: Mapping[str, int]) -> str:
        """The stimulus ids a stored unit should name; "" where this sweep draws none of them."""
        kinds = [kind for name in probes if name in REGISTRY for kind in REGISTRY[name].stimuli]
        return self.stimuli.ids_of(kinds if "+" in key else [key])


def _current(name: str, version: int, plugin: Mapping[str, str] | None) -> bool:
    """Whether stored numbers of a probe are what it would give now; those of a plugin that is not loaded are left alone."""
    info = REGISTRY.get(name)
    if info is None or not info.measurable:
        return plugin is not None
    return info.version == version and plugin == (None if info.plugin is None else asdict(info.plugin))


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
    """Count what `sweep` with the same arguments would measure and reuse; nothing is written.

    Stored units are looked at one by one, as the sweep does: weights are hashed, no model is built.

    Raises:
        ByroteError: the results folder belongs to another series.
        CheckpointError: a checkpoint cannot be read.
    """
    root = Path(out) / series.name
    if not fresh:
        refuse_other_series(root, series)
    known, stimuli = FingerprintCache(root / "fingerprints.json"), StimulusSet(series, config, root)
    units = Units(root, config, stimuli)
    missing: list[Group] = []
    for checkpoint in series:
        if fresh or not stimuli.shape or not step_folder(root, checkpoint.step).is_dir():
            missing += units.wanted  # nothing is stored, so nothing has to be hashed
            continue
        identity = fingerprint(known.of(checkpoint) or model_hashes(checkpoint))
        missing += units.look(checkpoint, identity).missing
    return Preview(
        path=root,
        to_measure=len(missing),
        stored=len(series) * len(units.wanted) - len(missing),
        forward_passes=sum(group.key != WEIGHTS for group in missing),
    )
