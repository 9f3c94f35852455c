"""Which units a results folder holds, which are missing, and which no longer say the truth. No torch.

A unit is what one pass measured at one checkpoint. It carries its provenance; one that disagrees with the weights, the
versions or the settings asked for is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.series import Checkpoint
from byrote.probes.attention import lacks_attention
from byrote.probes.registry import REGISTRY
from byrote.probes.results.units import step_folder, unit_provenance
from byrote.probes.sweep.plan import Group, SweepConfig, groups, provenance, unit_name
from byrote.probes.sweep.setting import Setting


@dataclass(frozen=True)
class Todo:
    """One unit to measure.

    Attributes:
        group: the probes, and the stimuli they share.
        path: where the unit is written.
    """

    group: Group
    path: Path


@dataclass(frozen=True)
class Found:
    """What one checkpoint holds and lacks.

    Attributes:
        missing: units still to measure.
        superseded: units of other weights or settings.
    """

    missing: list[Todo]
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
        setting: what the models are shown.
    """

    def __init__(self, root: Path, config: SweepConfig, setting: Setting) -> None:
        self.root, self.config, self.setting = root, config, setting
        self.wanted = groups(config.infos)

    def look(self, checkpoint: Checkpoint, identity: str) -> Found:
        """What of this checkpoint is still to measure, and what is superseded; every stored unit is read once.

        Probes already stored with equal provenance are left out.
        """
        current, superseded = self._stored(checkpoint, identity)
        todos = []
        for group in self.wanted:
            lacking = tuple(i for i in group.probes if i.name not in current.get(group.key, ()))
            if lacking:
                path = step_folder(self.root, checkpoint.step) / unit_name(group.key, lacking)
                todos.append(Todo(Group(group.stimuli, lacking), path))
        return Found(todos, superseded)

    def lacks_attention(self, checkpoint: Checkpoint, identity: str) -> bool:
        """Whether attention was asked to be kept and is not."""
        if not self.config.save_attention:
            return False
        return lacks_attention(self.root, checkpoint.step, fingerprint=identity, stimuli=self.setting.stimuli)

    def provenance(self, checkpoint: Checkpoint, identity: str, *, stimulus: str) -> dict[str, Any]:
        """What a unit measured now would say of itself, its probes' versions apart.

        Args:
            checkpoint: that is measured.
            identity: hash of its weights.
            stimulus: ids of what it is shown.
        """
        return provenance(self.config, fingerprint=identity, format=checkpoint.format, stimulus=stimulus)

    def _stored(self, checkpoint: Checkpoint, identity: str) -> tuple[dict[str, set[str]], list[Path]]:
        """Stimulus -> probes stored for these weights and settings; and the units, asked for or not, that are not."""
        current: dict[str, set[str]] = {}
        superseded = []
        for path in sorted(step_folder(self.root, checkpoint.step).glob("*.parquet")):
            key, found = path.name.split(".")[0], unit_provenance(path)
            probes, plugins = found.pop("probes", {}), found.pop("plugins", {})
            wanted = self.provenance(checkpoint, identity, stimulus=self._wanted_stimulus(key, probes, found))
            if found == wanted and all(_current(name, v, plugins.get(name)) for name, v in probes.items()):
                current.setdefault(key, set()).update(probes)
            else:
                superseded.append(path)
        return current, superseded

    def _wanted_stimulus(self, key: str, probes: Mapping[str, int], found: Mapping[str, Any]) -> str:
        """The stimulus ids a stored unit should name; what it does name where this sweep draws none of them."""
        kinds = [key]
        if "+" in key:
            kinds = [kind for name in probes if name in REGISTRY for kind in REGISTRY[name].stimuli]
        return self.setting.ids_of(kinds) or str(found.get("stimulus", ""))


def _current(name: str, version: int, plugin: Mapping[str, str] | None) -> bool:
    """Whether stored numbers of a probe are what it would give now; those of a plugin that is not loaded are left alone."""
    info = REGISTRY.get(name)
    if info is None or not info.measurable:
        return plugin is not None
    return info.version == version and plugin == (None if info.plugin is None else asdict(info.plugin))
