"""Loss on random tokens and on their repeats: what copying in context is worth.

Source: Elhage et al. 2021 (repeated random tokens); Olsson et al. 2022, arXiv:2209.11895.

1. next-token loss at every position of BOS + r random tokens, m times
2. first_block: mean over the tokens of the first copy; later_blocks: over the tokens of later copies, the first of each
   left out: nothing before the second copy's first token says what it is
3. difference = later - first; top1_later = share of those later tokens predicted first; one value per sequence
4. the same on `jittered_repeat`, whose block lengths differ between sequences: a head that attends a fixed number of
   tokens back solves 3 and fails here
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from byrote.probes.spec import probe


@probe(
    unit="nats",
    better="lower",
    stimulus=("repeated_random", "jittered_repeat"),
    version=2,
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
        "later_blocks": "mean loss on later blocks, the first token of each left out",
        "difference": "later minus first: negative where the model copies",
        "top1_later": "share of those later-block tokens predicted first",
        "first_block@jittered_repeat": "first_block where block lengths differ between sequences",
        "later_blocks@jittered_repeat": "later_blocks there",
        "difference@jittered_repeat": "difference there: what copying is worth where no fixed offset finds the copy",
        "top1_later@jittered_repeat": "top1_later there",
    },
    main_metric="later_blocks",
    units={"top1_later": "token fraction"},
    undirected=("first_block",),
    directions={"top1_later": "higher"},
    details=("first_block@jittered_repeat", "later_blocks@jittered_repeat", "top1_later@jittered_repeat"),
    reads_as="difference near 0: nothing is copied; later_blocks near 0 nats: repeats are predicted almost with certainty. "
    "Negative on blocks of one length and near 0 on jittered ones: a fixed offset, not induction",
    order=130,
    headline=("first_block", "later_blocks", "difference@jittered_repeat", "top1_later"),
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
    first, later = (copy_index[:, 1:] == 1).float(), can_be_copied(copy_index).float()
    first_nats = (token_nll * first).sum(1) / first.sum(1)  # 2.
    later_nats = (token_nll * later).sum(1) / later.sum(1)
    return {
        "first_block": first_nats,
        "later_blocks": later_nats,
        "difference": later_nats - first_nats,  # 3.
        "top1_later": (top1.float() * later).sum(1) / later.sum(1),
    }


def within_copy(copy_index: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch next_pos"]:
    """Which predicted tokens (1, 2, ...) are not the first of their copy."""
    return (copy_index[:, 1:] == copy_index[:, :-1]) & (copy_index[:, 1:] > 0)


def can_be_copied(copy_index: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch next_pos"]:
    """Which predicted tokens belong to a second or later copy, the first of each left out."""
    return within_copy(copy_index) & (copy_index[:, 1:] > 1)
