"""Token copying: which head, by its output alone, makes a model predict the next token of what it saw before?

Source: Feucht et al. 2025, The dual-route model of induction, arXiv:2504.03022 (token copying score: P_patched -
P_corrupted of the first token of random entities); their code, scripts/causal_scores.py.

1. clean: BOS, random tokens, e1 e2, the same random tokens, e1 e2, all ids random. corrupted: everything before the
   second time is redrawn, so that nothing tells what follows
2. the head's z at the token before the second e1 is taken from the clean run and put into the corrupted one
3. score = probability of e1 there with the patch, minus that without; each head alone, paired by sequence
4. clean, corrupted: that probability with nothing patched. What no one head restores is not in any score
"""

from __future__ import annotations

from collections.abc import Mapping

from byrote.interp.model import HookedModel
from byrote.probes.circuits.copied_pairs import patched, prompts, random_pairs
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="probability",
    range=(-1.0, 1.0),
    better="higher",
    stimulus=("repeated_random", "shuffled_repeat"),
    summary="Which head, by its output alone, makes the model predict the next token of random tokens it saw before?",
    chance="0: the head's output makes no difference",
    metrics={
        "score": "probability of the next token with the head's clean output patched into a run that never saw it, "
        "minus that without",
        "clean": "that probability where it was seen",
        "corrupted": "that probability where it was not",
    },
    main_metric="score",
    settings=("clean", "corrupted"),
    reads_as="Well above 0: the head's output is enough to copy. Heads that do it together each score little; heads that match prefixes and score 0 serve other heads, or nothing. Read concept_copying beside it: heads "
    "that copy words serve a route of their own",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; a block has fewer than 6 tokens",
    undefined="the probability is not finite",
    default=False,
    passes="3 x layers + heads + 1",
    order=256,
)
def token_copying(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Patch every head alone on random pairs.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random" and "shuffled_repeat".
        seed: not used: nothing is drawn.

    Returns:
        `score` per head and `clean`, `corrupted`: probabilities.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on, or blocks too short for a pair.
    """
    found = patched(model, *prompts(stimuli, random_pairs(stimuli)))
    return {
        "score": ProbeScores(found.change[..., 0], axes=("layer", "head"), chance=0.0),  # 3.
        "clean": ProbeScores(found.clean[:, 0]),
        "corrupted": ProbeScores(found.corrupted[:, 0]),
    }
