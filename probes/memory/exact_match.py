"""Exact match: how much of a training sequence does the model predict first, and at what loss, against fresh ones?

Source: Tirumala et al. 2022, arXiv:2205.10770 (exact memorisation: share of tokens whose argmax is right under teacher
forcing); `completed` is Biderman et al. 2023, arXiv:2304.11158 (32 tokens reproduced from 32), read off the same pass.

1. next-token loss and argmax at every position, the true tokens before it given
2. the tokens scored are those of the first block: what repeats inside the sequence can be copied, and a model that
   remembers nothing would pass for one that knows everything. Where nothing repeats they are all tokens but BOS
3. accuracy = share of them predicted first; loss = their mean loss
4. completed = 1 where, after the first k of them, the next m are all predicted first: exactly when greedy
   continuation of the prompt would reproduce them. k = m = 32, or half the block
5. whole_accuracy, whole_loss: the same over all tokens, copyable ones included
6. the same on twins: sequences of the same source, never trained on

The first token after BOS cannot be known by anyone: of P equally likely members it costs ln P nats, and accuracy is
right on it once in P times. `completed` does not use it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.probes.memory.spans import all_right, first_block, mean_over, split
from byrote.probes.spec import probe


@probe(
    unit="token fraction",
    range=(0.0, 1.0),
    stimulus=("members", "twins"),
    summary="How much of a training sequence is predicted first, where context cannot help; and of fresh twins.",
    chance="guessing uniformly over the usable ids; the twins are the null that counts",
    chance_levels={
        "accuracy": "guess",
        "loss": "guess_nats",
        "completed": 0.0,
        "whole_accuracy": "guess",
        "whole_loss": "guess_nats",
    },
    metrics={
        "accuracy": "share of the first block's tokens predicted first, the true tokens before them given",
        "loss": "mean loss on the first block",
        "completed": "share of sequences whose first block's second half is predicted without an error after its "
        "first half (k = m = 32 where it is longer): what greedy continuation reproduces",
        "whole_accuracy": "accuracy over the whole sequence, what can be copied from its own beginning included",
        "whole_loss": "mean loss over the whole sequence",
        "repeats": "how often the members were trained on by the last step",
        "in_all": "members there are, of which these are all or a sample",
        "accuracy@twins": "accuracy on twins",
        "loss@twins": "loss on twins",
        "completed@twins": "completed, of twins",
        "whole_accuracy@twins": "whole_accuracy on twins",
        "whole_loss@twins": "whole_loss on twins",
    },
    main_metric="accuracy",
    units={
        "loss": "nats",
        "whole_loss": "nats",
        "completed": "sequence fraction",
        "repeats": "times",
        "in_all": "sequences",
    },
    settings=("in_all",),
    details=(
        "loss",
        "whole_accuracy",
        "whole_loss",
        "repeats",
        "in_all",
        "loss@twins",
        "whole_accuracy@twins",
        "whole_loss@twins",
    ),
    reads_as="Read against the twins: what is above them is memory. Which of P members begins cannot be known, so even perfect memory misses nearly every first token: on blocks of 18 tokens accuracy ends near 0.94, "
    "completed at 1",
    undefined="no token lies before the sequence's own repetition",
    order=260,
    headline=("loss@twins", "accuracy@twins"),
    binary=("completed",),
    version=3,
)
def exact_match(
    token_nll: Float[Tensor, "batch next_pos"],
    top1: Bool[Tensor, "batch next_pos"],
    second_block_start: Int[Tensor, " batch"],
    repeat_count: Int[Tensor, " batch"],
    n_in_all: Int[Tensor, " batch"],
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        top1: whether the predicted token was the right one.
        second_block_start: index of the first token that repeats the sequence's beginning.
        repeat_count: how often each sequence was trained on.
        n_in_all: how many sequences there are, of which these are all or a sample.

    Returns:
        `accuracy` and `completed` as fractions, `loss` in nats, over the first block; `whole_accuracy` and
        `whole_loss` over everything; `repeats` and `in_all`, the counts handed on.
    """
    right, everything = top1.float(), torch.ones_like(top1)
    block = first_block(second_block_start, token_nll.shape[1])  # 2.
    suffix = split(second_block_start, token_nll.shape[1]).suffix
    return {
        "accuracy": mean_over(right, block),  # 3.
        "loss": mean_over(token_nll, block),
        "completed": all_right(top1, suffix),  # 4.
        "whole_accuracy": mean_over(right, everything),  # 5.
        "whole_loss": mean_over(token_nll, everything),
        "repeats": repeat_count.float(),
        "in_all": n_in_all.float(),
    }
