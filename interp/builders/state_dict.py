"""Plain state dicts: names are transformers' own once what wrappers put before them is taken off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built, hf
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.filling import fill, without_prefix


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config.json found beside or above the file."""
    return hf.config(checkpoint)


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture config.json names, filled exactly.

    Raises:
        CheckpointError: an unknown architecture, or names and shapes that are not its own.
    """
    fields = config(checkpoint)
    tensors = without_prefix(fields, read_tensors(checkpoint), step=checkpoint.step)
    module = fill(fields, tensors, dtype=dtype, step=checkpoint.step, exact=True)
    return Built(module, type(module).__name__, hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors under the module's names."""
    return dict(build(checkpoint, dtype).module.named_parameters(remove_duplicate=False))
