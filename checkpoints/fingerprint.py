"""Content hashes of weights, from mapped bytes: the same tensors give the same fingerprint, whatever the sharding.

XXH3 reads at memory speed, so that hashing costs a few percent of measuring. It tells apart what training and copying
accidents make; it is not meant to withstand somebody who forges weights to collide.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

import xxhash

from checkpoints.formats.safetensors_header import read_header
from checkpoints.series import Checkpoint


def tensor_hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """XXH3-128 of every tensor's dtype, shape and bytes, by name.

    Raises:
        CheckpointError: a file that is not what it claims to be.
    """
    hashes: dict[str, str] = {}
    for file in checkpoint.files:
        hashes.update(_file_hashes(file))
    return hashes


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash of all tensors: names and contents, in name order."""
    digest = xxhash.xxh3_128()
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
            digest = xxhash.xxh3_128(f"{entry.dtype}{list(entry.shape)}".encode())
            with view[entry.start : entry.end] as chunk:
                digest.update(chunk)
            hashes[entry.name] = digest.hexdigest()
    return hashes
