"""Duplicate-token attention: from a token back to its own earlier copies.

Source: Wang et al. 2022, arXiv:2211.00593 (duplicate-token heads), measured as in Olsson et al. 2022.

1. for query q the targets are every j < q with x_j = x_q
2. sum the attention on those targets
3. mean over the queries that have a target; one value per sequence and head
4. sink_free: position 0 excluded as a key, rows renormalised, then 2 and 3
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.heads.matching import earlier_copies, mean_attention_on, without_sink
from byrote.probes.spec import probe


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    stimulus="repeated_random",
    summary="Attention from a token back to its own earlier copies.",
    chance="uniform causal attention on the same tokens",
    metrics={
        "score": "mean over queries with an earlier copy of the attention on the earlier copies",
        "sink_free": "the same with position 0 excluded and rows renormalised",
    },
    reads_as="High: the head finds other copies of the current token. Induction heads score low here, near "
    "anti_induction",
    undefined="no token of the stimulus has an earlier copy, or every query looks at position 0 alone",
    order=30,
    featured=4,
    version=2,
)
def duplicate_token(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"], match_tokens: Int[Tensor, "batch query_pos"]
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.
        match_tokens: ids that decide what an earlier copy is, BOS first.

    Returns:
        `score` and `sink_free`, attention fractions from 0 to 1; NaN for a sequence without any earlier copy.
    """
    targets = earlier_copies(match_tokens)  # 1.
    return {
        "score": mean_attention_on(pattern, targets),  # 2. 3.
        "sink_free": without_sink(pattern, targets),  # 4.
    }
