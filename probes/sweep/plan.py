"""What a sweep will measure: which stimuli, which probes share them, and what makes a stored unit reusable. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from byrote.probes.spec import Plugin, ProbeInfo
from byrote.probes.statistics import INTERVALS
from byrote.probes.sweep.config import SweepConfig

WEIGHTS = "weights"


@dataclass(frozen=True)
class Group:
    """Probes measured together and stored as one unit.

    Probes that read one forward pass share their stimulus's group; those that read weights share one without a pass;
    a "direct" probe runs the model itself and is a group of its own.

    Attributes:
        stimuli: stimulus kinds shown, the main one first; empty for weights.
        probes: the members.
    """

    stimuli: tuple[str, ...]
    probes: tuple[ProbeInfo, ...]

    @property
    def direct(self) -> bool:
        """Whether its one probe runs the model itself."""
        return self.probes[0].kind == "direct"

    @property
    def key(self) -> str:
        """What its units are called: the stimulus, `weights`, or stimulus+probe."""
        if not self.stimuli:
            return WEIGHTS
        return f"{self.stimuli[0]}+{self.probes[0].name}" if self.direct else self.stimuli[0]


def groups(infos: Sequence[ProbeInfo]) -> tuple[Group, ...]:
    """One group per stimulus kind in first-use order, then weights, then each direct probe.

    Plugins have groups of their own: a plugin that is edited is measured again without byrote's own probes.
    """
    shared: dict[tuple[tuple[str, ...], Plugin | None], list[ProbeInfo]] = {}
    weights: dict[Plugin | None, list[ProbeInfo]] = {}
    for info in infos:
        if info.kind in ("head", "model"):
            for kind in info.stimuli:
                shared.setdefault(((kind,), info.plugin), []).append(info)
        elif info.kind == "weights":
            weights.setdefault(info.plugin, []).append(info)
    return (
        *(Group(stimuli, tuple(members)) for (stimuli, _), members in shared.items()),
        *(Group((), tuple(members)) for members in weights.values()),
        *(Group(info.stimuli, (info,)) for info in infos if info.kind == "direct"),
    )


def provenance(config: SweepConfig, *, fingerprint: str, format: str, stimulus: str) -> dict[str, Any]:
    """What a stored unit must agree with to be reused, its probes apart.

    How weights got into memory (swapped or fresh) is left out: both are proved to give the same bits.
    """
    return {
        "fingerprint": fingerprint,
        "format": format,
        "stimulus": stimulus,
        "seed": config.seed,
        "dtype": config.dtype,
        "device": config.device.split(":")[0],
        "weight_processing": "raw",
        "intervals": INTERVALS,
        "versions": dict(config.versions),
    }


def probe_versions(infos: Sequence[ProbeInfo]) -> dict[str, int]:
    """Probe name -> version of its numbers."""
    return {info.name: info.version for info in infos}


def contents(infos: Sequence[ProbeInfo]) -> dict[str, Any]:
    """What a unit says of the probes in it: their versions, and where those of plugins came from."""
    plugins = {info.name: asdict(info.plugin) for info in infos if info.plugin is not None}
    return {"probes": probe_versions(infos), **({"plugins": plugins} if plugins else {})}


def unit_name(key: str, infos: Sequence[ProbeInfo]) -> str:
    """File name of a unit: readable group key, short hash of the probes in it."""
    text = json.dumps(probe_versions(infos), sort_keys=True)
    return f"{key}.{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}.parquet"
