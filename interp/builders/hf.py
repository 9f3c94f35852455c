"""Local Hugging Face folders. transformers maps file names to module names; keys in files and modules differ."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.errors import CheckpointError
from checkpoints.series import Checkpoint
from interp.builders import Built
from interp.quiet import quiet_upstream


def config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The folder's config.json."""
    assert checkpoint.config_path is not None, "the format always records its config"
    return json.loads(checkpoint.config_path.read_text(encoding="utf-8"))


def build(checkpoint: Checkpoint, dtype: torch.dtype) -> Built:
    """The architecture config.json names, filled from the folder's weights and nothing else.

    Raises:
        CheckpointError: transformers cannot load it, or something would be left at random.
    """
    module = _from_pretrained(checkpoint, dtype)
    return Built(module, module.config.architectures[0], hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters of a freshly loaded module."""
    return dict(_from_pretrained(checkpoint, dtype).named_parameters(remove_duplicate=False))


def _from_pretrained(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """Let transformers map file names to module names; refuse anything it would fill with random numbers."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a missing local file must never become a hub request
    with quiet_upstream():
        from transformers import AutoModelForCausalLM

        try:
            module, info = AutoModelForCausalLM.from_pretrained(
                str(checkpoint.path),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=dtype,  # never "auto": half-precision files would silently run in half precision
                attn_implementation="eager",
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"transformers cannot load step {checkpoint.step} from {checkpoint.path.name}: {_one_line(error)}",
                help="check config.json against the weights; `rote scan` lists what the folder holds",
            ) from error
    bad = {
        kind: sorted(map(str, info.get(kind) or ()))
        for kind in ("missing_keys", "mismatched_keys", "error_msgs")
    }
    for kind, names in bad.items():
        if names:
            raise CheckpointError(
                f"step {checkpoint.step}: {len(names)} {kind.replace('_', ' ')} ({', '.join(names[:3])})",
                help="the weights do not fill this architecture; the rest would be random numbers",
            )
    return module


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
