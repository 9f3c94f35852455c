"""What a probe of kind "weights" returns for each of its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class WeightScores:
    """Scores from weights alone: exact, unless they average over a sample.

    Attributes:
        values: one per model (no axes), per head (n_layers n_heads), or per pair (src_layer src_head layer head).
        chance: their chance levels, same shape.
        n: draws of the null, or tokens sampled.
        rows: per-sample values of a head score that has sampling error, else None.
        exists: which entries are quantities at all; None means all. Others are left out, not "not measured".
    """

    values: Float[Tensor, "*axes"]
    chance: Float[Tensor, "*axes"]
    n: int
    rows: Float[Tensor, "sample n_layers n_heads"] | None = None
    exists: Bool[Tensor, "*axes"] | None = None
