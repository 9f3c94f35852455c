"""Ablation on real text: what do loss and in-context learning lose when one head's output is taken away?

Source: Olsson et al. 2022, arXiv:2209.11895 (ablations, full and pattern-preserving, and their effect on the in-context
learning score); the kinds of ablation are those of the probe ablation.

1. loss: mean next-token loss over `natural`; icl: loss at a late minus loss at an early position, counted from BOS.
   Late and early are 500 and 50 where sequences have 512 tokens or more, and in the same proportion to shorter ones
2. loss_zero, loss_mean, loss_resample, loss_pattern_preserving: loss with the head ablated that way minus loss without
3. icl_zero and so on: the same of icl. A head that serves in-context learning raises it: the late loss suffers more
4. each head alone, paired by sequence
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from byrote.interp.intervene import ABLATIONS, edit_problem
from byrote.interp.model import HookedModel
from byrote.probes.circuits.ablation import per_head
from byrote.probes.circuits.effects import Measure, checked_tokens, head_changes
from byrote.probes.model.icl_score import positions
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus


@probe(
    unit="nats",
    stimulus="natural",
    summary="What loss on real text, and in-context learning, lose when one head's output is taken away.",
    chance="0: the head does nothing for it",
    metrics={
        "loss_zero": "change in mean loss with z set to 0",
        "loss_mean": "change in mean loss with z set to its mean over the other sequences at the same position",
        "loss_resample": "change in mean loss with z taken from another sequence of the stimulus",
        "loss_pattern_preserving": "change in mean loss with z set to 0 and later layers' attention frozen as in the "
        "clean run",
        "icl_zero": "change in late minus early loss with z set to 0",
        "icl_mean": "change in late minus early loss with z set to its mean over the other sequences at the same "
        "position",
        "icl_resample": "change in late minus early loss with z taken from another sequence of the stimulus",
        "icl_pattern_preserving": "change in late minus early loss with z set to 0 and later layers' attention frozen "
        "as in the clean run",
    },
    main_metric="loss_mean",
    reads_as="icl above 0: the late loss suffers more than the early one, the head serves in-context learning. loss "
    "above 0 with icl near 0: it serves everywhere alike. icl is based on two tokens per sequence: mind the interval",
    not_measured="removing all heads' outputs does not change the logits; the logits are not finite; predictions "
    "depend on later tokens; there is one sequence only; keeping patterns: head outputs are not attention times "
    "values, or patterns set so do not change the logits",
    undefined="the loss is not finite",
    version=2,
    default=False,
    passes="4 x heads + 3 x layers",
    order=220,
)
def ablation_text(
    model: HookedModel, stimuli: Mapping[str, Stimulus], *, seed: int
) -> dict[str, ProbeScores]:
    """Ablate every head alone, four ways, on real text.

    Args:
        model: a loaded checkpoint; it is left as it was.
        stimuli: "natural".
        seed: of the permutation that `resample` takes other sequences by.

    Returns:
        `loss_*` and `icl_*`: changes in nats per head, above 0 where the head helped.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on.
    """
    tokens = checked_tokens(model, stimuli["natural"])
    unable = edit_problem(model, tokens, patterns=True)
    kinds = [kind for kind in ABLATIONS if kind != "pattern_preserving" or not unable]
    measures = {"loss": lambda nll: nll.mean(-1), "icl": late_minus_early(tokens.shape[1])}
    found = head_changes(model, tokens, kinds=kinds, measures=measures, seed=seed)
    return {
        f"{name}_{kind}": per_head(found.get((name, kind)), model, len(tokens), unable)
        for name in measures
        for kind in ABLATIONS
    }


def late_minus_early(n_pos: int) -> Measure:
    """Loss at the late position minus loss at the early one, for sequences of `n_pos` tokens, BOS included."""  # 1.
    early, late, _ = positions(n_pos)

    def measure(nll: Tensor) -> Tensor:
        return nll[..., late - 1] - nll[..., early - 1]

    return measure
