"""Ablation: what is lost on repeated tokens when one head's output is taken away?

Source: Olsson et al. 2022, arXiv:2209.11895 (ablations, full and pattern-preserving); mean ablation: Wang et al. 2022,
arXiv:2211.00593; resampling: Chan et al. 2022, causal scrubbing. Made at z, the head's output before W_O.

1. clean: mean loss on the tokens of the second and later blocks but the first of each, nothing changed
2. zero: the same loss with the head's z set to 0, minus 1
3. mean: with z set to its mean over the other sequences at the same position, minus 1
4. resample: with z taken from another sequence of the stimulus (a seeded permutation without fixed points), minus 1
5. pattern_preserving: with z set to 0 and every head of a later layer kept at its clean attention pattern, minus 1:
   what the head writes, without what it moves other heads to look at. A later head's z is its clean pattern times its
   own values; that this is what z is, and that it moves the logits, is checked on the model first
6. each head alone, paired by sequence; heads that back each other up show nothing here: see load_bearing
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from byrote.interp.intervene import ABLATIONS, Edit, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import checked_tokens, head_changes, later_blocks
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="nats",
    stimulus="repeated_random",
    summary="What is lost on repeated tokens when one head's output is taken away, four ways.",
    chance="0: the head does nothing for copying",
    metrics={
        "zero": "change in loss on later blocks with z set to 0",
        "mean": "change in loss on later blocks with z set to its mean over the other sequences at the same position",
        "resample": "change in loss on later blocks with z taken from another sequence of the stimulus",
        "pattern_preserving": "change in loss on later blocks with z set to 0 and later layers' attention frozen as in "
        "the clean run",
        "clean": "loss on later blocks with nothing changed",
    },
    main_metric="mean",
    directions={"clean": "lower"},
    reads_as="Above 0: the model predicts repeats worse without the head. 0 does not prove that it does nothing: heads back each other up, and a head that lowers others' loss goes below. Zero also takes away what a head "
    "always writes; mean leaves it. pattern_preserving near 0 where zero is large: the head steers others' "
    "attention, as a previous-token head does",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; there is one sequence only; keeping patterns: head outputs are not attention times "
    "values, or patterns set so do not change the logits",
    undefined="the loss is not finite",
    version=2,
    default=False,
    passes="4 x heads + 3 x layers",
    order=210,
)
def ablation(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Ablate every head alone, four ways.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random".
        seed: of the permutation that `resample` takes other sequences by.

    Returns:
        `zero`, `mean`, `resample`, `pattern_preserving`: change in nats per head, above 0 where the head helped;
        `clean`: the loss itself.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on.
    """
    stimulus = stimuli["repeated_random"]
    tokens, measure = checked_tokens(model, stimulus), later_blocks(stimulus)
    unable = edit_problem(model, tokens, patterns=True)  # 5.
    kinds = [kind for kind in ABLATIONS if kind != "pattern_preserving" or not unable]
    found = head_changes(model, tokens, kinds=kinds, measures={"later": measure}, seed=seed)
    clean = measure(losses_under(model, tokens, [Edit()]))[0].double().numpy()  # 1.
    scores = {kind: per_head(found.get(("later", kind)), model, clean.shape[0], unable) for kind in ABLATIONS}
    return scores | {"clean": ProbeScores(clean, chance=math.log(stimulus.params["n_ids"]))}


def per_head(samples: np.ndarray | None, model: HookedModel, n_seq: int, unable: str) -> ProbeScores:
    """Changes per head with chance 0; without samples, rows that say why there are none."""
    shape = model.shape
    if samples is None:
        samples = np.full((n_seq, shape.n_layers, shape.n_heads), np.nan)
        reasons = dict.fromkeys(range(shape.n_layers), unable)
        return ProbeScores(samples, axes=("layer", "head"), chance=0.0, layer_reasons=reasons)
    return ProbeScores(samples, axes=("layer", "head"), chance=0.0)
