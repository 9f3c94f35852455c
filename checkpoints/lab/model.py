"""The lab's model: TransformerLens's native transformer, its weights at step 0 and its losses."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.sources.contract import CODES, NOT_LEARNED_BY_HEART

_EVAL_BATCH = 64


def build_model(config: LabConfig) -> NativeModel:
    """The model at step 0: weights N(0, init_std), gains 1, biases 0 and frozen.

    The weights depend on the seed and the shape alone: every arm of a seed starts from the same ones, and the
    caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are overwritten below
        model = NativeModel(TransformerBridgeConfig(**config.model_fields()))
    digest = hashlib.sha256(f"rote-lab/weights/{config.seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_().requires_grad_(False)
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, config.init_std, generator=generator)
    return model.to(config.device)


def learning_rate(config: LabConfig, step: int) -> float:
    """The rate of update `step` (0 is the first): linear warm-up to `lr`, then linear decay."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    decay_steps = max(1, config.steps - 1 - config.warmup_steps)
    progress = (step - config.warmup_steps) / decay_steps
    return config.lr * (1 - (1 - config.final_lr_frac) * progress)


def mean_loss(model: NativeModel, wide: Int[Tensor, "batch width"]) -> Float[Tensor, ""]:
    """Mean next-token loss, nats, over all positions of sequences one token longer than the context."""
    logits = model(wide[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), wide[:, 1:].reshape(-1))


@torch.inference_mode()
def position_losses(model: NativeModel, tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch pos"]:
    """Next-token loss, nats, of every position but the last, whose next token is not among `tokens`."""
    losses = [
        F.cross_entropy(model(part)[:, :-1].transpose(1, 2), part[:, 1:], reduction="none")
        for part in tokens.split(_EVAL_BATCH)
    ]
    return torch.cat(losses)


def loss_parts(
    losses: Float[Tensor, "batch pos"], mechanism: Int8[Tensor, "batch pos"]
) -> dict[str, float | None]:
    """Mean losses, nats, of the whole and of its two clear parts.

    Args:
        losses: of every position.
        mechanism: of the token that each position predicts, by its code in `MECHANISMS`.

    Returns:
        `all`; `first_block`, where no copy predicts the next token; `copy`, where one does. The start of a copy, which
        nothing announces, is in `all` only. None where there is no such position.
    """
    known = torch.tensor([CODES[name] for name in NOT_LEARNED_BY_HEART], device=mechanism.device)
    parts = {"first_block": ~torch.isin(mechanism, known), "copy": mechanism == CODES["copy"]}
    means = {name: losses[chosen].mean().item() if chosen.any() else None for name, chosen in parts.items()}
    return {"all": losses.mean().item(), **means}


def mechanism_losses(
    losses: Float[Tensor, "batch pos"], mechanism: Int8[Tensor, "batch pos"]
) -> dict[str, float]:
    """Mean loss, nats, by the mechanism that can predict the next token; mechanisms of no position are left out.

    Args:
        losses: of every position.
        mechanism: of the token that each position predicts, by its code in `MECHANISMS`.
    """
    there = {name: mechanism == code for name, code in CODES.items()}
    return {name: losses[chosen].mean().item() for name, chosen in there.items() if chosen.any()}
