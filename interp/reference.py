"""HookedTransformer's variants that TransformerLens 4's native model does not compute, behind the same hooks.

Shortformer positions, rotary embeddings that rotate halves, attention divided by another scale in each layer or not at
all, windowed attention, attention and MLP in parallel, gated MLPs with biases. Each follows the HookedTransformer of
TransformerLens 3. Everything else is inherited from the native modules, so TransformerBridge wraps a `ReferenceModel`
as the architecture it supports, and every hook means what it means there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native.model import (
    NativeAttention,
    NativeBlock,
    NativeGatedMLP,
    NativeModel,
)
from transformer_lens.utilities import TypedModuleList

from byrote.checkpoints.formats.tl_config import LegacyConfig


def bridge_config(legacy: LegacyConfig) -> TransformerBridgeConfig:
    """The same model in TransformerLens 4's fields, as far as it has them; for the native model and the bridge."""
    scale = legacy.scales[0]
    refused_there = math.isclose(scale, 1.0, abs_tol=1e-9) and legacy.d_head > 1
    return TransformerBridgeConfig(
        d_model=legacy.d_model,
        d_head=legacy.d_head,
        n_layers=legacy.n_layers,
        n_ctx=legacy.n_ctx,
        n_heads=legacy.n_heads,
        n_key_value_heads=legacy.n_key_value_heads,
        d_vocab=legacy.d_vocab,
        d_mlp=legacy.d_mlp or 4 * legacy.d_model,
        act_fn=legacy.act_fn or "relu",
        attn_only=legacy.attn_only,
        gated_mlp=legacy.gated,
        parallel_attn_mlp=legacy.parallel,
        normalization_type=legacy.normalization,
        # Without norms TransformerLens had no final norm either, whatever final_rms said.
        final_rms=legacy.final_rms and legacy.normalization is not None,
        eps=legacy.eps,
        attn_scale=-1.0 if refused_there else scale,  # each layer of a ReferenceModel has its own
        positional_embedding_type="rotary" if legacy.positions == "rotary" else "standard",
        rotary_dim=legacy.rotary_dim or None,
        rotary_base=legacy.rotary_base,
        rotary_adjacent_pairs=bool(legacy.rotary_adjacent),
        init_weights=False,
        device="cpu",
    )


class ReferenceRotary(nn.Module):
    """Rotate the first `rotary_dim` entries of queries and keys: neighbouring pairs, or the two halves."""

    cos: Float[Tensor, "n_ctx rotary_dim"]
    sin: Float[Tensor, "n_ctx rotary_dim"]

    def __init__(self, legacy: LegacyConfig) -> None:
        super().__init__()
        self.rotary_dim = legacy.rotary_dim
        self.adjacent = bool(legacy.rotary_adjacent)
        sin, cos = rotary_tables(legacy, legacy.n_ctx, adjacent=self.adjacent)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(
        self, x: Float[Tensor, "batch heads pos d_head"], position_ids: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch heads pos d_head"]:
        """Rotated queries or keys."""
        cos, sin = (table[position_ids].unsqueeze(1).to(x.dtype) for table in (self.cos, self.sin))
        turned, rest = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        return torch.cat([turned * cos + self._quarter_turn(turned) * sin, rest], dim=-1)

    def _quarter_turn(self, x: Tensor) -> Tensor:
        """(a, b) -> (-b, a) for every pair."""
        if self.adjacent:
            return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)


def rotary_tables(
    legacy: LegacyConfig, n_pos: int, *, adjacent: bool
) -> tuple[Float[Tensor, "n_pos rotary_dim"], Float[Tensor, "n_pos rotary_dim"]]:
    """Sine and cosine of every position's angles, as HookedTransformer computed and stored them."""
    half = legacy.rotary_dim // 2
    wavelength = legacy.rotary_base ** (torch.arange(half, dtype=torch.float32) / half)
    wavelength = wavelength.repeat_interleave(2) if adjacent else wavelength.repeat(2)
    angles = torch.arange(n_pos, dtype=torch.float32)[:, None] / wavelength
    return angles.sin(), angles.cos()


