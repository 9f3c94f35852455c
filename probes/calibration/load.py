"""How often heads are called load-bearing that carry nothing. Needs torch: models are ablated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from byrote.checkpoints.lab.planted_answers import PlantedConfig
from byrote.probes.checks import Check, seldom
from byrote.probes.stimuli import Stimulus

NEITHER, LOAD_BEARING = 0, 3  # of the verdict, see probes/circuits/load_bearing.py
Stimuli = Mapping[str, Stimulus]


def load_checks(
    load: Callable[..., Any], stimuli: Callable[[int], Stimuli], config: PlantedConfig, *, n: int, seed: int
) -> Iterator[Check]:
    """The verdict on random weights, and on the planted model whose strongest prefix-matching head writes nothing.

    Args:
        load: (name, config, kind=, seed=) -> a model.
        stimuli: seed -> kind -> stimulus.
        config: of the planted model; its first head of layer 1 matches prefixes perfectly.
        n: models, and stimuli.
        seed: of the first.
    """
    from byrote.probes.circuits.load_bearing import load_bearing

    def verdict(model: Any, seed: int) -> float:
        return float(load_bearing(model, stimuli(seed), seed=seed)["verdict"].samples.mean())

    random = [verdict(load(f"load{i}", config, kind="random", seed=seed + i), seed + i) for i in range(n)]
    yield seldom(
        f"load_bearing on {n} random-weight models: anything but neither", [v != NEITHER for v in random]
    )
    strongest, *others = config.heads[1]
    mute = replace(config, heads=(config.heads[0], (replace(strongest, writes="nothing"), *others)))
    model = load("mute", mute)
    found = [verdict(model, seed + i) for i in range(n)]
    yield seldom(
        f"load_bearing where the head that matches best writes nothing, {n} sets of sequences: load-bearing",
        [v == LOAD_BEARING for v in found],
    )
