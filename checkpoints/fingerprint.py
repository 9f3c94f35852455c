"""Content hashes of weights, from mapped bytes: the same tensors give the same fingerprint, whatever the sharding.

XXH3 reads at memory speed, so that hashing costs a few percent of measuring. It tells apart what training and copying
accidents make; it is not meant to withstand somebody who forges weights to collide.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import dcp, lightning, nanogpt, tl_legacy
from byrote.checkpoints.formats.safetensors_header import read_header
from byrote.checkpoints.formats.state_dict import state_of
from byrote.checkpoints.formats.stored_tensor import tensor_bytes
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.series import Checkpoint, at_hand

_WINDOW_BYTES = 16 * 2**20


def tensor_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """XXH3-128 of every tensor's dtype, shape and bytes, by name.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    hashes: dict[str, str] = {}
    try:
        with at_hand(checkpoint) as ready:
            if ready.format == dcp.FORMAT:
                return _dcp_hashes(ready.path)
            for file in ready.files:
                of_file = _file_hashes if file.suffix.lower() == ".safetensors" else _pickled_hashes
                hashes.update(of_file(file))
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
        elif (inner := _config_inside(ready)) is not None:
            text = json.dumps(inner, sort_keys=True, default=str)
            hashes["config inside the file"] = xxhash.xxh3_128(text.encode()).hexdigest()
    return hashes


def _config_inside(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """What describes the architecture where that is saved with the weights."""
    if checkpoint.format == nanogpt.FORMAT:
        return nanogpt.model_args(read_torch_file(checkpoint.files[0]).content)
    if checkpoint.format == lightning.FORMAT:
        return lightning.embedded_config(read_torch_file(checkpoint.files[0]).content)
    return tl_legacy.raw_config(checkpoint) if checkpoint.format == tl_legacy.FORMAT else None


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash of all tensors: names and contents, in name order."""
    digest = xxhash.xxh3_128()
    for name in sorted(hashes):
        digest.update(f"{name}={hashes[name]};".encode())
    return digest.hexdigest()


def _file_hashes(path: Path) -> dict[str, str]:
    entries = read_header(path)
    hashes = {}
    with _pages(path) as (pages, view):
        for entry in entries:
            digest = _digest_of(entry.dtype, entry.shape)
            _hash_span(digest, pages, view, first=entry.start, end=entry.end)
            hashes[entry.name] = digest.hexdigest()
    return hashes


def _pickled_hashes(path: Path) -> dict[str, str]:
    """Of the model's tensors alone, in row-major order: what a safetensors file of them would give."""
    stored = read_torch_file(path)
    hashes = {}
    with _pages(path) as (pages, view):
        for name, tensor in state_of(stored.content, where=path.name).items():
            digest, start = _digest_of(tensor.dtype, tensor.shape), stored.start_bytes[tensor.storage.key]
            if tensor.contiguous:
                first = start + tensor.offset * tensor.item_bytes
                _hash_span(digest, pages, view, first=first, end=first + tensor.numel * tensor.item_bytes)
            else:
                digest.update(tensor_bytes(tensor, start, view))
            hashes[name] = digest.hexdigest()
    return hashes


def _dcp_hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for name, tensor in dcp.model_tensors(folder).items():
        digest = _digest_of(tensor.dtype, tensor.shape)
        digest.update(dcp.assembled(tensor))
        hashes[name] = digest.hexdigest()
    return hashes


def _digest_of(dtype: str, shape: tuple[int, ...]) -> xxhash.xxh3_128:
    return xxhash.xxh3_128(f"{dtype}{list(shape)}".encode())


@contextmanager
def _pages(path: Path) -> Iterator[tuple[mmap.mmap, memoryview]]:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
        memoryview(pages) as view,
    ):
        yield pages, view


def _hash_span(digest: xxhash.xxh3_128, pages: mmap.mmap, view: memoryview, *, first: int, end: int) -> None:
    for start in range(first, end, _WINDOW_BYTES):
        with view[start : min(end, start + _WINDOW_BYTES)] as chunk:
            digest.update(chunk)
        pages.madvise(mmap.MADV_DONTNEED)  # hashing must not hold a whole checkpoint in memory
