"""Tensors by name out of weight files, safetensors or pickled; pickled ones only after they were checked without torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint
from byrote.interp.quiet import quiet_upstream


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors of the model in a checkpoint's files, mapped rather than read where the file allows it.

    Raises:
        CheckpointError: a file that is damaged, gone, or asks for more than plain weights need.
    """
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
