"""A checkpoint's stored tensors, and content hashes of them: the same tensors give the same fingerprint, however stored.

XXH3 reads at memory speed, so that hashing costs a few percent of measuring. It tells apart what training and copying
accidents make; it is not meant to withstand somebody who forges weights to collide. Torch-free; what is pickled is never run.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from jaxtyping import UInt8

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.formats.adapter import StoredTensors, TensorInfo
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.stored_tensor import tensor_bytes
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint, at_hand

_WINDOW_BYTES = 16 * 2**20


def stored_tensors(checkpoint: Checkpoint) -> StoredTensors:
    """Every tensor's name, description and bytes in row-major order, one at a time, mapped where that can be.

    The bytes of one tensor are valid until the next is requested.

    Args:
        checkpoint: with its files on disk.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    of_format = format_of(checkpoint).tensors
    if of_format is not None:
        yield from of_format(checkpoint)
        return
    for file in checkpoint.files:
        yield from _safetensors(file) if file.suffix.lower() == ".safetensors" else _pickled(file)


def _windows(raw: UInt8[np.ndarray, " n_bytes"]) -> Iterator[UInt8[np.ndarray, " n"]]:
    """A tensor's bytes in pieces; mapped pages are given back after each, so that no whole tensor stays in memory."""
    pages: Any = raw
    while isinstance(pages, np.ndarray | memoryview):
        pages = pages.base if isinstance(pages, np.ndarray) else pages.obj
    for start in range(0, len(raw), _WINDOW_BYTES):
        yield raw[start : start + _WINDOW_BYTES]
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def _safetensors(path: Path) -> StoredTensors:
    entries = read_header(path)
    mapped = _mapped(path)
    for entry in entries:
        yield entry.name, TensorInfo(entry.dtype, entry.shape, path.name), mapped[entry.start : entry.end]


def _pickled(path: Path) -> StoredTensors:
    """Of the model's tensors alone, in row-major order: what a safetensors file of them would give."""
    stored = read_torch_file(path)
    mapped = _mapped(path)
    for name, tensor in state_of(stored.content, where=path.name).items():
        start = stored.start_bytes[tensor.storage.key]
        if tensor.contiguous:
            first = start + tensor.offset * tensor.item_bytes
            raw = mapped[first : first + tensor.numel * tensor.item_bytes]
        else:
            raw = np.frombuffer(tensor_bytes(tensor, start, mapped.data), dtype=np.uint8)
        yield name, TensorInfo(tensor.dtype, tensor.shape, path.name), raw


def _mapped(path: Path) -> UInt8[np.ndarray, " n_bytes"]:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def tensor_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """XXH3-128 of every tensor's dtype, shape and bytes, by name.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    hashes = {}
    try:
        with at_hand(checkpoint) as ready:
            for name, info, raw in stored_tensors(ready):
                digest = xxhash.xxh3_128(f"{info.dtype}{list(info.shape)}".encode())
                for window in _windows(raw):
                    digest.update(window.data)
                hashes[name] = digest.hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"step {checkpoint.step}: {error.filename or checkpoint.path} cannot be read ({error.strerror})",
            help="was the folder changed while it was measured?",
        ) from None
    return hashes


def model_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """`tensor_hashes`, and the hash of the file that describes the architecture.

    The same weights under another config are another model.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    with at_hand(checkpoint) as ready:
        hashes = tensor_hashes(ready)
        if ready.config_path is not None and ready.config_path.is_file():
            hashes[ready.config_path.name] = xxhash.xxh3_128(ready.config_path.read_bytes()).hexdigest()
        elif (inside := format_of(ready).config_inside) is not None:
            text = json.dumps(inside(ready), sort_keys=True, default=str)
            hashes["config inside the file"] = xxhash.xxh3_128(text.encode()).hexdigest()
    return hashes


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash of all tensors: names and contents, in name order."""
    digest = xxhash.xxh3_128()
    for name in sorted(hashes):
        digest.update(f"{name}={hashes[name]};".encode())
    return digest.hexdigest()
