"""Additive heads: what does the strongest induction head do alone, and what do the others add to it?

Source: Singh et al. 2024, arXiv:2404.07129: induction heads are redundant and additive; they keep some heads and ablate the others.

1. heads: those that match prefixes above their null and raise what followed beyond theirs, however little (joint of load_bearing),
   the one that matches most first
2. without_all = loss on later blocks with all of them ablated together (each z set to its mean over the other sequences at the same
   position) minus the loss with nothing changed
3. rest_gain = the same with all but the first of them ablated: what the others add to it
4. first_gain = without_all - rest_gain: what the strongest one does alone. Both are above 0 where heads add up; one is 0 where the
   strongest does everything, or nothing without the others
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import checked_tokens, later_blocks, set_changes
from byrote.probes.circuits.load_bearing import signatures
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="nats",
    better="higher",
    stimulus=("repeated_random", "shuffled_repeat", "jittered_repeat"),
    summary="What does the strongest induction head do alone, and what do the other ones add to it?",
    chance="0: nothing",
    metrics={
        "first_gain": "loss saved by the strongest of the heads that match prefixes and raise what followed, the others ablated",
        "rest_gain": "loss that all the others save in addition",
        "without_all": "loss added on later blocks with all of them ablated",
        "n_heads": "how many match prefixes and raise what followed, however little",
    },
    main_metric="first_gain",
    units={"n_heads": "heads"},
    undirected=("without_all", "n_heads"),
    reads_as="Both above 0: the heads add up. rest_gain near 0: the strongest could do it alone, the others back it up. "
    "first_gain near 0: it does nothing without the others",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions depend on later tokens; "
    "there is one sequence only; attention is not finite, not causal or does not sum to 1",
    undefined="fewer than two heads match prefixes and raise what followed",
    default=False,
    passes="about 7",
    order=232,
)
def additive_heads(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Ablate all induction heads, and all but the strongest.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random", "shuffled_repeat", "jittered_repeat".
        seed: of the tests that heads are chosen by.

    Returns:
        Changes in nats per sequence, NaN with fewer than two such heads, and how many there are.

    Raises:
        NotMeasuredError: edits of this model or its attention cannot be relied on.
    """
    stimulus = stimuli["repeated_random"]
    tokens = checked_tokens(model, stimulus)
    looks = signatures(model, stimuli, seed=seed)
    strength = looks.excess.mean(0)
    heads = sorted(looks.joint, key=lambda head: -strength[head])  # 1.
    changes = np.full((2, len(tokens)), np.nan)
    if len(heads) > 1:
        sets = [tuple(sorted(heads[kept:])) for kept in (0, 1)]  # 2. 3.
        changes = set_changes(model, tokens, sets, kind="mean", measure=later_blocks(stimulus), seed=seed)
    every, rest = changes
    found = {"first_gain": every - rest, "rest_gain": rest, "without_all": every}  # 4.
    scores = {name: ProbeScores(values, chance=0.0) for name, values in found.items()}
    return scores | {"n_heads": ProbeScores(np.full(len(tokens), float(len(heads))))}
