"""Clamps: a head attends as it is forced to while the rest of the model learns. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from byrote.checkpoints.lab.arms.part import Part

COPYING = "copying"
PATTERNS = ("previous_token", "induction", "uniform", COPYING)


@dataclass(frozen=True)
class Clamped(Part):
    """One head's attention, or what it writes, is replaced, in training and in the losses of the log; the rest of it still learns.

    What is written are the weights: whoever loads them without the clamp sees a head that attends by its own queries and keys,
    which learn nothing while they are clamped. A run with a clamp is trained by itself, and not in a stack.

    Attributes:
        layer, head: which one, from 0.
        pattern: "previous_token" (all attention to the token before; the first attends to itself), "induction" (to the token
            after the last earlier occurrence of this one; to BOS where there is none), "uniform" (over all tokens so far), or
            "copying": it attends as it learns to, and instead of writing raises the logit of each token by its attention to it
            times 2 ln(d_vocab), so that full attention leaves the others 1 in d_vocab.
    """

    name: ClassVar[str] = "clamped"
    made_by: ClassVar[str] = "byrote.checkpoints.lab.clamping"
    about: ClassVar[str] = (
        "unique data, and one head is forced to attend, or to copy, in a fixed way during training"
    )
    words: ClassVar[str] = "unique data, L{layer}H{head} forced to {pattern}"
    control: ClassVar[str] = "unique: no clamp; the same head clamped to uniform attention"
    paper: ClassVar[str] = "Singh et al. 2024, arXiv:2404.07129"
    rank: ClassVar[int] = 1
    changes_model: ClassVar[bool] = True

    layer: int = 0
    head: int = 0
    pattern: str = "previous_token"

    def __post_init__(self) -> None:
        self.require(0 <= self.layer < 1000, "layer", "a layer of the model, from 0")
        self.require(0 <= self.head < 1 << 16, "head", "a head of the layer, from 0")
        self.require(self.pattern in PATTERNS, "pattern", " or ".join(PATTERNS))

    def controls(self) -> Mapping[str, tuple[Part, ...]]:
        """No clamp, and one that says nothing."""
        return {"unique": (), "uniform": (type(self)(self.layer, self.head, "uniform"),)}

    def change(self, batches: Any, places: Any, first_step: int) -> Any:
        """The batches as they are."""
        return batches
