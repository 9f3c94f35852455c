"""Read config and tensors from a checkpoint's files: safetensors, `torch.save`, and distributed checkpoints.

Files are read, not mapped: one that is cut short meanwhile is an error, where a mapped one would end the process. Pickled
files are checked and described without torch, and only their storages are read. torch's own
reader of distributed checkpoints unpickles `.metadata` and stored objects without restriction (torch 2.13); it is never
used: their tensors are put together from bytes, without unpickling anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.formats.dcp import METADATA, ShardedTensor, assembled, model_tensors
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.formats.model_config import MAX_CONFIG_BYTES
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.stored_tensor import DTYPES
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.formats.trainer_state import read_json
from byrote.checkpoints.series import Checkpoint, Inside
from byrote.checkpoints.stored_bytes import StoredFile
from byrote.interp.quiet import quiet_upstream

# Larger files are mapped, so that loading needs no memory for them beside the model's. Only those can still end the
# process where somebody cuts them short in the moment between mapping and copying.
MAX_READ_BYTES = 1 << 30
_TORCH: dict[str, torch.dtype] = {code: getattr(torch, name) for name, (code, _) in DTYPES.items()}


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
        return read_json(file, max_bytes=MAX_CONFIG_BYTES)
    except CheckpointError as error:
        raise CheckpointError(
            f"step {checkpoint.step}: {error.message}",
            help="was the folder changed while it was measured?",
        ) from error


def read_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors of the model in a checkpoint's files; very large files are mapped rather than read.

    Raises:
        CheckpointError: a file that is damaged, gone, or refers to more than plain weights need.
    """
    if any(file.name == METADATA for file in checkpoint.files):
        return {name: _assembled(tensor) for name, tensor in model_tensors(checkpoint.path).items()}
    tensors: dict[str, Tensor] = {}
    for file in checkpoint.files:
        tensors.update(tensors_in(file, step=checkpoint.step, inside=checkpoint.inside))
    return tensors


def tensors_in(file: Path, *, step: int, inside: Inside = ()) -> dict[str, Tensor]:
    """All tensors of the model in one file, whatever it is.

    Args:
        file: safetensors by its ending, otherwise what `torch.save` wrote.
        step: for messages.
        inside: where this step's are, in a file of many steps; only these are read.

    Raises:
        CheckpointError: as for `read_tensors`.
    """
    try:
        if file.suffix.lower() == ".safetensors":
            return _safetensors(file)
        return _pickled(file, inside)
    except CheckpointError:
        raise
    except Exception as error:  # torch and safetensors raise what a damaged file happens to lead to
        raise CheckpointError(
            f"cannot load step {step}: {file.name} ({' '.join(shown(error).split())})",
            help="copy or save the file again",
        ) from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    entries = read_header(file)
    if file.stat().st_size > MAX_READ_BYTES or any(entry.dtype not in _TORCH for entry in entries):
        from safetensors.torch import load_file

        return load_file(file)
    with StoredFile(file) as stored:
        return {
            entry.name: _read(stored, entry.start, entry.end - entry.start, entry.dtype).reshape(entry.shape)
            for entry in entries
        }


def _pickled(file: Path, inside: Inside) -> dict[str, Tensor]:
    """torch itself never sees the pickle, but where the file is very large: then it is mapped."""
    checked = read_torch_file(file)
    described = state_of(checked.content, where=file.name, inside=inside)
    if not inside and file.stat().st_size > MAX_READ_BYTES and checked.is_zip:
        with quiet_upstream():
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return dict(state_of(content, where=file.name))
    storages: dict[str, Tensor] = {}
    tensors = {}
    with StoredFile(file) as stored:
        for name, tensor in described.items():
            key = tensor.storage.key
            if key not in storages:
                storages[key] = _read(stored, checked.start_bytes[key], tensor.storage.size_bytes, "U8")
            whole = storages[key][: tensor.storage.size_bytes // tensor.item_bytes * tensor.item_bytes]
            typed = whole.view(_TORCH[tensor.dtype])
            tensors[name] = typed.as_strided(tensor.shape, tensor.stride, tensor.offset)
    return tensors


def _read(stored: StoredFile, start: int, n_bytes: int, dtype: str) -> Tensor:
    """Numbers from a file in memory of their own."""
    raw = torch.empty(n_bytes, dtype=torch.uint8)
    stored.read_into(start, raw.numpy().data)
    return raw.view(_TORCH[dtype]) if n_bytes else torch.empty(0, dtype=_TORCH[dtype])


def _assembled(tensor: ShardedTensor) -> Tensor:
    elements = assembled(tensor)
    dtype = _TORCH[tensor.dtype]
    flat = torch.frombuffer(elements, dtype=dtype) if elements else torch.empty(0, dtype=dtype)
    return flat.reshape(tensor.shape)
