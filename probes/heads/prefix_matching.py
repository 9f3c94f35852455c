"""Prefix matching: attention from a token back to whatever followed its earlier copies.

Source: Olsson et al. 2022, arXiv:2209.11895, head activation evaluators. The paper's text says both "preceded" and
"followed"; the target is j + 1. Entry-wise means are capped at 0.5 on four repeats while the paper reports 0.75, so
targets are summed per query before averaging (range 0-1).

1. for query q the targets are j + 1 for every j < q with x_j = x_q
2. sum the attention on those targets
3. mean over the queries that have a target; one value per sequence and head
4. sink_free: position 0 excluded as a key, rows renormalised, then 2 and 3
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from byrote.probes.heads.matching import earlier_copies, mean_attention_on, shifted_keys, without_sink
from byrote.probes.spec import probe


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    better="higher",
    stimulus=("repeated_random", "shuffled_repeat", "jittered_repeat"),
    summary="Attention from a token back to whatever followed its earlier copies.",
    chance="uniform causal attention on the same tokens",
    metrics={
        "score": "mean over queries with an earlier copy of the attention on the tokens that followed the copies",
        "sink_free": "the same with position 0 excluded and rows renormalised",
        "score@shuffled_repeat": "the null: attention to the same positions when later blocks are re-drawn",
        "score@jittered_repeat": "the same score when block lengths differ between sequences",
        "sink_free@shuffled_repeat": "the null of sink_free, as that of the score",
        "sink_free@jittered_repeat": "sink_free when block lengths differ between sequences",
    },
    undirected=("score@shuffled_repeat", "sink_free@shuffled_repeat"),
    reads_as="Chance: the head does not care what followed. 0.4 and more is often called strong, 1 is everything, "
    "always. Matching alone is not induction: read copying_logit with it, and the jittered score against fixed "
    "offsets",
    undefined="no token of the stimulus has an earlier copy",
    order=10,
    featured=1,
    followed=2,
    best_compared=True,
    version=2,
)
def prefix_matching(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"], match_tokens: Int[Tensor, "batch query_pos"]
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.
        match_tokens: ids that decide what an earlier copy is, BOS first (`Stimulus.match_tokens`).

    Returns:
        `score` and `sink_free`, attention fractions from 0 (never) to 1 (always); NaN for a sequence without any
        earlier copy. Compare with chance (0.0307 for BOS and 25 tokens four times); 0.4 is a common working
        threshold, not a law.
    """
    targets = shifted_keys(earlier_copies(match_tokens), 1)  # 1.
    return {
        "score": mean_attention_on(pattern, targets),  # 2. 3.
        "sink_free": without_sink(pattern, targets),  # 4.
    }
