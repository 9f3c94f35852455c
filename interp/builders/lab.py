"""The lab's own checkpoints, by what their config.json calls the model: TransformerLens's native one, or transformers'."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.lab.config import SMEARED
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built, hf, native
from byrote.interp.builders.files import saved_config as config

_OF_TRANSFORMERS = frozenset({"gpt_neox"})


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The module with this step's weights.

    Raises:
        CheckpointError: keys that are smeared, a config that is no model of the lab, or weights that do not fill it.
    """
    return _half(checkpoint).build(checkpoint, dtype)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The file's tensors under the module's names."""
    return _half(checkpoint).parameters(checkpoint, dtype)


def _half(checkpoint: Checkpoint) -> ModuleType:
    model_type = config(checkpoint).get("model_type")
    if model_type == SMEARED:
        raise CheckpointError(
            "this series was trained with smeared keys, which TransformerLens has no hooks for: attention is to a mixture "
            "of two keys, and what byrote reads off W_Q and W_K would be another model's",
            help="its losses by mechanism are in manifest.json; train without --smeared-keys to measure heads",
        )
    return hf if model_type in _OF_TRANSFORMERS else native
