"""Builders: the torch half of each format, from files to an inner module that a TransformerBridge can wrap.

Such a module has the functions of `Builder`, and `parameters` where that need not build the module. All raise
CheckpointError for what they cannot load, and get checkpoints whose files are on disk.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from byrote.checkpoints.formats import format_of
from byrote.checkpoints.series import Checkpoint

NATIVE = "TransformerLensNative"


@dataclass(frozen=True)
class Built:
    """An inner module and the config the bridge needs: exactly one of the two configs."""

    module: nn.Module
    architecture: str
    hf_config: Any = None
    tl_config: Any = None


@runtime_checkable
class Builder(Protocol):
    """What the torch half of a format offers."""

    def config(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What decides the model's shape and special ids, as plain JSON. Steps with equal configs may be swapped."""

    def build(self, checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
        """The module with this checkpoint's weights in it; nothing in it may be left at random."""


def builder_for(checkpoint: Checkpoint) -> Builder:
    """The torch half of a checkpoint's format; imported when it is first needed."""
    name = format_of(checkpoint).builder
    return cast("Builder", importlib.import_module(name if "." in name else f"{__name__}.{name}"))


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """A checkpoint's weights under the names of `module.named_parameters(remove_duplicate=False)`.

    By the builder's own `parameters`, where it has a shorter way than building the module.
    """
    builder = builder_for(checkpoint)
    shorter = getattr(builder, "parameters", None)
    if shorter is not None:
        return shorter(checkpoint, dtype)
    return dict(builder.build(checkpoint, dtype).module.named_parameters(remove_duplicate=False))
