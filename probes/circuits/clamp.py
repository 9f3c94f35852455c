"""Clamp: what would be gained if a head looked where an ideal one looks?

Source: Singh et al. 2024, arXiv:2404.07129 (clamping heads to perfect previous-token or induction attention).

1. clean: mean loss on the tokens of the second and later blocks but the first of each, nothing changed
2. induction: one head's attention from every token with an earlier copy is put on what followed the copies, evenly;
   its other queries keep their own attention. z = that pattern times the run's own values. Loss minus 1
3. previous_token: the same with all attention from every token on the one before it
4. each head alone, paired by sequence. That z is pattern times values, and that patterns set so move the logits, is
   checked on the model first
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byrote.interp.intervene import Edit, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import checked_tokens, later_blocks, refuse_if
from byrote.probes.heads.matching import earlier_copies, shifted_keys
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="nats",
    stimulus="repeated_random",
    summary="What would be gained on repeated tokens if a head looked exactly where an ideal one looks?",
    chance="0: where the head looks makes no difference",
    metrics={
        "induction": "change in loss on later blocks with the head's attention put on what followed earlier copies",
        "previous_token": "the same with it put on the token before",
    },
    main_metric="induction",
    reads_as="Well below 0: the head could copy, or feed heads that do, and what is missing is where it looks. 0 on "
    "a head that matches already: nothing is left to gain; 0 on one that does not: what it writes would not help. "
    "Above 0: what the head does instead is needed",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; there is one sequence only; keeping patterns: head outputs are not attention times "
    "values, or patterns set so do not change the logits",
    undefined="the loss is not finite",
    version=2,
    default=False,
    passes="2 x heads + 1",
    order=240,
)
def clamp(model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int) -> dict[str, ProbeScores]:
    """Force every head's attention alone, two ways.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "repeated_random".
        seed: not used: nothing is drawn.

    Returns:
        `induction`, `previous_token`: change in nats per head, below 0 where the ideal pattern helps.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on.
    """
    stimulus = stimuli["repeated_random"]
    tokens, measure = checked_tokens(model, stimulus), later_blocks(stimulus)
    refuse_if(edit_problem(model, tokens, patterns=True))  # 4.
    match_tokens = torch.from_numpy(stimulus.match_tokens)
    ideal = {
        "induction": perfect_induction(earlier_copies(match_tokens)),
        "previous_token": perfect_previous(tokens.shape[1]).expand(len(tokens), -1, -1),
    }
    n_layers, n_heads = model.shape.n_layers, model.shape.n_heads
    heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    edits = [Edit(), *(Edit(patterns={head: pattern}) for pattern in ideal.values() for head in heads)]
    loss = measure(losses_under(model, tokens, edits)).double().numpy()
    changes = (loss[1:] - loss[0]).reshape(len(ideal), n_layers, n_heads, len(tokens))
    samples = zip(ideal, np.moveaxis(changes, -1, 1), strict=True)
    return {name: ProbeScores(s, axes=("layer", "head"), chance=0.0) for name, s in samples}


def perfect_induction(
    copies: Bool[Tensor, "n_seq query_pos key_pos"],
) -> Float[Tensor, "n_seq query_pos key_pos"]:
    """Attention spread evenly over what followed the earlier copies of each query's token; zeros where there are none.

    Args:
        copies: `earlier_copies` of the tokens.
    """  # 2.
    targets = shifted_keys(copies, 1).float()
    return targets / targets.sum(-1, keepdim=True).clamp_min(1.0)


def perfect_previous(pos: int) -> Float[Tensor, "query_pos key_pos"]:
    """All attention on the token before; zeros for the first, which has none."""  # 3.
    return torch.diag(torch.ones(pos - 1), diagonal=-1)
