"""From a checkpoint's files to a TransformerBridge, or into the parameters of one that is already built.

Token ids only: no tokenizer is ever given to the bridge, nothing is downloaded, no code from the checkpoint runs.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from checkpoints.errors import CheckpointError
from checkpoints.series import Checkpoint
from interp.model import HookedModel, ModelShape

NATIVE = "TransformerLensNative"
_DIGITS = re.compile(r"\d+")
_NOT_NATIVE_FIELDS = ("model_type", "bos_token_id", "eos_token_id", "format_version")


def load_fresh(
    checkpoint: Checkpoint, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> HookedModel:
    """Build a bridge for one checkpoint from nothing.

    Raises:
        CheckpointError: an architecture the bridge does not know, missing or unexpected tensors, wrong shapes.
    """
    config = read_config(checkpoint)
    inner, tl_config, hf_config = _inner(checkpoint, config, dtype)
    for parameter in {id(p): p for p in inner.parameters()}.values():
        # Own, aligned memory: mapped pages could make kernels round differently than after a swap.
        parameter.data = parameter.data.to(device=device, dtype=dtype, copy=True)
        parameter.requires_grad_(False)
    inner.to(device=device).eval()
    parameters = dict(inner.named_parameters(remove_duplicate=False))
    architecture = NATIVE if tl_config is not None else type(inner).__name__
    with quiet_upstream():
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        try:
            bridge = build_bridge_from_module(
                inner, architecture, hf_config=hf_config, tl_config=tl_config, tokenizer=None
            )
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"TransformerLens cannot hook the architecture {architecture} ({type(error).__name__}: {error})",
                help="`rote doctor` prints the installed versions; see the architectures TransformerBridge supports",
            ) from error
    blind = [i for i, block in enumerate(bridge.blocks) if not hasattr(block, "attn")]
    if blind:
        raise CheckpointError(
            f"{architecture} has {len(blind)} of {len(bridge.blocks)} layers without attention heads",
            help="rote measures attention heads; it needs them in every layer",
        )
    return HookedModel(bridge, _shape(bridge.cfg, architecture), checkpoint, parameters=parameters)


def copy_into(model: HookedModel, checkpoint: Checkpoint) -> None:
    """Copy another step's tensors into the live parameters of a built bridge.

    Both steps must have equal configs; `HookedSeries` sees to that and proves the result equal to a fresh load.

    Raises:
        CheckpointError: names or shapes differ from the live model's.
    """
    source = _parameters(checkpoint, model.dtype)
    if source.keys() != model.parameters.keys():
        differing = sorted(source.keys() ^ model.parameters.keys())
        raise CheckpointError(
            f"step {checkpoint.step} has other tensors than the step before ({', '.join(differing[:3])})",
            help="load it with a fresh bridge: swap='fresh'",
        )
    for name, parameter in model.parameters.items():
        _same_shape(name, source[name].shape, parameter.shape, step=checkpoint.step)
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            parameter.copy_(source[name])
        _refresh_split_attention(model.bridge)
    model.weights_changed(checkpoint)


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's config.json."""
    assert checkpoint.config_path is not None, "formats always record the config they found"
    return json.loads(checkpoint.config_path.read_text(encoding="utf-8"))


def _inner(checkpoint: Checkpoint, config: dict[str, Any], dtype: torch.dtype) -> tuple[nn.Module, Any, Any]:
    if checkpoint.format == "lab":
        module, tl_config = _native(checkpoint, config)
        return module, tl_config, None
    module = _from_pretrained(checkpoint, dtype)
    return module, None, module.config


def _native(checkpoint: Checkpoint, config: dict[str, Any]) -> tuple[nn.Module, Any]:
    with quiet_upstream():
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources.native.model import NativeModel

    fields = {k: v for k, v in config.items() if k not in _NOT_NATIVE_FIELDS}
    try:
        tl_config = TransformerBridgeConfig(**fields, init_weights=False)
        module = NativeModel(tl_config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.config_path} is not a native config ({error})", help="restore it"
        ) from error
    module.load_state_dict(_strict(_safetensors(checkpoint), module, checkpoint))
    return module, tl_config


def _parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    if checkpoint.format == "lab":
        return _safetensors(checkpoint)
    return dict(_from_pretrained(checkpoint, dtype).named_parameters(remove_duplicate=False))


