"""Which probes share a stimulus, and so a forward pass and a stored unit. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from byrote.probes.spec import Plugin, ProbeInfo

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
    for info in infos:
        if info.kind in ("head", "model"):
            for kind in info.stimuli:
                shared.setdefault(((kind,), info.plugin), []).append(info)
    for info in infos:
        if info.kind == "weights":
            shared.setdefault(((), info.plugin), []).append(info)
    return (
        *(Group(stimuli, tuple(members)) for (stimuli, _), members in shared.items()),
        *(Group(info.stimuli, (info,)) for info in infos if info.kind == "direct"),
    )
