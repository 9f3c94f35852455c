"""Files of token ids: .npy, and .safetensors with a tensor `tokens`; read a block at a time, or whole.

One axis is one stream; with two, every row is a document. No pickle, nothing mapped into memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt64

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import open_regular

SUFFIXES = (".npy", ".safetensors")
_BLOCK_IDS = 1 << 18
MAX_ARRAY_IDS = 1 << 27  # read whole, 8 bytes each; members and twins are a few hundred sequences
_MAX_ID = np.iinfo(np.int64).max
_DTYPES = {
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class _Stored:
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    by_column: bool = False

    @property
    def total(self) -> int:
        """Ids of the file."""
        return math.prod(self.shape)


def id_blocks(
    files: Sequence[Path], on_bytes: Callable[[int], None] = lambda n: None
) -> Iterator[tuple[UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """(ids, document of each) of all files.

    Args:
        files: in reading order.
        on_bytes: called with the number of bytes that were read.

    Raises:
        ByroteError: not integers, not one or two axes, stored by columns, negative ids, or a damaged file.
    """
    documents = 0
    for path in files:
        stored = _header(path)
        if stored.by_column:
            raise ByroteError(f"{path.name} is stored by columns", help="save numpy.ascontiguousarray(ids)")
        width = stored.shape[1] if len(stored.shape) == 2 else max(1, stored.total)
        for done, ids in _blocks(path, stored):
            on_bytes(ids.nbytes)
            yield ids.astype(np.uint64), documents + np.arange(done, done + len(ids)) // width
        documents += -(-stored.total // width) if stored.total else 0


def id_array(path: Path) -> Int[np.ndarray, ...]:
    """All ids of a file, in the shape they are stored in.

    Raises:
        ByroteError: more than `MAX_ARRAY_IDS`, not integers, not one or two axes, ids that are none, or a damaged file.
    """
    stored = _header(path)
    if stored.total > MAX_ARRAY_IDS:
        raise ByroteError(
            f"{path.name} holds {stored.total:,} ids; at most {MAX_ARRAY_IDS:,} are read",
            help="a few hundred sequences are enough: give a sample of them",
        )
    found = np.empty(stored.total, dtype=np.int64)
    for done, ids in _blocks(path, stored):
        found[done : done + len(ids)] = ids
    return found.reshape(stored.shape, order="F" if stored.by_column else "C")


def n_documents(files: Sequence[Path]) -> int:
    """Rows of all files; 1 for a file of one axis."""
    shapes = [_header(path).shape for path in files]
    return sum(shape[0] if len(shape) == 2 else 1 for shape in shapes)


def _blocks(path: Path, stored: _Stored) -> Iterator[tuple[int, np.ndarray]]:
    """(place of the first, ids) in the order they are stored in."""
    with open_regular(path, follow_links=True) as file:
        file.seek(stored.start)
        for done in range(0, stored.total, _BLOCK_IDS):
            count = min(_BLOCK_IDS, stored.total - done)
            data = file.read(count * stored.dtype.itemsize)
            if len(data) < count * stored.dtype.itemsize:
                raise ByroteError(f"{path.name} is truncated", help="copy the file again")
            ids = np.frombuffer(data, stored.dtype)
            if ids.min() < 0:
                raise ByroteError(f"{path.name} holds negative ids", help="give token ids, padding removed")
            if ids.max() > _MAX_ID:
                raise ByroteError(f"{path.name} holds ids of {int(ids.max()):,}", help="give token ids")
            yield done, ids


def _header(path: Path) -> _Stored:
    stored = _npy_header(path) if path.suffix == ".npy" else _safetensors_header(path)
    if min(stored.shape, default=0) < 0:
        raise ByroteError(f"{path.name} claims shape {stored.shape}", help="copy the file again")
    if stored.dtype.kind not in "iu" or len(stored.shape) not in (1, 2):
        raise ByroteError(
            f"{path.name} holds {stored.dtype} of {len(stored.shape)} axes, not token ids",
            help="save integer ids with one axis, or one row per document",
        )
    if path.stat().st_size < stored.start + stored.total * stored.dtype.itemsize:
        raise ByroteError(f"{path.name} is truncated", help="copy the file again")
    return stored


def _npy_header(path: Path) -> _Stored:
    form = np.lib.format
    with open_regular(path, follow_links=True) as file:
        try:
            one = form.read_magic(file) == (1, 0)
            shape, by_column, dtype = (form.read_array_header_1_0 if one else form.read_array_header_2_0)(
                file
            )
        except (ValueError, EOFError) as error:
            raise ByroteError(
                f"{path.name} is not a .npy file ({error})", help="numpy.save writes one"
            ) from None
        return _Stored(dtype, shape, file.tell(), by_column=by_column and len(shape) > 1)


def _safetensors_header(path: Path) -> _Stored:
    from byrote.checkpoints.formats.safetensors_header import read_header  # readers of results need no format

    for entry in read_header(path):
        if entry.name == "tokens":
            if entry.dtype not in _DTYPES:
                raise ByroteError(
                    f"{path.name}: tokens are {entry.dtype}, not integers", help="save token ids"
                )
            return _Stored(np.dtype(_DTYPES[entry.dtype]), entry.shape, entry.start)
    raise ByroteError(f"{path.name} holds no tensor `tokens`", help="save the ids under that name")
