"""Models in memory: copied behind the same hooks as one from disk; the original is not changed.

The copy is built from the model's config and tensors by the way that files take, so that its numbers are those of the
same weights on disk. The model itself is only read: mode, gradients and hooks of its own are not touched.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import NATIVE, Built
from byrote.interp.builders.filling import fill
from byrote.interp.loading import behind_hooks
from byrote.interp.model import HookedModel
from byrote.interp.quiet import own_randomness

FORMAT = "memory"
_WRAPPED_IN = ("_orig_mod", "module")  # torch.compile, DistributedDataParallel
_HELP = "give a TransformerBridge, a causal language model of transformers, or TransformerLens's native model"


@own_randomness()
def copy_of(
    model: nn.Module, *, step: int = 0, device: str | None = None, dtype: torch.dtype = torch.float32
) -> HookedModel:
    """A copy of a model in memory that can be hooked.

    Args:
        model: a TransformerBridge, a causal language model of transformers, or a native model of TransformerLens, also as
            torch.compile or DistributedDataParallel wrap it.
        step: said of it.
        device: of the copy; None is the model's own.
        dtype: of the copy's parameters.

    Raises:
        ByroteError: another kind of model, or weights that no longer are the architecture's own (LoRA, folded norms).
    """
    inner, tensors = _inner(model)
    device = device or str(next(iter(tensors.values())).device)
    checkpoint = Checkpoint(step, Path(FORMAT), FORMAT)
    if type(inner).__name__ == "NativeModel":
        config: dict[str, Any] = {"model_type": "transformer_lens_native"}
        built = _native(inner, tensors)
    else:
        config = _config_of(inner)
        module = fill(config, tensors, dtype=dtype, step=step, exact=False)
        built = Built(module, type(module).__name__, hf_config=module.config)
    return behind_hooks(built, checkpoint, config, device=device, dtype=dtype)


def fingerprint_of(model: HookedModel) -> str:
    """Hash of the parameters: two models with equal ones give equal numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.parameters.items()):
        digest.update(f"{name} {list(parameter.shape)} ".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _inner(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module inside wrappers and bridge, and its tensors by the names it has without either."""
    while inner := next(
        (m for name in _WRAPPED_IN if isinstance(m := getattr(model, name, None), nn.Module)), None
    ):
        model = inner
    if getattr(model, "compatibility_mode", False):
        raise ByroteError(
            "this TransformerBridge is in compatibility mode: its norms are folded into its weights",
            help="measure it before enable_compatibility_mode(), or boot it again",
        )
    bridged = getattr(model, "original_model", None)
    if not isinstance(bridged, nn.Module):
        return model, dict(model.state_dict())
    tensors = bridged.state_dict()
    return bridged, {name.replace("._original_component", ""): tensor for name, tensor in tensors.items()}


def _config_of(module: nn.Module) -> dict[str, Any]:
    """A transformers model's config, as its config.json would have it."""
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "to_json_string"):
        raise ByroteError(
            f"a {type(module).__name__} cannot be measured: it has no config of transformers", help=_HELP
        )
    if hasattr(module, "peft_config"):
        raise ByroteError(
            f"a {type(module).__name__} stores its adapter beside the weights",
            help="measure model.merge_and_unload()",
        )
    return {"architectures": [type(module).__name__], **json.loads(config.to_json_string())}


def _native(module: nn.Module, tensors: dict[str, Tensor]) -> Built:
    config = copy.deepcopy(module.cfg)
    fresh = type(module)(config)
    own = fresh.state_dict()
    if lacking := sorted(own.keys() - tensors.keys()):
        raise ByroteError(f"the model has no tensor {lacking[0]}", help=_HELP)
    fresh.load_state_dict({name: tensors[name] for name in own})
    return Built(fresh, NATIVE, tl_config=config)
