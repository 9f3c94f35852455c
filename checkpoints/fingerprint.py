"""A checkpoint's stored tensors, and content hashes of them: the same tensors give the same fingerprint, however stored.

XXH3 reads at memory speed, so that hashing costs a few percent of measuring. It tells apart what training and copying
accidents make; it is not meant to withstand somebody who forges weights to collide. Torch-free; what is pickled is never run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.formats.adapter import StoredTensors, TensorInfo
from byrote.checkpoints.formats.model_config import MAX_CONFIG_BYTES
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.stored_tensor import tensor_bytes
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.safe_read import FileRefused, read_bytes
from byrote.checkpoints.series import Checkpoint, Inside, at_hand
from byrote.checkpoints.stored_bytes import Stamp, StoredBytes, StoredFile, stamp_of, windows_of
from byrote.checkpoints.zeros import FLOATS, Zeros, is_zero, zeros_among


@dataclass(frozen=True)
class Content:
    """What one pass over a checkpoint's bytes found.

    Attributes:
        tensors: XXH3-128 of every tensor's dtype, shape and bytes, by name.
        described: the same of what describes the architecture: other weights, or the same in another model.
        zeros: the tensors that hold nothing but zeros.
        stamp: of the files, the same before and after they were read.
    """

    tensors: Mapping[str, str]
    described: Mapping[str, str]
    zeros: Zeros
    stamp: Stamp

    @property
    def fingerprint(self) -> str:
        """One hash of everything that decides what is measured."""
        return fingerprint({**self.tensors, **self.described})


def stored_tensors(checkpoint: Checkpoint) -> StoredTensors:
    """Every tensor's name, description and bytes in row-major order, one at a time; nothing is read until it is wanted.

    Args:
        checkpoint: with its files on disk.

    Yields:
        Name, description and bytes, for `windows_of`; the bytes can be read until the next tensor is requested.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    of_format = format_of(checkpoint).tensors
    if of_format is not None:
        yield from of_format(checkpoint)
        return
    for path in checkpoint.files:
        with StoredFile(path) as file:
            if path.suffix.lower() == ".safetensors":
                yield from _safetensors(file)
            else:
                yield from _pickled(file, checkpoint.inside)


def _safetensors(file: StoredFile) -> StoredTensors:
    for entry in read_header(file.path):
        info = TensorInfo(entry.dtype, entry.shape, file.path.name)
        yield entry.name, info, StoredBytes(file, entry.start, entry.end - entry.start)


def _pickled(file: StoredFile, inside: Inside) -> StoredTensors:
    """Of the model's tensors alone, in row-major order: what a safetensors file of them would give."""
    stored = read_torch_file(file.path)
    for name, tensor in state_of(stored.content, where=file.path.name, inside=inside).items():
        start = stored.start_bytes[tensor.storage.key]
        info = TensorInfo(tensor.dtype, tensor.shape, file.path.name)
        if tensor.contiguous:
            first = start + tensor.offset * tensor.item_bytes
            yield name, info, StoredBytes(file, first, tensor.numel * tensor.item_bytes)
        else:
            storage = file.read(start, tensor.storage.size_bytes)
            yield name, info, np.frombuffer(tensor_bytes(tensor, 0, memoryview(storage)), dtype=np.uint8)


def files_of(checkpoint: Checkpoint) -> list[Path]:
    """The files that decide what is measured: weights, and those that describe the architecture."""
    return [*checkpoint.files, *_descriptions(checkpoint)]


def _descriptions(checkpoint: Checkpoint) -> list[Path]:
    beside = format_of(checkpoint).also_described_by
    return [
        *([checkpoint.config_path] if checkpoint.config_path else []),
        *([checkpoint.path / beside] if beside else []),
    ]


def content_of(checkpoint: Checkpoint) -> Content:
    """Read every byte of a checkpoint; a step on the hub is downloaded for it.

    Raises:
        CheckpointError: a file that is not what it claims to be, cannot be read, or was changed meanwhile.
    """
    try:
        with at_hand(checkpoint) as ready:
            stamp = stamp_of(files_of(ready))
            content = Content(*_tensors(ready), stamp)
            changed = stamp_of(files_of(ready)) != stamp
    except OSError as error:
        raise CheckpointError(
            f"the files of step {checkpoint.step} can no longer be read "
            f"({Path(error.filename or checkpoint.path).name}: {error.strerror})",
            help="was the folder changed while it was measured?",
        ) from None
    if changed:
        raise CheckpointError(
            f"the files of step {checkpoint.step} were changed while they were read",
            help="is training still writing them? Run the same command again to read them again",
        )
    return content


def tensor_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """XXH3-128 of every tensor's dtype, shape and bytes, by name.

    Raises:
        CheckpointError: as for `content_of`.
    """
    return dict(content_of(checkpoint).tensors)


def model_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """`tensor_hashes`, and the hash of the file that describes the architecture.

    The same weights under another config are another model.

    Raises:
        CheckpointError: as for `content_of`.
    """
    content = content_of(checkpoint)
    return {**content.tensors, **content.described}


def _tensors(ready: Checkpoint) -> tuple[dict[str, str], dict[str, str], Zeros]:
    """Hashes of tensors, hashes of what describes the architecture, and which tensors are zero."""
    hashes: dict[str, str] = {}
    floats: list[tuple[str, int, bool]] = []
    for name, info, raw in stored_tensors(ready):
        digest, zero = tensor_digest(info), info.dtype in FLOATS and len(raw) > 0
        for window in windows_of(raw):
            digest.update(window.data)
            zero = zero and is_zero(window)
        hashes[name] = digest.hexdigest()
        if info.dtype in FLOATS and len(raw):
            floats.append((name, len(raw), zero))
    return hashes, _described(ready), zeros_among(floats)


def tensor_digest(info: TensorInfo) -> Any:
    """The hash of a tensor, before its bytes are given to it."""
    return xxhash.xxh3_128(f"{info.dtype}{list(info.shape)}".encode())


def _described(ready: Checkpoint) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for file in _descriptions(ready):
        if file.is_file():
            try:
                data = read_bytes(file, max_bytes=MAX_CONFIG_BYTES, follow_links=True)
            except FileRefused as error:
                raise CheckpointError(error.message, help=error.help or "restore the file") from None
            hashes[file.name] = xxhash.xxh3_128(data).hexdigest()
    inside = format_of(ready).config_inside
    if not hashes and inside is not None:
        text = json.dumps(inside(ready), sort_keys=True, default=str)
        hashes["config inside the file"] = xxhash.xxh3_128(text.encode()).hexdigest()
    return hashes


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash of all tensors: names and contents, in name order."""
    digest = xxhash.xxh3_128()
    for name in sorted(hashes):
        digest.update(f"{name}={hashes[name]};".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
