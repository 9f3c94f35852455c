"""PyTorch Lightning's `.ckpt`: a state dict whose names begin with the attribute the module was kept under."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.formats.lightning import embedded_config
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built, state_dict
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.filling import fill, without_prefix


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config in `hyper_parameters`, else the config.json beside or above the file."""
    if checkpoint.config_path is not None:
        return state_dict.config(checkpoint)
    embedded = embedded_config(read_torch_file(checkpoint.files[0]).content)
    assert embedded is not None, "the format refuses files without either"
    return embedded


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture the config names, filled exactly.

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
