"""Weights per head in TransformerLens's row-vector layout, whatever the architecture fuses or shares.

A head maps a residual row x to (x W_V) W_O; tokens enter by W_E and leave by W_U. Norms are not folded into the
stored tensors: `reads` and `unembed` apply the gain and the centring where a weight-only probe needs it,
which is the linear part of the norm (its scale depends on the input and is left out).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class HeadWeights:
    """Attributes carry their shape; grouped-query keys and values are repeated for every query head.

    `smeared_keys` says that each key is a mixture of two tokens', so that W_K alone is not what heads read by; `W_pos` is
    there where positions are learned.
    """

    W_E: Float[Tensor, "d_vocab d_model"]
    W_U: Float[Tensor, "d_model d_vocab_out"]
    W_Q: Float[Tensor, "n_layers n_heads d_model d_head"]
    W_K: Float[Tensor, "n_layers n_heads d_model d_head"]
    W_V: Float[Tensor, "n_layers n_heads d_model d_head"]
    W_O: Float[Tensor, "n_layers n_heads d_head d_model"]
    attn_norm_gain: Float[Tensor, "n_layers d_model"]
    final_norm_gain: Float[Tensor, " d_model"]
    centred: bool
    final_centred: bool
    linear_readout: bool
    smeared_keys: bool = False
    W_pos: Float[Tensor, "n_ctx d_model"] | None = None

    @classmethod
    def of(cls, bridge: Any, shape: Any) -> HeadWeights:
        """Read them from a bridge. `shape` is the model's `ModelShape`."""
        blocks = list(bridge.blocks)
        with torch.no_grad():
            return cls(
                W_E=_plain(bridge.W_E),
                W_U=_plain(bridge.W_U),
                W_Q=_stack(bridge.W_Q, shape.n_heads),
                W_K=_stack(bridge.W_K, shape.n_heads),
                W_V=_stack(bridge.W_V, shape.n_heads),
                W_O=_stack(bridge.W_O, shape.n_heads),
                attn_norm_gain=torch.stack([_gain(getattr(b, "ln1", None), bridge.cfg) for b in blocks]),
                final_norm_gain=_gain(getattr(bridge, "ln_final", None), bridge.cfg),
                centred=shape.normalization == "LN",
                final_centred=shape.final_normalization == "LN",
                # A norm after attention bends a head's write: its direct path is then not linear.
                linear_readout=not any(hasattr(b, "ln1_post") for b in blocks),
                smeared_keys=any(_smeared(b.attn) for b in blocks),
                W_pos=_learned_positions(bridge),
            )

    def centre(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Subtract the mean over d_model where the model's norm does; identity for RMS and no norm."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def reads(self, W: Float[Tensor, "d_model n"], layer: int) -> Float[Tensor, "d_model n"]:
        """A reading matrix of this layer's attention (W_Q, W_K, W_V of a head) with its norm folded in."""
        return self.centre((self.attn_norm_gain[layer, :, None] * W).T).T

    def reads_of(self, name: str, layer: int) -> Float[Tensor, "n_heads d_model d_head"]:
        """`reads` of every head of a layer: of its "W_Q", "W_K" or "W_V"."""
        W = getattr(self, name)[layer]
        side_by_side = self.reads(W.transpose(0, 1).flatten(1), layer)
        return side_by_side.unflatten(1, (W.shape[0], W.shape[2])).transpose(0, 1)

    def normed(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The linear part of the final norm: `normed(x) @ W_U` is `x @ unembed()`, without a copy of W_U."""
        centred = x - x.mean(-1, keepdim=True) if self.final_centred else x
        return centred * self.final_norm_gain.to(x.device)

    @cached_property
    def unembed_centred(self) -> Float[Tensor, "d_model d_vocab_out"]:
        """`unembed()` minus its mean over the vocabulary: what a write does to a logit beyond what it does to all."""
        unembed = self.unembed()
        return unembed - unembed.mean(-1, keepdim=True)

    def unembed(self, columns: Any = slice(None)) -> Float[Tensor, "d_model n"]:
        """W_U with the final norm folded in, for some columns (token ids) or all."""
        folded = self.final_norm_gain[:, None] * self.W_U[:, columns]
        return folded - folded.mean(0, keepdim=True) if self.final_centred else folded


def _smeared(attention: Any) -> bool:
    """Whether a layer's key projection is the lab's `SmearedKeys`."""
    return hasattr(getattr(getattr(attention, "k", None), "original_component", None), "smear")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float()


def _learned_positions(bridge: Any) -> Tensor | None:
    """None where positions are rotary, relative, or not there."""
    try:
        return _plain(bridge.W_pos)
    except AttributeError:
        return None


def _stack(tensor: Tensor, n_heads: int) -> Tensor:
    """[n_layers, heads, ...] with shared key/value heads repeated in the order attention uses them."""
    tensor = _plain(tensor)
    return tensor.repeat_interleave(n_heads // tensor.shape[1], dim=1)


def _gain(norm: Any, cfg: Any) -> Tensor:
    weight = getattr(norm, "weight", None) if norm is not None else None
    if weight is None:
        return torch.ones(cfg.d_model)
    gain = _plain(weight)
    return gain + 1 if getattr(cfg, "rmsnorm_uses_offset", False) else gain
