"""One loaded checkpoint: a TransformerBridge, its shape, and its weights per head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from byrote.checkpoints.series import Checkpoint
from byrote.interp.weights import HeadWeights


@dataclass(frozen=True)
class ModelShape:
    """What two steps must share before weights may be swapped in place, and what a report prints."""

    architecture: str
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_ctx: int
    normalization: str
    final_normalization: str
    attn_only: bool

    def to_json(self) -> dict[str, Any]:
        """Plain fields, for provenance."""
        return asdict(self)


@dataclass
class Shown:
    """What models were shown while `counting_passes` was open.

    Attributes:
        rows: sequences of each pass of a whole model, in order; a pass that stops early or is followed by a backward one
            counts once.
    """

    rows: list[int] = field(default_factory=list)


@contextmanager
def counting_passes() -> Iterator[Shown]:
    """Count every forward pass of any model behind hooks while this is open, for the length of a trial."""
    from transformer_lens.model_bridge import TransformerBridge

    shown, forward = Shown(), TransformerBridge.forward

    def counted(self: Any, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        shown.rows.append(len(tokens))
        return forward(self, tokens, *args, **kwargs)

    setattr(TransformerBridge, "forward", counted)  # noqa: B010 (mypy: a method is not assigned to)
    try:
        yield shown
    finally:
        setattr(TransformerBridge, "forward", forward)  # noqa: B010


class HookedModel:
    """A checkpoint that can be run and hooked.

    Attributes:
        bridge: the TransformerBridge; its inner module holds the parameters that are swapped.
        shape: dimensions and architecture name.
        checkpoint: where the weights in it now come from.
        parameters: the inner module's parameters by their own names, from before wrapping.
        config: what decides the shape and the special ids, as plain JSON.
    """

    def __init__(
        self,
        bridge: Any,
        shape: ModelShape,
        checkpoint: Checkpoint,
        *,
        parameters: dict[str, nn.Parameter],
        config: dict[str, Any],
    ) -> None:
        self.bridge = bridge
        self.shape = shape
        self.checkpoint = checkpoint
        self.parameters = parameters
        self.config = config

    def __repr__(self) -> str:
        shape = self.shape
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"HookedModel({shape.architecture}: {shape.n_layers} layers x {shape.n_heads} heads, d_model {shape.d_model}, "
            f"d_vocab {shape.d_vocab:,}, n_ctx {shape.n_ctx:,}, {dtype} on {self.device}; {self.checkpoint!r})"
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.parameters.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(iter(self.parameters.values())).dtype

    @cached_property
    def weights(self) -> HeadWeights:
        """Weights per head, in TransformerLens's layout; raw, with norm gains beside them."""
        return HeadWeights.of(self.bridge, self.shape)

    def weights_changed(self, checkpoint: Checkpoint) -> None:
        """Say that the parameters now hold another checkpoint: forget what was derived from them."""
        self.checkpoint = checkpoint
        self.__dict__.pop("weights", None)

    @torch.inference_mode()
    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Plain forward pass on token ids."""
        return self.bridge(tokens.to(self.device))
