"""What a sweep will measure: which stimuli, which probes share them, and what makes a stored unit reusable. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from probes.info import ProbeInfo
from probes.registry import resolve

WEIGHTS = "weights"
_VERSIONED = ("torch", "transformer-lens", "transformers", "numpy", "rote")


@dataclass(frozen=True)
class Group:
    """Probes that share one stimulus, and so one forward pass per checkpoint; or share the weights and need none."""

    stimulus: str
    probes: tuple[ProbeInfo, ...]


@dataclass(frozen=True)
class SweepConfig:
    """What was asked; stored in run.json.

    Attributes:
        probes: names, or None for all.
        seed: of stimuli, bootstraps and nulls.
        n_seq: sequences per stimulus.
        device, dtype: where and how the model runs.
        swap: "auto" or "fresh", see `interp.HookedSeries`.
        threads: of torch while measuring; None takes one for a small model, else torch's own choice.
        prefetch: read and hash the next step's files while this one is measured.
        versions: of what can change a number.
    """

    probes: tuple[str, ...] | None = None
    seed: int = 0
    n_seq: int = 32
    device: str = "cpu"
    dtype: str = "float32"
    swap: str = "auto"
    threads: int | None = None
    prefetch: bool = True
    versions: Mapping[str, str] = field(default_factory=lambda: versions())

    @property
    def infos(self) -> tuple[ProbeInfo, ...]:
        """The probes to run, those that verdicts need included."""
        return resolve(self.probes)


def groups(infos: Sequence[ProbeInfo]) -> tuple[Group, ...]:
    """One group per stimulus kind, in first-use order, weights last."""
    by_stimulus: dict[str, list[ProbeInfo]] = {}
    for info in infos:
        for kind in info.stimuli:
            by_stimulus.setdefault(kind, []).append(info)
    weights = [info for info in infos if info.kind == "weights"]
    if weights:
        by_stimulus[WEIGHTS] = weights
    return tuple(Group(kind, tuple(members)) for kind, members in by_stimulus.items())


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
        "versions": dict(config.versions),
    }


def probe_versions(infos: Sequence[ProbeInfo]) -> dict[str, int]:
    """Probe name -> version of its numbers."""
    return {info.name: info.version for info in infos}


def unit_name(stimulus: str, infos: Sequence[ProbeInfo]) -> str:
    """File name of a unit: readable stimulus, short hash of the probes in it."""
    text = json.dumps(probe_versions(infos), sort_keys=True)
    return f"{stimulus}.{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}.parquet"


def versions() -> dict[str, str]:
    """Installed versions of what can change a number."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
