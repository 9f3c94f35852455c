"""Which keys hold an earlier copy of the query's token: the mask every repeat-based probe starts from."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def earlier_copies(match_tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch query_pos key_pos"]:
    """True at (q, j) where j < q and x_j = x_q."""
    same = match_tokens[:, :, None] == match_tokens[:, None, :]
    return same.tril(diagonal=-1)


def shifted_keys(
    mask: Bool[Tensor, "batch query_pos key_pos"], by: int
) -> Bool[Tensor, "batch query_pos key_pos"]:
    """Move targets from j to j + by; those that leave the sequence or pass the query are dropped."""
    moved = torch.zeros_like(mask)
    if by > 0:
        moved[:, :, by:] = mask[:, :, :-by]
    else:
        moved[:, :, :by] = mask[:, :, -by:]
    return moved.tril()


def mean_attention_on(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
    targets: Bool[Tensor, "batch query_pos key_pos"],
) -> Float[Tensor, "batch n_heads"]:
    """Attention summed over a query's targets, then averaged over the queries that have one; NaN where none has."""
    hit = _attention_on(pattern, targets)
    has_target = targets.any(-1)[:, None]
    return (hit * has_target).sum(-1) / has_target.sum(-1)


def _attention_on(
    weight: Float[Tensor, "batch n_heads query_pos keys"], targets: Bool[Tensor, "batch query_pos keys"]
) -> Float[Tensor, "batch n_heads query_pos"]:
    """Weight summed over each query's targets; a product, so that no second pattern is held in memory."""
    return torch.linalg.vecdot(weight.float(), targets.float()[:, None])


def without_sink(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
    targets: Bool[Tensor, "batch query_pos key_pos"],
) -> Float[Tensor, "batch n_heads"]:
    """`mean_attention_on` with position 0 excluded as a key and as a target, every row renormalised over the rest.

    A query that looks at position 0 alone has nothing to renormalise and is left out.
    """
    return mean_share_on(pattern[..., 1:], targets[..., 1:])


def mean_share_on(
    weight: Float[Tensor, "batch n_heads query_pos keys"],
    targets: Bool[Tensor, "batch query_pos keys"],
) -> Float[Tensor, "batch n_heads"]:
    """Share of a query's weight that lies on its targets, averaged over the queries that have both.

    Args:
        weight: non-negative, of the order of 1; rows need not sum to 1.
        targets: same keys.

    Returns:
        0 to 1; NaN where no query has a target and a weight above 1e-6 in all.
    """
    hit, total = _attention_on(weight, targets), weight.float().sum(-1)
    counted = targets.any(-1)[:, None] & (total > 1e-6)
    share = torch.where(counted, hit / total.clamp_min(1e-6), torch.zeros_like(hit))
    return share.sum(-1) / counted.sum(-1)


def uniform_attention(pos: int) -> Float[Tensor, "one one_head pos pos"]:
    """The chance pattern: every query spreads evenly over itself and all earlier positions."""
    lower = torch.ones(pos, pos).tril()
    return (lower / lower.sum(-1, keepdim=True))[None, None]
