"""Models in memory, behind the same hooks as one from disk: copied, or in place where they are; the original is not changed.

A second module of the same class is built from the model's config and tensors by the way that files take, so that its
numbers are those of the same weights on disk. The model itself is only read: mode, gradients and hooks of its own are
not touched. The second module has weights of its own (`copy_of`), or shares those of the model (`LiveModel`).

A model with an adapter is measured as peft merges it: each layer that is adapted is copied and merged, the others are
taken as they are.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import IN_MEMORY, Checkpoint
from byrote.interp.builders import NATIVE, Built
from byrote.interp.builders.filling import fill
from byrote.interp.device import require_device
from byrote.interp.loading import behind_hooks, load, refresh_split_attention
from byrote.interp.merging import merged_tensors
from byrote.interp.model import HookedModel
from byrote.interp.quiet import own_randomness

MEASURED_IN = (torch.float32, torch.bfloat16, torch.float64)
_WRAPPED_IN = ("_orig_mod", "module")  # torch.compile, DataParallel and DistributedDataParallel
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}  # of both generations
_HELP = "give a TransformerBridge, a causal language model of transformers, or TransformerLens's native model"


@own_randomness()
def copy_of(
    model: nn.Module, *, step: int = 0, device: str | None = None, dtype: torch.dtype = torch.float32
) -> HookedModel:
    """A copy of a model in memory that can be hooked.

    Args:
        model: a TransformerBridge, a causal language model of transformers, also with adapters of peft, or a native model
            of TransformerLens, also as torch.compile, DataParallel or DistributedDataParallel wrap it.
        step: said of it.
        device: of the copy; None is the model's own.
        dtype: of the copy's parameters.

    Raises:
        ByroteError: another kind of model, one that is sharded, or weights that no longer are the architecture's own
            (folded norms, adapters that cannot be merged), or a device that is not here.
    """
    if device is not None:
        require_device(str(device), dtype=str(dtype).removeprefix("torch."))
    inner, tensors = _inner(model)
    device = device or str(next(iter(tensors.values())).device)
    built, config = _built(inner, tensors, dtype, step)
    return behind_hooks(
        built, Checkpoint(step, Path(IN_MEMORY), IN_MEMORY), config, device=device, dtype=dtype
    )


class LiveModel:
    """A model in training, behind hooks without a second copy of its weights.

    Memory of their own have: parameters in another dtype than the one requested, layers that an adapter changes, and the
    queries, keys and values of architectures that store the three as one matrix, which TransformerLens splits. On a GPU,
    the weights pass through the memory of the CPU once, when the second module is built.

    Args:
        model: as for `copy_of`; it may be trained on, moved and given other tensors between calls of `at`.
        dtype: to measure in; None is that of its parameters where that is float32, bfloat16 or float64, else float32.

    Raises:
        ByroteError: as `copy_of`.
    """

    def __init__(self, model: nn.Module, *, dtype: torch.dtype | None = None) -> None:
        self.model = model
        _, tensors = _inner(model)
        first = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
        own = first.dtype if first.dtype in MEASURED_IN else torch.float32
        self.dtype = dtype or own
        self.device = str(first.device)
        self._hooked: HookedModel | None = None

    @own_randomness()
    def at(self, step: int) -> HookedModel:
        """The model as it is now. What was handed out before is no longer valid; nothing may write into its weights.

        Args:
            step: said of it.

        Raises:
            ByroteError: as `copy_of`, and tensors of other names or shapes than before.
        """
        inner, tensors = _inner(self.model)
        checkpoint = Checkpoint(step, Path(IN_MEMORY), IN_MEMORY)
        self.device = str(next(iter(tensors.values())).device)
        if self._hooked is None:
            built, config = _built(inner, tensors, self.dtype, step)
            parameters = dict(built.module.named_parameters(remove_duplicate=False))
            _share(parameters, tensors, self.device, self.dtype)
            self._hooked = behind_hooks(
                built, checkpoint, config, device=self.device, dtype=self.dtype, copy=False
            )
        else:
            _share(self._hooked.parameters, tensors, self.device, self.dtype)
            with torch.no_grad():
                refresh_split_attention(self._hooked.bridge)
        self._hooked.weights_changed(checkpoint)
        return self._hooked

    def release(self) -> None:
        """Let go of the weights, and of what was derived from them, until `at` is called again."""
        if self._hooked is not None:
            self._hooked.weights_changed(self._hooked.checkpoint)
            for parameter in self._hooked.parameters.values():
                parameter.data = torch.empty(0, dtype=self.dtype, device=parameter.device)


def hooked(model: HookedModel | nn.Module | Checkpoint | str | Path) -> HookedModel:
    """What can be hooked, for whatever stands for a model: one that is loaded, one in memory, a checkpoint, its path.

    Raises:
        ByroteError: a model of another kind, or a path of several steps.
    """
    if isinstance(model, HookedModel):
        return model
    return copy_of(model) if isinstance(model, nn.Module) else load(model)


def fingerprint_of(model: HookedModel) -> str:
    """Hash of the parameters: two models with equal ones give equal numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(model.parameters.items()):
        digest.update(f"{name} {list(parameter.shape)} ".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _inner(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module inside wrappers, adapters and bridge, and its tensors by the names it has without them."""
    refuse_sharded(model)
    while True:
        within = [m for name in _WRAPPED_IN if isinstance(m := getattr(model, name, None), nn.Module)]
        if not within:
            break
        model = within[0]
    if getattr(model, "compatibility_mode", False):
        raise ByroteError(
            "this TransformerBridge is in compatibility mode: its norms are folded into its weights",
            help="measure it before enable_compatibility_mode(), or boot it again",
        )
    adapted: Any = model
    if hasattr(adapted, "peft_config"):
        base = adapted.get_base_model() if hasattr(adapted, "get_base_model") else model
        return base, merged_tensors(base, adapted.peft_config)
    bridged = getattr(model, "original_model", None)
    if not isinstance(bridged, nn.Module):
        return model, dict(model.state_dict())
    tensors = bridged.state_dict()
    return bridged, {name.replace("._original_component", ""): tensor for name, tensor in tensors.items()}


def refuse_sharded(model: nn.Module) -> None:
    """Refuse a model of which no process has all weights on one device.

    Raises:
        ByroteError: parameters in shards of FSDP, of tensor parallelism or of ZeRO-3, or on several devices; or no module at all.
    """
    if not hasattr(model, "modules"):
        raise ByroteError(f"{type(model).__name__} is not a model that can be measured", help=_HELP)
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    parameters = list(model.parameters())
    tensors = {kind.__name__ for p in parameters for kind in type(p.data).__mro__}
    devices = {str(p.device) for p in parameters}
    found = ""
    if _SHARDED & kinds:
        found = "is sharded by FSDP"
    elif "DTensor" in tensors:
        found = "is sharded: its parameters are DTensors"
    elif any(hasattr(p, "ds_id") for p in parameters):
        found = "is sharded by DeepSpeed's ZeRO-3"
    elif len(devices) > 1 or "meta" in devices:
        found = f"has its parameters on {', '.join(sorted(devices))}"
    if found:
        raise ByroteError(
            f"the model {found}: no process has all of its weights in one place",
            help="save checkpoints, and let `byrote watch FOLDER` measure them as they appear",
        )


def _built(
    inner: nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype, step: int
) -> tuple[Built, dict[str, Any]]:
    """A second module with these tensors' numbers, which it may share, and its config as plain JSON."""
    if type(inner).__name__ == "NativeModel":
        return _native(inner, tensors), {"model_type": "transformer_lens_native"}
    config = _config_of(inner)
    module = fill(config, tensors, dtype=dtype, step=step, exact=False)
    return Built(module, type(module).__name__, hf_config=module.config), config


def _share(
    parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], device: str, dtype: torch.dtype
) -> None:
    """Let parameters use the memory of the tensors; those of another dtype are copied."""
    for name, parameter in parameters.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ByroteError(f"the model no longer has a tensor {name}", help=_HELP)
        parameter.data = tensor.detach().to(device=device, dtype=dtype)
    for name, parameter in parameters.items():  # of two names for one parameter the second decides
        if tensors[name].dtype == dtype and parameter.data_ptr() != tensors[name].data_ptr():
            raise ByroteError(
                f"{name} and another parameter shared one tensor when measuring began, and now are two tensors",
                help="untie them before training begins",
            )


def _config_of(module: nn.Module) -> dict[str, Any]:
    """A transformers model's config, as its config.json would have it."""
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "to_json_string"):
        raise ByroteError(
            f"a {type(module).__name__} cannot be measured: it has no transformers config", help=_HELP
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
