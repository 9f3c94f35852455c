"""Files of token ids, read a block at a time: .npy, and .safetensors with a tensor `tokens`.

One axis is one stream; with two, every row is a document. No pickle, nothing mapped into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt64

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.formats.safetensors_header import read_header

SUFFIXES = (".npy", ".safetensors")
_BLOCK_IDS = 1 << 18
_DTYPES = {
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class _Stored:
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


def id_blocks(
    files: list[Path], on_bytes: Callable[[int], None]
) -> Iterator[tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """(ids, document of each) of all files.

    Raises:
        ByroteError: not integers, not one or two axes, negative ids, or a damaged file.
    """
    documents = 0
    for path in files:
        stored = _header(path)
        width = stored.shape[1] if len(stored.shape) == 2 else max(1, int(np.prod(stored.shape)))
        total = int(np.prod(stored.shape))
        if path.stat().st_size < stored.start + total * stored.dtype.itemsize:
            raise ByroteError(f"{path.name} is cut short", help="copy the file again")
        with path.open("rb") as file:
            file.seek(stored.start)
            for done in range(0, total, _BLOCK_IDS):
                ids = np.frombuffer(
                    file.read(min(_BLOCK_IDS, total - done) * stored.dtype.itemsize), stored.dtype
                )
                on_bytes(ids.nbytes)
                if ids.min() < 0:
                    raise ByroteError(
                        f"{path.name} holds negative ids", help="give token ids, padding removed"
                    )
                yield ids.astype(np.uint64), documents + np.arange(done, done + len(ids)) // width
        documents += -(-total // width) if total else 0


def n_documents(files: list[Path]) -> int:
    """Rows of all files; 1 for a file of one axis."""
    shapes = [_header(path).shape for path in files]
    return sum(shape[0] if len(shape) == 2 else 1 for shape in shapes)


def _header(path: Path) -> _Stored:
    stored = _npy_header(path) if path.suffix == ".npy" else _safetensors_header(path)
    if stored.dtype.kind not in "iu" or len(stored.shape) not in (1, 2):
        raise ByroteError(
            f"{path.name} holds {stored.dtype} of {len(stored.shape)} axes, not token ids",
            help="save integer ids with one axis, or one row per document",
        )
    return stored


def _npy_header(path: Path) -> _Stored:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
        except (ValueError, EOFError) as error:
            raise ByroteError(
                f"{path.name} is no .npy file ({error})", help="numpy.save writes one"
            ) from None
        if fortran and len(shape) > 1:
            raise ByroteError(f"{path.name} is stored by columns", help="save numpy.ascontiguousarray(ids)")
        return _Stored(dtype, shape, file.tell())


def _safetensors_header(path: Path) -> _Stored:
    for entry in read_header(path):
        if entry.name == "tokens":
            if entry.dtype not in _DTYPES:
                raise ByroteError(
                    f"{path.name}: tokens are {entry.dtype}, not integers", help="save token ids"
                )
            return _Stored(np.dtype(_DTYPES[entry.dtype]), entry.shape, entry.start)
    raise ByroteError(f"{path.name} holds no tensor `tokens`", help="save the ids under that name")
