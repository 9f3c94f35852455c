"""Token probability: how sure is the model of each token of a text, and how many could be edited without its noticing?

Source: Zhu et al. 2024, arXiv:2412.14689 (ToEdit): probabilities of a text's tokens under a prior model form a U; tokens of
p >= 0.99 are resampled from the model, which leaves the rest of the text as people wrote it. Their code may also delete
tokens of p < 0.001.

1. p = exp(-loss) of every token of `natural` but BOS, the true tokens before it given
2. histogram = share of a window's tokens with p in [0, 0.1), [0.1, 0.2), ... [0.9, 1], one value per tenth
3. editable = share with p >= 0.99; surprising = share with p < 0.001
4. sequences are windows; n counts windows, not tokens

The text's own property is p under one fixed model (`byrote text --model`); over a series of checkpoints this is a property
of the model: how much of the text it has become sure of.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from byrote.probes.rules import EDITABLE_P, SURPRISING_P
from byrote.probes.spec import probe

TENTHS = 10


@probe(
    unit="token fraction",
    range=(0.0, 1.0),
    stimulus="natural",
    summary="Distribution of the probabilities a model gives the tokens of real text, and the share it is sure of.",
    chance="0: guessing uniformly, every token lies in the first tenth, none is editable",
    metrics={
        "editable": "share of tokens with probability 0.99 or more",
        "surprising": "share of tokens with probability below 0.001",
        "histogram": "share of tokens with probability in [position / 10, (position + 1) / 10)",
    },
    chance_levels={"editable": 0.0},
    main_metric="editable",
    curve_axis="tenth of the probability",
    details=("histogram",),
    reads_as="A U, full at both ends: what people write under a trained model. Much in the last tenth: text that the model, "
    "or one like it, wrote or has memorised. editable is the share that ToEdit would resample",
    undefined="the loss is not finite",
    order=195,
)
def token_probability(
    token_nll: Float[Tensor, "batch next_pos"],
) -> dict[str, Float[Tensor, " batch"] | Float[Tensor, "batch tenths"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every window.

    Returns:
        `editable`, `surprising` and `histogram` (ten tenths, which sum to 1) as fractions of the window's tokens.
    """
    p = (-token_nll.double()).exp()  # 1.
    tenth = (p * TENTHS).floor().clamp(0, TENTHS - 1)  # 2.
    bins = torch.arange(TENTHS, device=p.device)
    return {
        "editable": (p >= EDITABLE_P).double().mean(1),  # 3.
        "surprising": (p < SURPRISING_P).double().mean(1),
        "histogram": (tenth[..., None] == bins).double().mean(1),
    }
