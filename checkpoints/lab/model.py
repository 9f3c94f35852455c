"""The lab's model: TransformerLens's native transformer, its weights at step 0 and its losses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor, nn
from torch.nn import functional as F
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.sources.contract import CODES, NOT_LEARNED_BY_HEART

_EVAL_BATCH = 64
SMEAR = ".smear"  # how the names of what heads learn about smearing end
# Modules whose output is added to the residual stream, or begins it: native, then GPT-NeoX.
_WRITES = re.compile(
    r"^tok_embed$|^pos$|^layers\.\d+\.(attn|mlp)$|^gpt_neox\.(embed_in|layers\.\d+\.(attention|mlp))$"
)


def build_model(config: LabConfig) -> nn.Module:
    """The model at step 0: weights N(0, init_std), gains 1, biases 0 and frozen.

    The weights depend on the seed and the shape alone: every arm of a seed starts from the same ones, and the
    caller's random state is left as it was. Called with token ids, it returns logits.
    """
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are overwritten below
        model = _empty_model(config)
    digest = hashlib.sha256(f"rote-lab/weights/{config.seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_().requires_grad_(False)
            elif name.endswith(SMEAR):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, config.init_std, generator=generator)
    return model.to(config.device)


def _empty_model(config: LabConfig) -> nn.Module:
    if config.architecture == "gpt_neox":
        return _gpt_neox(config.model_fields())
    model = NativeModel(TransformerBridgeConfig(**config.model_fields()))
    return with_smeared_keys(model) if config.smeared_keys else model


def with_smeared_keys(model: NativeModel) -> NativeModel:
    """The native model with `SmearedKeys` in place of every layer's key projection."""
    for block in model.layers:
        block.attn.k = SmearedKeys(block.attn.k, n_heads=block.attn.n_heads)
    return model


class SmearedKeys(nn.Module):
    """A key projection whose heads mix each key with the one before (Olsson et al. 2022, argument 2).

    k_t becomes sigmoid(a) k_t + (1 - sigmoid(a)) k_(t-1), with one a per head that starts at 0; the first key stays as it
    is. Keys are smeared before any rotation by position.

    Args:
        projection: the linear map to keys; its weights keep their names.
        n_heads: heads whose keys it gives, side by side.
    """

    def __init__(self, projection: nn.Linear, *, n_heads: int) -> None:
        super().__init__()
        self.weight, self.bias, self.n_heads = projection.weight, projection.bias, n_heads
        self.smear = nn.Parameter(torch.zeros(n_heads))

    def forward(self, hidden: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos keys"]:
        """Smeared keys of every position."""
        keys = F.linear(hidden, self.weight, self.bias)
        own = torch.sigmoid(self.smear).repeat_interleave(keys.shape[-1] // self.n_heads)
        smeared = own * keys[:, 1:] + (1 - own) * keys[:, :-1]
        return torch.cat([keys[:, :1], smeared], dim=1)


def _gpt_neox(fields: dict[str, Any]) -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    class LogitsOfGPTNeoX(GPTNeoXForCausalLM):  # the lab's losses take logits
        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = super().forward(input_ids=tokens, use_cache=False).logits
            return logits

    settings = GPTNeoXConfig(**fields)
    settings._attn_implementation = "eager"
    return LogitsOfGPTNeoX(settings)


@contextmanager
def dropping(model: nn.Module, config: LabConfig, *, step: int) -> Iterator[None]:
    """Leave out the share `dropout` of what embeddings, attention and MLPs add, while this is open; nothing where it is 0.

    What is left out depends on seed and step alone, so that training that was interrupted ends in the same bytes, and
    the caller's random state is left as it was.
    """
    if not config.dropout:
        yield
        return

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (F.dropout(output[0], config.dropout), *output[1:])
        return F.dropout(output, config.dropout)

    digest = hashlib.sha256(f"byrote-lab/dropout/{config.seed}/{step}".encode()).digest()
    devices = [torch.cuda.current_device()] if config.device == "cuda" else []
    handles = [
        module.register_forward_hook(drop) for name, module in model.named_modules() if _WRITES.search(name)
    ]
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            yield
    finally:
        for handle in handles:
            handle.remove()


def learning_rate(config: LabConfig, step: int) -> float:
    """The rate of update `step` (0 is the first): linear warm-up to `lr`, then linear decay."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    decay_steps = max(1, config.steps - 1 - config.warmup_steps)
    progress = (step - config.warmup_steps) / decay_steps
    return config.lr * (1 - (1 - config.final_lr_frac) * progress)


def mean_loss(
    model: nn.Module,
    wide: Int[Tensor, "batch width"],
    counted: Bool[Tensor, "batch n_ctx"] | None = None,
    read: Int[Tensor, "batch n_ctx"] | None = None,
    attended: Bool[Tensor, "batch n_ctx"] | None = None,
) -> Float[Tensor, ""]:
    """Mean next-token loss, nats, of sequences one token longer than the context.

    Args:
        model: returns logits.
        wide: token ids.
        counted: the positions that the mean is over; None for all. The mean over none is 0.
        read: what the model reads; None for all tokens but the last.
        attended: the positions that may be attended to; None for all.

    Raises:
        ByroteError: positions are left out of the attention of a model whose attention has no such mask.
    """
    with _attending(model, attended):
        logits = model(wide[:, :-1] if read is None else read).flatten(0, 1)
    if counted is None:
        return F.cross_entropy(logits, wide[:, 1:].reshape(-1))
    losses = F.cross_entropy(logits, wide[:, 1:].reshape(-1), reduction="none")
    return (losses * counted.flatten()).sum() / counted.sum().clamp(min=1)


@contextmanager
def _attending(model: nn.Module, attended: Bool[Tensor, "batch n_ctx"] | None) -> Iterator[None]:
    """Let nothing attend to other positions than these while this is open; nothing changes where it is None."""
    if attended is None:
        yield
        return
    if not isinstance(model, NativeModel):
        raise ByroteError(
            "tokens can be dropped from attention only in the native and llama architectures",
            help='use --architecture native, or how = "input" or "loss"',
        )

    def mask(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return arguments, {**named, "attention_mask": attended}

    handles = [block.attn.register_forward_pre_hook(mask, with_kwargs=True) for block in model.layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def position_losses(model: nn.Module, tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch pos"]:
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
