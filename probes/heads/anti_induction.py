"""Anti-induction attention: from a token back to whatever came before its earlier copies.

Source: Sabry and Belz 2025, arXiv:2509.22947 (anti-induction heads), measured as in Olsson et al. 2022,
arXiv:2209.11895.

The mirror image of prefix matching, and its control: a head that looks near a token's earlier copies without telling
what followed from what preceded scores on both.

1. for query q the targets are j - 1 for every 0 < j < q with x_j = x_q
2. sum the attention on those targets
3. mean over the queries that have a target; one value per sequence and head
4. sink_free: position 0 excluded as a key and as a target (the first token of a block comes after it), rows
   renormalised, then 2 and 3
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.heads.matching import earlier_copies, mean_attention_on, shifted_keys, without_sink
from byrote.probes.spec import probe


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    stimulus="repeated_random",
    summary="Attention from a token back to whatever came before its earlier copies.",
    chance="uniform causal attention on the same tokens",
    metrics={
        "score": "mean over queries with an earlier copy of the attention on the tokens that preceded the copies",
        "sink_free": "the same with position 0 excluded and rows renormalised",
    },
    reads_as="The control of prefix_matching: a head high on both looks near copies without telling before from "
    "after. The score holds the attention on position 0 before a block's first token; sink_free does not",
    undefined="no token of the stimulus has an earlier copy, or every query looks at position 0 alone",
    order=40,
)
def anti_induction(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"], match_tokens: Int[Tensor, "batch query_pos"]
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.
        match_tokens: ids that decide what an earlier copy is, BOS first.

    Returns:
        `score` and `sink_free`, attention fractions from 0 to 1; NaN for a sequence without any target.
    """
    targets = shifted_keys(earlier_copies(match_tokens), -1)  # 1.
    return {
        "score": mean_attention_on(pattern, targets),  # 2. 3.
        "sink_free": without_sink(pattern, targets),  # 4.
    }
