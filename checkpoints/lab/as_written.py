"""Hashes that the manifest of a lab series has of its files: weights and optimiser moments by step, config and data.

The manifest's `files` has config and data by their path in the folder; the entry of a step has `weights` and `moments`,
hashes of `model.safetensors` and of the state to resume from. Series of version 0.1 have none: they are read, and said to
be unverified. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import FileRefused, read_bytes

FILES, WEIGHTS, MOMENTS = "files", "weights", "moments"
MAX_BYTES = 4 << 30
MEMBERS = "data/members.safetensors"
UNVERIFIED = "byrote 0.1 wrote no hashes of its files: they are not verified"
_RETRAIN = "pass --fresh to train the series again; the weights at its end will be the same"


def hash_of(data: bytes) -> str:
    """XXH3-128 of a file's bytes."""
    return xxhash.xxh3_128(data).hexdigest()


def read_as_written(path: Path, expected: Any, *, help: str = _RETRAIN) -> bytes:
    """A file's bytes, which must be those whose hash the manifest has; None takes any.

    Raises:
        ByroteError: they are others, or no regular file.
        OSError: it is not there, or cannot be read.
    """
    data = read_bytes(path, max_bytes=MAX_BYTES, follow_links=True)
    if expected is not None and hash_of(data) != expected:
        raise ByroteError(
            f"{path} has changed since it was written: its hash differs from the manifest's", help=help
        )
    return data


def hash_in(manifest: Mapping[str, Any], name: str) -> str | None:
    """The hash the manifest has of config or data, by the path in the folder; None where it has none."""
    files = manifest.get(FILES)
    found = files.get(name) if isinstance(files, Mapping) else None
    # A pool's counts are written before the manifest that lists them: only a finished series has one of each.
    settled = name != MEMBERS or manifest.get("status") == "complete"
    return found if isinstance(found, str) and settled else None


def is_verified(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest has hashes."""
    return isinstance(manifest.get(FILES), Mapping)


def damage_in(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Every file that is not what was written, each in one sentence; every byte is read."""
    files, listed = manifest.get(FILES), manifest.get("checkpoints")
    expected = {name: hash_in(manifest, name) for name in (files if isinstance(files, Mapping) else ())}
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("folder"), str):
            expected[f"{Path(entry['folder']).name}/model.safetensors"] = entry.get(WEIGHTS)
    for name, digest in expected.items():
        if ".." in Path(name).parts or Path(name).is_absolute() or not isinstance(digest, str):
            continue
        try:
            read_as_written(folder / name, digest)
        except FileRefused as error:
            yield error.message
        except ByroteError:
            yield f"{name} has changed since it was written: its hash differs from the manifest's"
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
