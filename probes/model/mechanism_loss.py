"""Loss by mechanism: what of a lab series' held-out loss is owed to its table, its facts, its copies, above the exact floor?

Source: the mechanisms are those of the lab's sources (`byrote lab recipes`); splitting a loss by what can predict the token: Edelman
et al. 2024, arXiv:2402.11004, and Hernandez et al. 2022, arXiv:2205.10487, who split it into copied text and the rest.

1. sequences of the held-out split of a lab series, drawn again from the source that its manifest names, so that every token has its
   label: which mechanism can predict it. A split that does not equal the one beside the series is refused
2. floor of a token = -log P(token | the tokens before it) for a predictor that knows the source and nothing else, exact
3. loss, floor and excess = loss - floor, means over a sequence's tokens but BOS; one value per sequence
4. of each mechanism that the source has: the mean loss, and the mean excess, over the sequence's tokens of that mechanism
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from byrote.checkpoints.lab.sources.contract import CODES
from byrote.interp.model import HookedModel
from byrote.probes.memory.spans import losses, mean_over
from byrote.probes.spec import ProbeScores, probe
from byrote.probes.stimuli import Stimulus

SPLIT = ("free", "table", "rare_table", "fact", "first_mention", "copy_start", "copy", "in_context")


@probe(
    unit="nats",
    better="lower",
    stimulus="labelled",
    summary="Held-out loss of a lab series by the mechanism that can predict the token, and how far above the exact floor.",
    chance="ln(number of usable tokens): guessing uniformly; an excess of 0 is the floor itself",
    metrics={
        "excess": "loss above the exact floor, over all tokens but BOS",
        "loss": "mean loss over the same tokens",
        "floor": "their exact Bayes floor: a fact about the source",
        "free": "loss on tokens that nothing before them predicts",
        "table": "loss on tokens that follow from the one before by the source's table",
        "rare_table": "loss on tokens that the table allows but does not list",
        "fact": "loss on tokens that follow from the two before by a fact of the source",
        "first_mention": "loss inside something of this sequence alone, for the first time",
        "copy_start": "loss on the first token of a copy, which nothing predicts",
        "copy": "loss inside a copy",
        "in_context": "loss on tokens that counts of this sequence predict",
        "free_excess": "free, above its floor",
        "table_excess": "table, above its floor",
        "rare_table_excess": "rare_table, above its floor",
        "fact_excess": "fact, above its floor",
        "first_mention_excess": "first_mention, above its floor",
        "copy_start_excess": "copy_start, above its floor",
        "copy_excess": "copy, above its floor",
        "in_context_excess": "in_context, above its floor",
    },
    main_metric="excess",
    directions={"floor": None},
    settings=("floor",),
    reads_as="An excess near 0: nothing is left to learn there. The mechanism with the largest excess is what the model lacks. "
    "A label is more than the ideal predictor knows, so that one mechanism may lie below its floor where the model bets on it, "
    "and another then above; the excess over all tokens cannot, but for sampling",
    not_measured="the series is not a lab series, or its source is real text",
    undefined="the loss is not finite",
    default=False,
    passes="1",
    order=172,
    headline=("excess",),
)
def mechanism_loss(model: HookedModel, stimuli: Mapping[str, Stimulus]) -> dict[str, ProbeScores]:
    """Split the loss.

    Args:
        model: a loaded checkpoint.
        stimuli: "labelled".

    Returns:
        `loss`, `floor`, `excess`, and for every mechanism its loss and `..._excess`, in nats per sequence; NaN for a sequence without
        such tokens, and none of mechanisms that no sequence has.
    """
    text = stimuli["labelled"]
    label, floor = (torch.from_numpy(text.extra[name]) for name in ("mechanism", "floor_nats"))
    guess = math.log(text.params["n_ids"])
    found = split(losses(model, text.tokens).nll.double(), label[:, 1:], floor[:, 1:].double())
    return {
        name: ProbeScores(values.numpy(), chance=guess if name in ("loss", *SPLIT) else math.nan)
        for name, values in found.items()
    }


def split(
    nll: Float[Tensor, "batch next_pos"],
    label: Int8[Tensor, "batch next_pos"],
    floor: Float[Tensor, "batch next_pos"],
) -> dict[str, Float[Tensor, " batch"]]:
    """Means over the tokens of every sequence, and over those of each mechanism that the sequences have.

    Args:
        nll: loss in nats of each predicted token.
        label: code of what can predict it.
        floor: its exact floor in nats.
    """
    excess = nll - floor
    found = {"loss": nll.mean(1), "floor": floor.mean(1), "excess": excess.mean(1)}  # 3.
    for name in SPLIT:
        here = label == CODES[name]
        if here.any():
            found |= {name: mean_over(nll, here), f"{name}_excess": mean_over(excess, here)}  # 4.
    return found
