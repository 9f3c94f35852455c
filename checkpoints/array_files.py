"""Files of arrays that byrote writes beside results: safetensors with sorted metadata and a seal. No torch.

The library writes metadata in an order of its own each time; here the same arrays and facts are the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from byrote.checkpoints.atomic import make_folder, write_bytes
from byrote.checkpoints.safe_read import FileRefused, open_regular
from byrote.checkpoints.seal import EMPTY, Seal, seal_of_file, sealed
from byrote.checkpoints.stored_bytes import FileStamp, file_stamp

MAX_BYTES = 4 << 30
SEALED_KEY = "byrote-sealed"  # says that there is a seal, so that one whose mark is damaged is missed
_SEAL_KEY = "byrote-seal"
_MARK = f'"{_SEAL_KEY}":"'.encode()


def array_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of these arrays, sealed: the same arguments are the same bytes."""
    from safetensors.numpy import save

    plain = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    length = int.from_bytes(plain[:8], "little")
    facts = {_SEAL_KEY: EMPTY, **dict(sorted(metadata.items())), SEALED_KEY: "xxh3-128"}
    header = json.dumps({"__metadata__": facts, **json.loads(plain[8 : 8 + length])}, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)
    data = bytearray(len(text).to_bytes(8, "little") + text + plain[8 + length :])
    sealed(data, _MARK, at_start=True)
    return bytes(data)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write `array_bytes`, whole or not at all; a file that holds them already is left as it is.

    Raises:
        OSError: it cannot be written.
    """
    data = array_bytes(arrays, metadata)
    try:
        with open_regular(path, max_bytes=MAX_BYTES) as file:
            if file.read() == data:
                return
    except (OSError, FileRefused):
        pass
    make_folder(path.parent)
    write_bytes(path, data)


@contextmanager
def open_arrays(path: Path) -> Iterator[Any]:
    """A safetensors file of ours, open; its bytes are compared with its seal once, as long as the file stays as it is.

    Files of version 0.1 have no seal and are opened as they are.

    Raises:
        FileRefused: a link, a pipe, too large, or its contents no longer match their checksum.
        OSError, safetensors.SafetensorError: it cannot be read.
    """
    from safetensors import safe_open

    with open_regular(path, max_bytes=MAX_BYTES):
        pass
    seal = _seal(path, file_stamp(path))
    with safe_open(path, framework="numpy") as tensors:
        if seal is Seal.BROKEN or (seal is Seal.NONE) != (SEALED_KEY not in (tensors.metadata() or {})):
            raise FileRefused(f"{path} is damaged: its contents no longer match their checksum")
        yield tensors


def arrays_sealed(path: Path) -> bool:
    """Whether a file has a seal.

    Raises:
        FileRefused, OSError: it cannot be read.
    """
    with open_regular(path, max_bytes=MAX_BYTES) as file:
        return seal_of_file(file, _MARK, at_start=True) is not Seal.NONE


@lru_cache(maxsize=4096)
def _seal(path: Path, stamp: FileStamp) -> Seal:
    """Read once; `stamp` makes a file that was written or replaced another key."""
    with open_regular(path, max_bytes=MAX_BYTES) as file:
        return seal_of_file(file, _MARK, at_start=True)
