"""Attention entropy: how widely a head spreads its attention.

Source: Shannon entropy of the attention rows over the largest one each could have; the spread of attention that Zhai
et al. 2023, arXiv:2303.06296 (attention entropy collapse), follow over training.

1. entropy of row q in nats, -sum over k of A[q, k] ln A[q, k], rows made to sum to 1 exactly
2. divided by ln(q + 1), the entropy of spreading evenly over all visible keys, for every q >= 1
3. mean over q; one value per sequence and head
4. sink_free: position 0 excluded as a key, rows renormalised, divided by ln(q) for every q >= 2; a query that looks at
   position 0 alone is left out
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from byrote.probes.spec import probe


@probe(
    unit="share of the largest entropy",
    range=(0.0, 1.0),
    stimulus="repeated_random",
    summary="How widely a head spreads its attention.",
    chance="1: uniform causal attention",
    metrics={
        "score": "mean over q >= 1 of the entropy of row q divided by ln(q+1)",
        "sink_free": "the same with position 0 excluded and rows renormalised, divided by ln(q) over q >= 2",
    },
    reads_as="0: one key gets everything; 1: all visible keys get the same. A drop over training says that a head "
    "found something to look at, not what; a sink lowers the score, not sink_free",
    undefined="every query looks at position 0 alone",
    order=60,
)
def entropy(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention.

    Returns:
        `score` and `sink_free`, from 0 (one key gets everything) to 1 (all visible keys get the same); the latter NaN
        where every query looks at position 0 alone.
    """
    pattern = pattern.float()
    information = torch.special.entr(pattern)  # 1. -a ln a, 0 at 0
    return {
        "score": _mean_ratio(pattern, information, first_query=1),
        "sink_free": _mean_ratio(pattern[..., 1:], information[..., 1:], first_query=2),  # 4.
    }


def _mean_ratio(
    weight: Float[Tensor, "batch n_heads query_pos keys"],
    information: Float[Tensor, "batch n_heads query_pos keys"],
    *,
    first_query: int,
) -> Float[Tensor, "batch n_heads"]:
    """Entropy of the rows over its maximum, averaged over queries that have more than one key to choose from."""
    total, information = weight.sum(-1)[..., first_query:], information.sum(-1)[..., first_query:]
    counted = total > 1e-6
    total = torch.where(counted, total, torch.ones_like(total))
    nats = information / total + total.log()
    query = torch.arange(first_query, weight.shape[-2], device=weight.device)
    ratio = nats / (query + 2 - first_query).log()  # 2. keys visible at q: q + 1, or q without position 0
    return (ratio * counted).sum(-1) / counted.sum(-1)  # 3.
