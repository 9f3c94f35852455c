"""Held-out loss: mean next-token loss on text that the model was not trained on, as one number.

Source: Hernandez et al. 2022, arXiv:2205.10487: their test loss, on a held-back slice of the training distribution without
repeats, is what falls, rises and falls again over training (double descent), and what effective model size is read off.

1. next-token loss at every position of `natural`: windows of the text given with --text, else the lab's held-out split
2. loss = mean over a window's tokens, all but BOS; one value per window, all of one length
3. top1 = share of a window's tokens predicted first
4. tokens = predicted tokens per window: a longer context predicts its later tokens better, so losses of windows of
   different lengths are not comparable

Whether a text was held out is not checked: of the lab's split it is known, of a file it is the user's word. It is the test
loss of a series where every step, and every run compared, reads the same windows; `stimulus` in the provenance says which.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from byrote.probes.spec import probe


@probe(
    unit="nats",
    better="lower",
    stimulus="natural",
    summary="Mean next-token loss on held-out text, as one number: the test loss.",
    chance="ln(number of usable tokens): guessing uniformly",
    chance_levels={"loss": "guess_nats", "top1": "guess"},
    metrics={
        "loss": "mean loss over all tokens of a window but BOS",
        "top1": "share of them that are predicted first",
        "tokens": "predicted tokens per window",
    },
    main_metric="loss",
    units={"top1": "token fraction", "tokens": "tokens"},
    directions={"top1": "higher", "tokens": None},
    settings=("tokens",),
    reads_as="Falling: what is learned serves text that was not trained on. Falling, rising and falling again: double "
    "descent, which training loss does not show. Above chance: worse than guessing, a damaged checkpoint or a text of "
    "another tokenizer. Losses on other text, or in windows of another length, are not comparable",
    undefined="the loss is not finite",
    order=145,
    headline=("loss",),
)
def held_out_loss(
    token_nll: Float[Tensor, "batch next_pos"], top1: Bool[Tensor, "batch next_pos"]
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every window.
        top1: whether the predicted token was the right one.

    Returns:
        `loss` in nats per token, `top1` as a fraction, `tokens` the number of predicted tokens.
    """
    return {
        "loss": token_nll.mean(1),  # 2.
        "top1": top1.float().mean(1),  # 3.
        "tokens": torch.full_like(token_nll[:, 0], token_nll.shape[1]),  # 4.
    }
