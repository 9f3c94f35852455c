"""The weights of a model with adapters of peft, as they would be merged; the model itself is not changed.

Each adapted layer is copied and merged by peft's own arithmetic, one after the other; everything else is taken as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.formats.peft import refuse_unmergeable


@torch.no_grad()
def merged_tensors(base: nn.Module, adapters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a model with its active adapters merged, by the names that the model has without them.

    Args:
        base: the model of transformers that the adapters were put into.
        adapters: name -> config of peft.

    Raises:
        ByroteError: an adapter of a kind that cannot be merged.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for config in adapters.values():
        refuse_unmergeable(config.to_dict() | {"peft_type": getattr(config.peft_type, "value", "")})
    plain = dict(base.state_dict())
    for name, module in base.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            layer = _merged(module, name) if isinstance(module, BaseTunerLayer) else _trained(module, name)
            plain = {key: tensor for key, tensor in plain.items() if not key.startswith(f"{name}.")}
            plain |= {f"{name}.{key}": tensor for key, tensor in layer.state_dict().items()}
    return plain


def _merged(layer: Any, name: str) -> nn.Module:
    """The layer that an adapter was put around, with the adapter in its weights."""
    if layer.merged or layer.disable_adapters:
        found = layer.get_base_layer()
    else:
        copied = copy.deepcopy(layer)
        copied.merge()
        found = copied.get_base_layer()
    if not isinstance(found, nn.Module):
        raise ByroteError(
            f"the adapter of {name} is around no module", help="measure model.merge_and_unload()"
        )
    return found


def _trained(wrapper: Any, name: str) -> nn.Module:
    """The module that is used in place of the base's own: the one that is trained whole, beside the adapter."""
    copies = getattr(wrapper, "modules_to_save", None)
    if copies is None:
        raise ByroteError(
            f"{name} is a {type(wrapper).__name__}, which byrote does not merge",
            help="measure model.merge_and_unload()",
        )
    if wrapper.disable_adapters or not wrapper.active_adapters:
        return wrapper.original_module
    return copies[wrapper.active_adapters[0]]
