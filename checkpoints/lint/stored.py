"""The tensors of one checkpoint as they are stored, whatever holds them: safetensors, pickled files, distributed ones.

Torch-free. What a pickled file says is checked by `byrote.checkpoints.formats.torch_zip` and never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from byrote.checkpoints.formats import dcp
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.stored_tensor import tensor_bytes
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint

Raw = UInt8[np.ndarray, " n_bytes"]


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of a tensor.

    Attributes:
        dtype: safetensors' name of its type.
        shape: its shape.
        file: the name of the file it lies in; "" where it is spread over several.
    """

    dtype: str
    shape: tuple[int, ...]
    file: str


def stored_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, TensorInfo, Raw]]:
    """Every tensor's name, description and bytes in row-major order, one at a time, mapped where that can be.

    Args:
        checkpoint: with its files on disk.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    if checkpoint.format == dcp.FORMAT:
        yield from _distributed(checkpoint.path)
        return
    for file in checkpoint.files:
        yield from _safetensors(file) if file.suffix.lower() == ".safetensors" else _pickled(file)


def _safetensors(path: Path) -> Iterator[tuple[str, TensorInfo, Raw]]:
    entries = read_header(path)
    mapped = _mapped(path)
    for entry in entries:
        yield entry.name, TensorInfo(entry.dtype, entry.shape, path.name), mapped[entry.start : entry.end]


def _pickled(path: Path) -> Iterator[tuple[str, TensorInfo, Raw]]:
    stored = read_torch_file(path)
    mapped = _mapped(path)
    for name, tensor in state_of(stored.content, where=path.name).items():
        start = stored.start_bytes[tensor.storage.key]
        if tensor.contiguous:
            first = start + tensor.offset * tensor.item_bytes
            raw = mapped[first : first + tensor.numel * tensor.item_bytes]
        else:
            raw = np.frombuffer(tensor_bytes(tensor, start, memoryview(mapped)), dtype=np.uint8)
        yield name, TensorInfo(tensor.dtype, tensor.shape, path.name), raw


def _distributed(folder: Path) -> Iterator[tuple[str, TensorInfo, Raw]]:
    for name, tensor in dcp.model_tensors(folder).items():
        raw = np.frombuffer(dcp.assembled(tensor), dtype=np.uint8)
        yield name, TensorInfo(tensor.dtype, tensor.shape, ""), raw


def _mapped(path: Path) -> Raw:
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
