"""Attention sink: attention to position 0.

Source: Xiao et al. 2023, arXiv:2309.17453 (attention sinks).

A head with nothing to look for parks its attention on the first token. The other probes' `sink_free` metrics say what
the rest of the attention does.

1. take A[q, 0] for every q >= 1
2. mean over q; one value per sequence and head
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from byrote.probes.spec import probe


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    stimulus="repeated_random",
    summary="Attention to position 0, where heads with nothing to look for attend.",
    chance="uniform causal attention",
    metrics={
        "score": "mean attention from position q to position 0, over q >= 1",
    },
    reads_as="Near 1: the head is idle, and its other scores describe the little attention that is left: read their sink_free "
    "metrics. High is neither good nor bad",
    order=50,
)
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
