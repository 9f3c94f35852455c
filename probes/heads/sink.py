"""Attention sink: attention that rests on position 0.

Source: Xiao et al. 2023, arXiv:2309.17453 (attention sinks).

A head with nothing to look for parks its attention on the first token. The other probes' `sink_free` metrics say what
the rest of the attention does.

1. take A[q, 0] for every q >= 1
2. mean over q; one value per sequence and head
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from byrote.probes.registry import probe


@probe("sink")
def sink(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.

    Returns:
        `score`, attention fraction from 0 to 1.
    """
    return {"score": pattern[..., 1:, 0].float().mean(-1)}  # 1. 2.
