"""The lab's model: TransformerLens's native transformer, its weights at step 0 and its losses."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints.lab.config import LabConfig

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
    losses: Float[Tensor, "batch pos"], second_block_start: Int[Tensor, " batch"]
) -> dict[str, float]:
    """Mean losses, nats, of the whole and of its two clear parts.

    Returns:
        `all`; `first_block`, where the next token belongs to the first block and cannot be copied; `copy`,
        the positions inside the second and later blocks. The one position between the two is in `all` only:
        its next token starts the second block, which nothing announces.
    """
    position = torch.arange(losses.shape[1], device=losses.device)
    start = second_block_start[:, None]
    return {
        "all": losses.mean().item(),
        "first_block": losses[position < start - 1].mean().item(),
        "copy": losses[position >= start].mean().item(),
    }
