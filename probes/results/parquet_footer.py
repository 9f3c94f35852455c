"""What a parquet footer says of its column chunks, read without pyarrow: it ends the process where one is encrypted.

pyarrow raises when it reads such a column, and aborts when it is only asked how many values there are, which has to be
known before anything is decoded. A footer is a Thrift structure in the compact protocol; this reads any, and interprets the
few fields that are needed.

Source: parquet-format, parquet.thrift (FileMetaData, RowGroup, ColumnChunk, ColumnMetaData); Thrift, compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 32  # FileMetaData to Statistics is 5
_SCHEMA, _ROW_GROUPS, _COLUMNS, _META_DATA, _ENCRYPTED, _PATH, _NUM_VALUES = 2, 4, 1, 3, 8, 3, 5
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_NUMBERS = (_I16, _I32, _I64)


@dataclass(frozen=True)
class ColumnChunk:
    """One column of one row group.

    Attributes:
        path: of the column in the schema, such as "samples.list.element"; "" where that is encrypted too.
        n_values: how many values it promises, empty lists and missing ones among them.
        encrypted: whether a key is needed to read it.
    """

    path: str
    n_values: int
    encrypted: bool


def column_chunks(footer: bytes) -> Iterator[ColumnChunk]:
    """Every column chunk that a footer names.

    Args:
        footer: a FileMetaData structure, without the length and the magic bytes after it.

    Raises:
        ValueError: it is no such structure, is cut short, or is nested too deeply.
    """
    try:
        groups = _Compact(footer).struct(0).get(_ROW_GROUPS, [])
        for group in groups:
            for chunk in group[_COLUMNS]:
                metadata = chunk.get(_META_DATA, {})
                path = b".".join(metadata.get(_PATH, ())).decode("utf-8", "replace")
                yield ColumnChunk(path, int(metadata.get(_NUM_VALUES, 0)), _ENCRYPTED in chunk)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not a footer of a parquet file ({type(error).__name__})") from None


def schema_nodes(footer: bytes) -> int:
    """How many nodes the schema of a footer has, which no branch of it can be deeper than.

    Args:
        footer: a FileMetaData structure, without the length and the magic bytes after it.

    Raises:
        ValueError: it is no such structure, is cut short, or is nested too deeply.
    """
    try:
        return len(_Compact(footer).struct(0).get(_SCHEMA, []))
    except (IndexError, TypeError) as error:
        raise ValueError(f"it is not a footer of a parquet file ({type(error).__name__})") from None


class _Compact:
    """A reader of the compact protocol: structures as dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        """The structure that begins here."""
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        data, fields, number = self._data, {}, 0
        while (head := data[self._at]) != 0:
            self._at += 1
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            if kind in _NUMBERS:  # most fields; written out, because every file that is opened is read so
                value = data[self._at]
                if value < 0x80:
                    self._at += 1
                else:
                    value = self._varint()
                fields[number] = (value >> 1) ^ -(value & 1)
            else:
                fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        self._at += 1
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in _NUMBERS:
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            size = head >> 4 if head >> 4 != 15 else self._varint()
            return [self._element(head & 0x0F, depth + 1) for _ in range(self._fitting(size))]
        if kind == _MAP:
            size = self._fitting(self._varint())
            kinds = self._byte() if size else 0
            return [
                (self._element(kinds >> 4, depth + 1), self._element(kinds & 0x0F, depth + 1))
                for _ in range(size)
            ]
        if kind in (_BYTE, _DOUBLE):
            return self._bytes(1 if kind == _BYTE else 8)
        raise ValueError(f"it holds a value of an unknown kind ({kind})")

    def _element(self, kind: int, depth: int) -> Any:
        """A value within a list or map, where even truth has a byte."""
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        return self._byte() == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._at += self._fitting(length)
        return self._data[self._at - length : self._at]

    def _fitting(self, length: int) -> int:
        """A length, if as many bytes are left: whatever is counted takes one at least."""
        if length > len(self._data) - self._at:
            raise ValueError("it is truncated, or claims more than the file holds")
        return length

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("it holds a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
