"""Content hashes of weights, from mapped bytes: the same tensors give the same fingerprint, whatever the sharding."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from pathlib import Path

from checkpoints.formats.safetensors_header import read_header
from checkpoints.series import Checkpoint


def tensor_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """BLAKE2b-128 of every tensor's dtype, shape and bytes, by name.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    hashes: dict[str, str] = {}
    for file in checkpoint.files:
        hashes.update(_file_hashes(file))
    return hashes


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash of all tensors: names and contents, in name order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(hashes):
        digest.update(f"{name}={hashes[name]};".encode())
    return digest.hexdigest()


def _file_hashes(path: Path) -> dict[str, str]:
    entries = read_header(path)
    hashes = {}
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        for entry in entries:
            digest = hashlib.blake2b(f"{entry.dtype}{list(entry.shape)}".encode(), digest_size=16)
            with view[entry.start : entry.end] as chunk:
                digest.update(chunk)
            hashes[entry.name] = digest.hexdigest()
    return hashes
