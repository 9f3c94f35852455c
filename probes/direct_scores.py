"""What a probe of kind "direct" returns for each of its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class DirectScores:
    """Per-sequence values of one metric.

    Attributes:
        samples: first axis sequences, the others as named by `axes`; NaN means undefined for that sequence.
        axes: from layer, head, src_layer, src_head, position.
        chance: chance level, broadcast over the other axes; NaN where there is none.
        position_start: value of `position` at index 0.
        layer_reasons: layers that could not be measured, and why.
        exists: which entries are quantities at all, such as the pairs of heads that were measured; None means all. The
            others have no rows.
    """

    samples: Float[np.ndarray, n * axes]
    axes: tuple[str, ...] = ()
    chance: Float[np.ndarray, "*axes"] | float = float("nan")
    position_start: int = 0
    layer_reasons: Mapping[int, str] = field(default_factory=dict)
    exists: Bool[np.ndarray, "*axes"] | None = None
