"""Which runs are trained together: those of one shape, small enough for it to pay. No torch.

It is a function of the runs alone, whatever the number of cores: what is trained together decides the last bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.config import LabConfig

MAX_RUNS, MAX_WIDTH, MAX_BATCH = 16, 32, 32  # of a stack; wider models gain nothing


def shape_of(config: LabConfig) -> LabConfig:
    """What runs that are trained together have in common: everything but seed, arm and name."""
    return replace(config, seed=0, arm=Arm(), name="")


def gains(config: LabConfig) -> bool:
    """Whether runs of this shape are trained together: small ones of the native architecture, without dropout or clamps."""
    small = config.d_model <= MAX_WIDTH and config.batch <= MAX_BATCH
    alone = config.dropout or any(part.changes_model for part in config.arm.made_of)
    return small and config.architecture == "native" and not alone


def stacks_of(
    configs: Sequence[LabConfig], levels: Sequence[int] | None = None, *, most: int = MAX_RUNS
) -> tuple[tuple[int, ...], ...]:
    """Runs, by their place, as they are trained together; stacks of one shape are as even as can be.

    Args:
        configs: of the runs, in the order of the plan.
        levels: how many others have to be trained one after another before each; runs of several are not trained together.
        most: runs of a stack.

    Returns:
        Stacks in the order of their first runs; one that holds a single run is trained as any other series.
    """
    shapes: dict[tuple[int, LabConfig], list[int]] = {}
    levels = levels or [0] * len(configs)
    found: list[tuple[int, ...]] = []
    for place, config in enumerate(configs):
        if gains(config):
            shapes.setdefault((levels[place], shape_of(config)), []).append(place)
        else:
            found.append((place,))
    for places in shapes.values():
        n_stacks = -(-len(places) // most)
        ends = [len(places) * k // n_stacks for k in range(n_stacks + 1)]
        found += [tuple(places[a:b]) for a, b in pairwise(ends)]
    return tuple(sorted(found))


def identity(configs: Sequence[LabConfig]) -> str:
    """A name for a stack: that of no other one. Runs keep it under other names and in other folders."""
    definitions = json.dumps([config.definition() for config in configs], sort_keys=True)
    return hashlib.sha256(definitions.encode()).hexdigest()[:32]
