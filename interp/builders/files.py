"""Read config and tensors from a checkpoint's files: safetensors, `torch.save`, and distributed checkpoints.

Pickled files are given to torch only after they were checked without it, and then with weights_only=True. torch's own
reader of distributed checkpoints unpickles `.metadata` and stored objects without restriction (torch 2.13); it is never
used: their tensors are put together from bytes, without unpickling anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.formats.dcp import METADATA, ShardedTensor, assembled, model_tensors
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.stored_tensor import DTYPES
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint
from byrote.interp.quiet import quiet_upstream


def saved_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config.json of a checkpoint, else the config inside its weight file.

    Raises:
        CheckpointError: the file cannot be read any more.
    """
    file, inside = checkpoint.config_path, format_of(checkpoint).config_inside
    if file is None:
        assert inside is not None, "such a format refuses checkpoints without a config"
        return dict(inside(checkpoint) or {})
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"step {checkpoint.step}: {file.name} cannot be read ({error})",
            help="was the folder changed while it was measured?",
        ) from error


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors of the model in a checkpoint's files, mapped rather than read where the file allows it.

    Raises:
        CheckpointError: a file that is damaged, gone, or refers to more than plain weights need.
    """
    if any(file.name == METADATA for file in checkpoint.files):
        return {name: _assembled(tensor) for name, tensor in model_tensors(checkpoint.path).items()}
    tensors: dict[str, Tensor] = {}
    for file in checkpoint.files:
        try:
            tensors.update(_safetensors(file) if file.suffix.lower() == ".safetensors" else _pickled(file))
        except CheckpointError:
            raise
        except Exception as error:  # torch and safetensors raise what a damaged file happens to lead to
            raise CheckpointError(
                f"cannot load step {checkpoint.step}: {file.name} ({' '.join(shown(error).split())})",
                help="copy or save the file again",
            ) from error
    return tensors


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    read_header(file)
    return load_file(file)


def _pickled(file: Path) -> dict[str, Tensor]:
    checked = read_torch_file(file)
    with quiet_upstream():
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=checked.is_zip)
    return dict(state_of(content, where=file.name))


def _assembled(tensor: ShardedTensor) -> Tensor:
    dtype = getattr(torch, next(name for name, (code, _) in DTYPES.items() if code == tensor.dtype))
    elements = assembled(tensor)
    flat = torch.frombuffer(elements, dtype=dtype) if elements else torch.empty(0, dtype=dtype)
    return flat.reshape(tensor.shape)