def _safetensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in checkpoint.files:
            tensors.update(load_file(file))
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a dtype torch does not have
        raise CheckpointError(
            f"step {checkpoint.step}: {file.name} cannot be read ({_one_line(error)})", help="write it again"
        ) from error
    return tensors


def _strict(
    tensors: dict[str, torch.Tensor], module: nn.Module, checkpoint: Checkpoint
) -> dict[str, torch.Tensor]:
    expected = module.state_dict()
    differing = sorted(expected.keys() ^ tensors.keys())
    if differing:
        raise CheckpointError(
            f"step {checkpoint.step}: {len(differing)} tensors missing or unexpected ({', '.join(differing[:3])})",
            help="config.json and weights belong to different models",
        )
    for name, tensor in tensors.items():
        _same_shape(name, tensor.shape, expected[name].shape, step=checkpoint.step)
    return tensors


def _same_shape(name: str, found: torch.Size, expected: torch.Size, *, step: int) -> None:
    if found != expected:  # never left to `copy_`, which would spread a smaller tensor over a larger one
        raise CheckpointError(
            f"step {step}: {name} has shape {list(found)}, config.json says {list(expected)}",
            help="config.json and weights belong to different models",
        )


def _from_pretrained(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """Let transformers map file names to module names; refuse anything it would fill with random numbers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a missing local file must never become a hub request
    with quiet_upstream():
        from transformers import AutoModelForCausalLM

        try:
            module, info = AutoModelForCausalLM.from_pretrained(
                str(checkpoint.path),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,  # never "auto": half-precision files would silently run in half precision
                attn_implementation="eager",
                output_loading_info=True,
            )
        except Exception as error:  # a damaged config can make transformers raise anything at all
            raise CheckpointError(
                f"transformers cannot load step {checkpoint.step} from {checkpoint.path.name}: {_one_line(error)}",
                help="check config.json against the weights; `rote scan` lists what the folder holds",
            ) from error
    bad = {
        kind: sorted(map(str, info.get(kind) or ()))
        for kind in ("missing_keys", "mismatched_keys", "error_msgs")
    }
    for kind, names in bad.items():
        if names:
            raise CheckpointError(
                f"step {checkpoint.step}: {len(names)} {kind.replace('_', ' ')} ({', '.join(names[:3])})",
                help="the weights do not fill this architecture; the rest would be random numbers",
            )
    _refuse_further_layers(module, info.get("unexpected_keys") or (), step=checkpoint.step)
    return module


def _refuse_further_layers(module: nn.Module, unexpected: Iterable[str], *, step: int) -> None:
    """Extra heads and old buffers may be left out; layers that config.json does not count are another model."""
    known = {_DIGITS.sub("#", name) for name, _ in module.named_parameters()}
    more = sorted(name for name in map(str, unexpected) if _DIGITS.sub("#", name) in known)
    if more:
        raise CheckpointError(
            f"step {step}: the files hold {len(more)} tensors of further layers ({', '.join(more[:3])})",
            help="config.json counts fewer layers than the weights have: it belongs to another model",
        )


def _refresh_split_attention(bridge: Any) -> None:
    """Fused QKV architectures hold q, k, v as copies made at wrapping; make them again from the fused tensor."""
    for block in bridge.blocks:
        attn = getattr(block, "attn", None)
        split = getattr(attn, "split_qkv_matrix", None)
        if split is None:
            continue
        for part, fresh in zip((attn.q, attn.k, attn.v), split(attn.original_component), strict=True):
            live = part.original_component
            live.weight.copy_(fresh.weight)
            if live.bias is not None:
                live.bias.copy_(fresh.bias)


def _shape(cfg: Any, architecture: str) -> ModelShape:
    norm = cfg.normalization_type
    normalization = (
        "none" if norm is None else ("RMS" if "RMS" in norm.upper() or cfg.uses_rms_norm else "LN")
    )
    return ModelShape(
        architecture=architecture,
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        n_key_value_heads=cfg.n_key_value_heads or cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        normalization=normalization,
        attn_only=bool(cfg.attn_only),
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def quiet_upstream() -> Iterator[None]:
    """Loading bars and library warnings are not a user's concern; errors still rise."""
    from transformers.utils import logging as hf_logging

    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