class ReferenceAttention(NativeAttention):
    """Causal attention with its own scale and window, whose queries and keys may see more than its values."""

    def __init__(self, cfg: TransformerBridgeConfig, legacy: LegacyConfig, layer: int) -> None:
        super().__init__(cfg)
        del self.causal_mask  # n_ctx squared, in every layer
        self.scale = legacy.scales[layer]
        self.window = legacy.windows[layer]

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "batch pos"] | None = None,
        pattern_fn: Callable[[Tensor], Tensor] | None = None,
        qk_positions: Float[Tensor, "batch pos d_model"] | None = None,
        rotary: ReferenceRotary | None = None,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch n_heads query_pos key_pos"]]:
        """Output and pattern. `qk_positions` is added to what queries and keys read, not to what values read."""
        assert attention_mask is None, "legacy checkpoints are run on whole sequences, without padding"
        read = hidden_states if qk_positions is None else hidden_states + qk_positions
        q, k, v = (self._heads(part) for part in (self.q(read), self.k(read), self.v(hidden_states)))
        if rotary is not None:
            q, k = rotary(q, position_ids), rotary(k, position_ids)
        k, v = (part.repeat_interleave(self.kv_repeats, dim=1) for part in (k, v))
        scores = q @ k.transpose(-2, -1) / self.scale
        pattern = scores.masked_fill(self._unseen(scores.shape[-1], scores.device), -torch.inf).softmax(-1)
        if pattern_fn is not None:
            pattern = pattern_fn(pattern)
        return self.o((pattern @ v).transpose(1, 2).flatten(-2)), pattern

    def _heads(self, x: Tensor) -> Float[Tensor, "batch heads pos d_head"]:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)

    def _unseen(self, n_pos: int, device: torch.device) -> Bool[Tensor, "query_pos key_pos"]:
        position = torch.arange(n_pos, device=device)
        back = position[:, None] - position[None, :]
        return (back < 0) if self.window is None else (back < 0) | (back >= self.window)


class ReferenceGatedMLP(NativeGatedMLP):
    """act(x W_gate) * (x W_in) + b_in, then W_out and b_out: HookedTransformer adds b_in after the product."""

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self.b_in = nn.Parameter(torch.zeros(self.out.in_features))
        self.out.bias = nn.Parameter(torch.zeros(cfg.d_model))

    def forward(
        self, hidden_states: Float[Tensor, "batch pos d_model"], **kwargs: object
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP writes."""
        read_in = getattr(self, "in")
        return self.out(self.act(self.gate(hidden_states)) * read_in(hidden_states) + self.b_in)


class ReferenceBlock(NativeBlock):
    """Attention, then the MLP on what attention wrote, or both on what the block was given."""

    def __init__(self, cfg: TransformerBridgeConfig, legacy: LegacyConfig, layer: int) -> None:
        super().__init__(cfg)
        self.attn = ReferenceAttention(cfg, legacy, layer)
        self.parallel = legacy.parallel
        if legacy.gated:
            self.mlp = ReferenceGatedMLP(cfg)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "batch pos"] | None = None,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "batch pos d_model"]]:
        """The residual stream after the block, in a tuple as the bridge expects."""
        written, _ = self.attn(
            self.ln1(hidden_states), attention_mask=attention_mask, position_ids=position_ids, **kwargs
        )
        after = hidden_states + written
        if not self.cfg.attn_only:
            after = after + self.mlp(self.ln2(hidden_states if self.parallel else after))
        return (after,)


class ReferenceModel(NativeModel):
    """A HookedTransformer of any kind `LegacyConfig` describes.

    Args:
        cfg: `bridge_config(legacy)`.
        legacy: what it computes; the native fields in `cfg` are not enough.
    """

    def __init__(self, cfg: TransformerBridgeConfig, legacy: LegacyConfig) -> None:
        n_layers, cfg.n_layers = cfg.n_layers, 0  # the native layers would be made only to be thrown away
        super().__init__(cfg)
        cfg.n_layers = n_layers
        self.layers = TypedModuleList([ReferenceBlock(cfg, legacy, layer) for layer in range(n_layers)])
        self.shortformer = legacy.positions == "shortformer"
        self.rotary = ReferenceRotary(legacy) if legacy.positions == "rotary" else None

    def forward(
        self,
        input_ids: Int[Tensor, "batch pos"],
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "batch pos"] | None = None,
        **kwargs: object,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        stream, extra = self.tok_embed(input_ids), {}
        if self.shortformer:
            extra["qk_positions"] = self.pos(position_ids)
        elif self.rotary is not None:
            extra["rotary"] = self.rotary
        else:
            stream = stream + self.pos(position_ids)
        for block in self.layers:
            (stream,) = block(stream, attention_mask=attention_mask, position_ids=position_ids, **extra)
        return self.head(self.ln_out(stream))


def with_head_bias(model: NativeModel) -> NativeModel:
    """Give the unembedding the bias every HookedTransformer has and the native model lacks."""
    model.head.bias = nn.Parameter(torch.zeros(model.head.out_features))
    return model
