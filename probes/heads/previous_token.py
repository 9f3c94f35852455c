"""Previous-token attention.

Source: Olsson et al. 2022, arXiv:2209.11895.

1. take A[q, q-1] for every q >= 1
2. mean over q; one value per sequence and head
3. sink_free: position 0 excluded as a key, rows renormalised, q >= 2; a query that looks at position 0 alone is left
   out
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from byrote.probes.heads.matching import mean_share_on
from byrote.probes.spec import probe


@probe(
    unit="attention fraction",
    range=(0.0, 1.0),
    better="higher",
    stimulus="repeated_random",
    summary="Attention from a token to the one just before it.",
    chance="uniform causal attention",
    metrics={
        "score": "mean attention from position q to q-1, over q >= 1",
        "sink_free": "the same with position 0 excluded and rows renormalised, over q >= 2",
    },
    reads_as="1: the head always looks one back, the first half of an induction circuit. The mean of uniform "
    "attention is several hundredths, not 0",
    undefined="every query looks at position 0 alone",
    order=20,
    featured=2,
    followed=1,
    best_compared=True,
    version=2,
)
def previous_token(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.

    Returns:
        `score` and `sink_free`, attention fractions from 0 to 1; the latter NaN where every query looks at position 0
        alone.
    """
    just_before = pattern.float().diagonal(offset=-1, dim1=-2, dim2=-1)  # 1.
    batch, _, pos, _ = pattern.shape
    targets = torch.ones(pos, pos, dtype=torch.bool, device=pattern.device).tril(-1).triu(-1)
    return {
        "score": just_before.mean(-1),  # 2.
        "sink_free": mean_share_on(pattern[..., 1:], targets[:, 1:].expand(batch, -1, -1)),  # 3.
    }
