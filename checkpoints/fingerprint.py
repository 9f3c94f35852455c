"""Content hashes of weights, from mapped bytes: the same tensors give the same fingerprint, whatever the sharding.

XXH3 reads at memory speed, so that hashing costs a few percent of measuring. It tells apart what training and copying
accidents make; it is not meant to withstand somebody who forges weights to collide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import xxhash

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats import format_of
from byrote.checkpoints.formats.tensors import stored_tensors, windows
from byrote.checkpoints.series import Checkpoint, at_hand


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
                for window in windows(raw):
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
