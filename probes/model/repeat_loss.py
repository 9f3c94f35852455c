"""Loss on random tokens and on their repeats: what copying in context is worth.

Source: Elhage et al. 2021 (repeated random tokens); Olsson et al. 2022, arXiv:2209.11895.

1. next-token loss at every position of BOS + r random tokens, m times
2. first_block: mean over the tokens of the first copy; later_blocks: over all tokens of later copies
3. difference = later - first; top1_later = share of later tokens predicted first; one value per sequence
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.probes.spec import probe


@probe(
    unit="nats",
    better="lower",
    stimulus="repeated_random",
    summary="Next-token loss on a block of random tokens, and on its repeats: what copying in context is worth.",
    chance="ln(number of usable tokens): guessing uniformly",
    chance_levels={
        "first_block": "guess_nats",
        "later_blocks": "guess_nats",
        "difference": 0.0,
        "top1_later": "guess",
    },
    metrics={
        "first_block": "mean loss on the first block",
        "later_blocks": "mean loss on later blocks",
        "difference": "later minus first: negative where the model copies",
        "top1_later": "share of later-block tokens predicted first",
    },
    main_metric="later_blocks",
    units={"top1_later": "token fraction"},
    undirected=("first_block",),
    directions={"top1_later": "higher"},
    reads_as="difference near 0: nothing is copied; later_blocks near 0 nats: repeats are predicted almost surely. "
    "Says that the model copies, not how",
    order=130,
    headline=("first_block", "later_blocks", "top1_later"),
)
def repeat_loss(
    token_nll: Float[Tensor, "batch next_pos"],
    top1: Bool[Tensor, "batch next_pos"],
    copy_index: Int[Tensor, "batch pos"],
) -> dict[str, Float[Tensor, " batch"]]:
    """Score a batch.

    Args:
        token_nll: loss in nats of predicting tokens 1, 2, ... of every sequence.
        top1: whether the predicted token was the right one.
        copy_index: which copy each position belongs to, 0 for BOS.

    Returns:
        `first_block`, `later_blocks`, `difference` in nats; `top1_later` as a fraction.
    """
    copy = copy_index[:, 1:]  # of the token that is predicted
    first, later = (copy == 1).float(), (copy > 1).float()
    first_nats = (token_nll * first).sum(1) / first.sum(1)  # 2.
    later_nats = (token_nll * later).sum(1) / later.sum(1)
    return {
        "first_block": first_nats,
        "later_blocks": later_nats,
        "difference": later_nats - first_nats,  # 3.
        "top1_later": (top1.float() * later).sum(1) / later.sum(1),
    }
