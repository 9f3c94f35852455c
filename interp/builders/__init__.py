"""How each on-disk format becomes an inner module that a TransformerBridge can wrap. One module per format.

    config(checkpoint) -> dict
        What decides the model's shape and special ids, as plain JSON. Steps with equal configs may be swapped.
    build(checkpoint, dtype) -> Built
        The module with this checkpoint's weights in it; nothing in it may be left at random.
    parameters(checkpoint, dtype) -> dict[str, Tensor]
        The same weights under the names of `module.named_parameters(remove_duplicate=False)`.

All raise CheckpointError for what they cannot load. To add one: write the module, name it in `BUILDERS`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from byrote.checkpoints.series import Checkpoint

NATIVE = "TransformerLensNative"

BUILDERS = {
    "lab": "byrote.interp.builders.native",
    "hf": "byrote.interp.builders.hf",
    "dcp": "byrote.interp.builders.dcp",
    "nanogpt": "byrote.interp.builders.nanogpt",
    "lightning": "byrote.interp.builders.lightning",
    "state_dict": "byrote.interp.builders.state_dict",
    "tl_legacy": "byrote.interp.builders.tl_legacy",
    "hub": "byrote.interp.builders.hub",
    "peft": "byrote.interp.builders.peft",
}


@dataclass(frozen=True)
class Built:
    """An inner module and what the bridge must be told of it: exactly one of the two configs."""

    module: nn.Module
    architecture: str
    hf_config: Any = None
    tl_config: Any = None


@runtime_checkable
class Builder(Protocol):
    """What every module of this package offers."""

    def config(self, checkpoint: Checkpoint) -> dict[str, Any]: ...
    def build(self, checkpoint: Checkpoint, dtype: torch.dtype) -> Built: ...
    def parameters(self, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]: ...


def builder_for(checkpoint: Checkpoint) -> Builder:
    """The builder of a checkpoint's format."""
    return importlib.import_module(BUILDERS[checkpoint.format])  # type: ignore[return-value]
