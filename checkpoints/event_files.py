"""Scalars of TensorBoard event files, read with `tensorboard` (an extra), which checks every record's sums.

An event file is a protobuf of anybody: its size is limited before it is opened, only numbers by themselves are taken
from it, and what follows a damaged record is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.formats.trainer_state import count_or_none, number_or_none
from byrote.checkpoints.safe_read import open_regular

MAX_BYTES = 128 << 20  # of all files; a million scalars have 60 MB
MAX_FILES = 1_000
MAX_TAGS = 10_000
Curves = dict[str, list[tuple[int, float]]]


def read_event_files(path: Path) -> tuple[Curves, list[str]]:
    """Every scalar by its tag, as (step, number) in the order logged, and what could not be read.

    Args:
        path: an event file, or a folder with event files in it or below it, which are read by their names.

    Raises:
        ByroteError: tensorboard is not installed; no event file; too many, or too large ones.
        FileRefused: one is no regular file.
        OSError: one cannot be read.
    """
    files = [path] if not path.is_dir() else sorted(path.rglob("*tfevents*"))[: MAX_FILES + 1]
    if not files:
        raise ByroteError(
            f"{path} holds no event files of TensorBoard", help="name the folder with events.out.tfevents..."
        )
    if len(files) > MAX_FILES:
        raise ByroteError(
            f"{path} holds more than {MAX_FILES:,} event files", help="name the folder of one run"
        )
    size = 0
    for file in files:
        with open_regular(file, max_bytes=MAX_BYTES, follow_links=True) as opened:
            size += opened.seek(0, 2)
    if size > MAX_BYTES:
        raise ByroteError(
            f"the event files in {path} have {size:,} bytes; at most {MAX_BYTES:,} are read",
            help="name the files of one run",
        )
    curves: Curves = {}
    warnings = [warning for file in files if (warning := _read(file, curves))]
    return curves, warnings


def _read(file: Path, curves: Curves) -> str:
    """Add the scalars of one file; "" or why its end was not read."""
    board, n = _tensorboard(), 0
    try:
        for record in _records(file):
            for step, tag, number in _scalars(board.event.FromString(record)):
                if tag in curves or len(curves) < MAX_TAGS:
                    curves.setdefault(tag, []).append((step, number))
            n += 1
    except (board.errors.DataLossError, board.unreadable, MemoryError, OverflowError):
        return f"{file.name} is damaged or cut off after {n:,} records: the rest was not read"
    return ""


def _records(file: Path) -> Iterator[bytes]:
    board = _tensorboard()
    reader = board.reader(str(file.resolve()), 0, b"", None)
    try:
        while True:
            try:
                reader.GetNext()
            except board.errors.OutOfRangeError:
                return
            yield reader.record()
    finally:
        reader.file_handle.close()


def _scalars(event: Any) -> Iterator[tuple[int, str, float]]:
    step = count_or_none(event.step)
    for value in event.summary.value if step is not None else ():
        number = number_or_none(_number(value))
        if step is not None and number is not None:
            yield step, value.tag, number


def _number(value: Any) -> float | None:
    """What is one number: a scalar of version 1, or a tensor of one element."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    tensor = value.tensor
    if not value.HasField("tensor") or any(one.size != 1 for one in tensor.tensor_shape.dim):
        return None
    if len(tensor.tensor_content) > 16 or max(len(tensor.float_val), len(tensor.double_val)) > 1:
        return None
    try:
        return float(_tensorboard().make_ndarray(tensor).reshape(()))
    except (TypeError, ValueError):
        return None  # of words, or of a type that it does not know


@dataclass(frozen=True)
class _Tensorboard:
    """What is used of it."""

    event: Any
    errors: Any
    reader: Any
    make_ndarray: Any
    unreadable: Any


@cache
def _tensorboard() -> _Tensorboard:
    """tensorboard's own reader of records, which needs no TensorFlow.

    Raises:
        ByroteError: it is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub import errors
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise ByroteError(
            "event files are read with tensorboard, which is not installed",
            help="pip install 'byrote[tensorboard]'",
        ) from None
    return _Tensorboard(Event, errors, PyRecordReader_New, make_ndarray, DecodeError)
