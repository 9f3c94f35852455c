"""Clamps of attention patterns, and of copying, during training ("artificial optogenetics", Singh et al. 2024, arXiv:2404.07129). Torch."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.clamped import COPYING, Clamped


def install(part: Clamped, model: nn.Module) -> None:
    """Replace what a head attends to, or what it writes, from now on, by hooks.

    Raises:
        ByroteError: the model has no such head, or is none whose attention patterns can be replaced.
    """
    if not isinstance(model, NativeModel):
        raise ByroteError(
            "attention can be clamped only in models of the native and llama architectures",
            help="use --architecture native",
        )
    n_layers, n_heads = len(model.layers), model.cfg.n_heads
    if part.layer >= n_layers or part.head >= n_heads:
        raise ByroteError(
            f"the model has no head L{part.layer}H{part.head}",
            help=f"choose a layer from 0 to {n_layers - 1}, a head from 0 to {n_heads - 1}",
        )
    read: dict[str, Tensor] = {}

    def remember(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        read["tokens"] = arguments[0]

    def with_clamp(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        def clamp(attention: Tensor) -> Tensor:
            if part.pattern == COPYING:
                read["attention"] = attention[:, part.head]
                forced = torch.zeros_like(attention[:, 0])  # it writes nothing
            else:
                forced = forced_pattern(part.pattern, read["tokens"]).to(attention)
            chosen = torch.arange(attention.shape[1], device=attention.device) == part.head
            return torch.where(chosen[:, None, None], forced[:, None], attention)

        return arguments, {**named, "pattern_fn": clamp}

    def with_copies(module: nn.Module, arguments: tuple[Any, ...], logits: Tensor) -> Tensor:
        return logits + copied_logits(read["attention"], read["tokens"], d_vocab=logits.shape[-1])

    model.register_forward_pre_hook(remember)
    model.layers[part.layer].attn.register_forward_pre_hook(with_clamp, with_kwargs=True)
    if part.pattern == COPYING:
        model.register_forward_hook(with_copies)


def copied_logits(
    attention: Float[Tensor, "batch query_pos key_pos"], tokens: Int[Tensor, "batch key_pos"], *, d_vocab: int
) -> Float[Tensor, "batch query_pos d_vocab"]:
    """What a head that copies perfectly adds to the logits: 2 ln(d_vocab) times the attention to each token.

    Args:
        attention: of the head.
        tokens: token ids.
        d_vocab: ids there are.
    """
    there = nn.functional.one_hot(tokens, d_vocab).to(attention)
    return 2 * math.log(d_vocab) * (attention @ there)


def forced_pattern(
    pattern: str, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch query_pos key_pos"]:
    """Attention of each query to each key: rows sum to 1, and no query sees what comes after it.

    Args:
        pattern: one of `PATTERNS` that is a pattern of attention.
        tokens: token ids, BOS first.
    """
    n, length = tokens.shape
    place = torch.arange(length, device=tokens.device)
    causal = place[:, None] >= place[None]
    if pattern == "uniform":
        return (causal / (place[:, None] + 1)).expand(n, -1, -1)
    if pattern == "previous_token":
        key = (place - 1).clamp(min=0).expand(n, -1)
    else:
        earlier = (tokens[:, :, None] == tokens[:, None, :]) & (place[:, None] > place[None])
        key = torch.where(earlier, place + 1, 0).amax(-1)  # the one after it; 0, BOS, where there is none
    return nn.functional.one_hot(key, length).float()
