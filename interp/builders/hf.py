"""Local Hugging Face folders. transformers maps file names to module names; keys in files and modules differ."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.series import Checkpoint
from byrote.interp.builders import Built
from byrote.interp.builders.files import read_tensors
from byrote.interp.builders.filling import fill
from byrote.interp.builders.hf_names import LearnedNames

_NAMES = LearnedNames()


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The folder's config.json."""
    assert checkpoint.config_path is not None, "the format always records its config"
    try:
        return json.loads(checkpoint.config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"step {checkpoint.step}: {checkpoint.config_path.name} cannot be read ({error})",
            help="was the folder changed while it was measured?",
        ) from error


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture config.json names, filled from the folder's weights and nothing else.

    Raises:
        CheckpointError: transformers cannot load it, or something would be left at random.
    """
    module = _loaded(checkpoint, dtype)
    _NAMES.learn(_config_key(checkpoint), module, checkpoint)
    return Built(module, type(module).__name__, hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The files' tensors under the module's names; by a full load where the names cannot be told."""
    mapped = _NAMES.read(_config_key(checkpoint), checkpoint)
    if mapped is not None:
        return mapped
    return dict(_loaded(checkpoint, dtype).named_parameters(remove_duplicate=False))


def _config_key(checkpoint: Checkpoint) -> str:
    return json.dumps(config(checkpoint), sort_keys=True)


def _loaded(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    return fill(config(checkpoint), read_tensors(checkpoint), dtype=dtype, step=checkpoint.step, exact=False)
