"""Previous-token attention.

Source: Olsson et al. 2022, arXiv:2209.11895.

1. take A[q, q-1] for every q >= 1
2. mean over q; one value per sequence and head
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from probes.registry import probe


@probe("previous_token")
def previous_token(
    pattern: Float[Tensor, "batch n_heads query_pos key_pos"],
) -> dict[str, Float[Tensor, "batch n_heads"]]:
    """Score one layer.

    Args:
        pattern: post-softmax causal attention; each row sums to 1.

    Returns:
        `score`, attention fraction from 0 to 1.
    """
    just_before = pattern.float().diagonal(offset=-1, dim1=-2, dim2=-1)  # 1.
    return {"score": just_before.mean(-1)}  # 2.
