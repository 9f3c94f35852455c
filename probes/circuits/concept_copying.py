"""Concept copying: which head carries a whole word, so that its later tokens too are predicted, not only the next one?

Source: Feucht et al. 2025, The dual-route model of induction, arXiv:2504.03022 (concept copying score: the same patch as
for token copying, at the token before a multi-token entity; P_patched - P_corrupted of the entity's second token). The
words are byrote's own: theirs are names from CounterFact.

1. words: pairs of tokens that belong together: a lab source's bigrams, else pairs that occur in 3 windows of the natural
   text or more, the second half of the times that anything follows the first, and 5 times as often as elsewhere
2. clean: BOS, random tokens, a word e1 e2, the same random tokens, e1 e2. corrupted: everything before the second time
   redrawn
3. the head's z at the token before the second e1 is taken from the clean run and put into the corrupted one
4. score = probability of e2 after e1 with the patch, minus that without: e1 itself is given, so that only what the head
   says of the token after the next can raise it
5. token = the same of e1, before it. random, random_token = 4 and 5 on two random tokens in the word's place
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from byrote.interp.model import HookedModel
from byrote.probes.circuits.copied_pairs import patched, prompts, random_pairs
from byrote.probes.circuits.effects import refuse_if
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="probability",
    range=(-1.0, 1.0),
    better="higher",
    stimulus=("repeated_random", "shuffled_repeat", "words"),
    summary="Which head carries a whole word, so that its second token too is predicted, not only its first?",
    chance="0: the head's output makes no difference; random is the control that counts",
    metrics={
        "score": "probability of a word's second token with the head's output before the first patched, minus without",
        "token": "the same of its first token",
        "random": "score with two random tokens in the word's place",
        "random_token": "token with two random tokens in the word's place: token_copying",
        "clean": "probability of the second token where the word was seen",
        "corrupted": "that probability where it was not: what the first token reveals of the second",
        "n_words": "words there are to draw from",
    },
    main_metric="score",
    units={"n_words": "words"},
    undirected=("n_words",),
    settings=("clean", "corrupted", "n_words"),
    reads_as="score above 0 with token near 0: a concept head. token above 0 with score near 0: a token copier. score "
    "above 0 on random pairs too: the head looks two tokens ahead, words or not. Where corrupted is high already, the "
    "first token gives the second away and nothing is left to restore",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; a block has fewer than 6 tokens",
    undefined="the probability is not finite",
    default=False,
    passes="6 x layers + 2 x heads + 2",
    order=257,
)
def concept_copying(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Patch every head alone, on words and on random pairs.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random", "shuffled_repeat" and "words".
        seed: of which word each sequence gets.

    Returns:
        Changes in probability per head; `clean` and `corrupted` probabilities; `n_words`.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on, or blocks too short for a word.
    """
    shown, n_seq = stimuli["words"], stimuli["repeated_random"].n
    words = shown.tokens[shown.extra["task"] == 0, 1:]
    refuse_if("" if len(words) else "there is no text, or it holds no two tokens that belong together")
    order = np.resize(np.random.default_rng([seed, 22]).permutation(len(words)), n_seq)
    found = patched(model, *prompts(stimuli, words[order]))
    control = patched(model, *prompts(stimuli, random_pairs(stimuli)))
    per_head = {
        "score": found.change[..., 1],
        "token": found.change[..., 0],
        "random": control.change[..., 1],
        "random_token": control.change[..., 0],
    }
    return {
        **{name: ProbeScores(s, axes=("layer", "head"), chance=0.0) for name, s in per_head.items()},
        "clean": ProbeScores(found.clean[:, 1]),
        "corrupted": ProbeScores(found.corrupted[:, 1]),
        "n_words": ProbeScores(np.full(n_seq, float(len(words)))),
    }
