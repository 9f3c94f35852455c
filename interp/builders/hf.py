"""Local Hugging Face folders. transformers maps file names to module names; keys in files and modules differ."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.errors import CheckpointError
from checkpoints.series import Checkpoint
from interp.builders import Built
from interp.builders.hf_names import LearnedNames
from interp.quiet import quiet_upstream

_DIGITS = re.compile(r"\d+")
_NAMES = LearnedNames()


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
    _NAMES.learn(_config_key(checkpoint), module, checkpoint)
    return Built(module, type(module).__name__, hf_config=module.config)


def parameters(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Tensor]:
    """The files' tensors under the module's names; by a full load where the names cannot be told."""
    mapped = _NAMES.read(_config_key(checkpoint), checkpoint)
    if mapped is not None:
        return mapped
    return dict(_from_pretrained(checkpoint, dtype).named_parameters(remove_duplicate=False))


def _config_key(checkpoint: Checkpoint) -> str:
    return json.dumps(config(checkpoint), sort_keys=True)


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
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
            )
        except Exception as error:  # a damaged config can make transformers raise anything at all
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
    _refuse_further_layers(module, info.get("unexpected_keys") or (), step=checkpoint.step)
    return module


def _refuse_further_layers(module: nn.Module, unexpected: Iterable[str], *, step: int) -> None:
    """Extra heads and old buffers may be left out; layers that config.json does not count are another model."""
    known = {_DIGITS.sub("#", name) for name, _ in module.named_parameters()}
    more = sorted(name for name in map(str, unexpected) if _DIGITS.sub("#", name) in known)
    if more:
        raise CheckpointError(
            f"step {step}: the files hold {len(more)} tensors of further layers ({', '.join(more[:3])})",
            help="config.json counts fewer layers than the weights have: it belongs to another model",
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
