"""The lab's own checkpoints, by what their config.json calls the model: TransformerLens's native one, or transformers'.

A model with smeared keys is the native one whose key projection mixes each key with the one before it. That module stands where the
hook on keys reads: keys, attention and everything later are the model's own, and W_K alone is not what its heads read by.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from byrote.checkpoints.lab.config import SMEARED
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built, hf, native
from byrote.interp.builders.files import saved_config as config
from byrote.interp.quiet import quiet_upstream

_OF_TRANSFORMERS = frozenset({"gpt_neox"})


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The module with this step's weights.

    Raises:
        CheckpointError: a config that is no model of the lab, or weights that do not fill it.
    """
    if config(checkpoint).get("model_type") != SMEARED:
        return _half(checkpoint).build(checkpoint, dtype)
    with quiet_upstream():
        from byrote.checkpoints.lab.model import with_smeared_keys

    return native.build(checkpoint, dtype, change=with_smeared_keys)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The file's tensors under the module's names."""
    return _half(checkpoint).parameters(checkpoint, dtype)


def _half(checkpoint: Checkpoint) -> ModuleType:
    return hf if config(checkpoint).get("model_type") in _OF_TRANSFORMERS else native
