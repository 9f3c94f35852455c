"""Parquet files of results: written with a seal and page checksums, and opened only when their footer promises nothing absurd.

A small file can describe an enormous table, so rows, columns, types and sizes are compared with what byrote writes before
anything is decoded. No torch.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from byrote.checkpoints.atomic import write_bytes
from byrote.checkpoints.safe_read import FileRefused, open_regular, read_bytes
from byrote.checkpoints.seal import EMPTY, Seal, seal_of, seal_of_file, sealed
from byrote.probes.results.parquet_footer import column_chunks, schema_nodes

MAX_UNIT_ROWS = 8_000_000  # pairs of 1,000 heads on ten metrics are 5 million
MAX_ROWS = 50_000_000  # of a run; more could not be derived in the memory of a workstation either
MAX_SAMPLES = 1 << 28  # per-sequence values of a unit, 1 GB
MAX_UNIT_BYTES = 2 << 30
MAX_FILE_BYTES = 16 << 30
MAX_FOOTER_BYTES = 64 << 20  # 2,000 row groups have 20 MB
MAX_UNIT_FOOTER_BYTES = (
    1 << 18
)  # 8 row groups and what a unit says of itself have 30 kB; it is read at every look
MAX_WORD_BYTES = 4096  # a reason is a sentence
MAX_WORDS_BYTES = 1 << 30  # of the words of all rows of a unit
_MOST = {"step": (1 << 62) - 1, "tokens_seen": (1 << 62) - 1, "n": (1 << 31) - 1, "position": (1 << 31) - 1}
_MOST |= dict.fromkeys(("layer", "head", "src_layer", "src_head"), 100_000)
_NEVER_NULL = frozenset(
    {"run", "step", "probe", "metric", "n", "valid", "value", "lo", "hi", "chance", "reason"}
)
_OURS = "it is damaged, or was not written by byrote"
_DEPTH = (
    {"schema_depth_limit": 8} if "schema_depth_limit" in inspect.signature(pq.ParquetFile).parameters else {}
)
MAX_SCHEMA_NODES = 1_000  # byrote's have some 30; where pyarrow (before 26) has no limit of its own
_SEAL_KEY = b"byrote.seal"
SEAL_MARK = _SEAL_KEY + b"\x18\x20"  # in the footer: the key, then a string of 32 bytes


def write_parquet(
    path: Path, table: pa.Table, metadata: Mapping[bytes, bytes], *, rows_per_group: int | None = None
) -> None:
    """Write a table whole or not at all: zstd, page checksums, a seal, and entries in the file's metadata.

    Raises:
        OSError: it cannot be written.
    """
    sink = io.BytesIO()
    table = table.replace_schema_metadata(None)
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(table, row_group_size=rows_per_group)
        writer.add_key_value_metadata({**metadata, _SEAL_KEY: EMPTY.encode()})
    data = sink.getbuffer()
    sealed(data, SEAL_MARK)
    write_bytes(path, data)


def open_parquet(
    path: Path, schema: pa.Schema, *, max_rows: int | None = None, words: Sequence[str] = ()
) -> pq.ParquetFile:
    """Open a file whose footer promises what byrote writes; nothing but the footer is read.

    Args:
        path: the file.
        schema: its columns, by name and type, in any order.
        max_rows: refuse more; None is `MAX_ROWS`.
        words: columns to be read as dictionaries.

    Raises:
        FileRefused: a link, a pipe, too large, or of other columns.
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    with open_regular(path, max_bytes=MAX_FILE_BYTES) as file:
        _refuse_footer(path, _footer_bytes(_ends_of(file)), MAX_FOOTER_BYTES)
    found = _opened(path, path, words)
    try:
        refuse_oversized(path, found, schema, max_rows=MAX_ROWS if max_rows is None else max_rows)
    except BaseException:
        found.close()
        raise
    return found


def parquet_in_memory(
    path: Path, schema: pa.Schema, *, max_rows: int = MAX_UNIT_ROWS, words: Sequence[str] = ()
) -> tuple[pq.ParquetFile, bytes, Seal]:
    """As `open_parquet`, of a file that is read whole: the open file, its bytes, and what its seal says.

    Raises:
        FileRefused: a link, a pipe, too large, of other columns, or with a broken seal.
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    data = read_bytes(path, max_bytes=MAX_UNIT_BYTES)
    length = _footer_bytes(data[-8:])
    _refuse_footer(path, length, MAX_UNIT_FOOTER_BYTES)
    seal = seal_of(data, SEAL_MARK)
    if seal is Seal.BROKEN:  # pyarrow ends the process at some footers, such as one that says it is encrypted
        raise FileRefused(f"the bytes of {path} are not those that were written", help="it is damaged")
    if length is not None:  # pyarrow refuses what has none
        _refuse_samples(path, data[-8 - length : -8])
    found = _opened(path, pa.BufferReader(data), words)
    refuse_oversized(path, found, schema, max_rows=max_rows)
    return found, data, seal


def parquet_seal(path: Path) -> Seal:
    """What a file's seal says; the whole file is read, in windows.

    Raises:
        FileRefused: a link, a pipe, or too large.
        OSError: it cannot be read.
    """
    with open_regular(path, max_bytes=MAX_FILE_BYTES) as file:
        return seal_of_file(file, SEAL_MARK)


def footer_of(path: Path) -> bytes:
    """The bytes of a file's footer, where its metadata is; the whole file where it has none that can be found.

    Raises:
        FileRefused: a link, a pipe, or a footer that is too large.
        OSError: it cannot be read.
    """
    with open_regular(path, max_bytes=MAX_UNIT_BYTES) as file:
        ends = _ends_of(file)
        size = file.seek(0, 2)
        length = size if (found := _footer_bytes(ends)) is None else found
        _refuse_footer(path, length, MAX_FOOTER_BYTES)
        file.seek(max(0, size - 8 - length))
        return file.read()


def refuse_oversized(path: Path, found: pq.ParquetFile, schema: pa.Schema, *, max_rows: int) -> None:
    """Compare what a footer promises with what byrote writes.

    Raises:
        FileRefused: other columns, or more rows, values or bytes than byrote writes.
    """
    meta, there = found.metadata, found.schema_arrow
    columns = {field.name: _plain(field.type) for field in there}
    if len(there) != len(schema) or columns != {field.name: field.type for field in schema}:
        lacking = [f"{f.name} ({f.type})" for f in schema if columns.get(f.name) != f.type]
        what = f"has columns other than those that byrote writes: {', '.join(lacking[:3]) or 'more of them'}"
        raise FileRefused(f"{path} {what}", help=_OURS)
    sizes = [meta.row_group(i) for i in range(meta.num_row_groups)]
    decoded = sum(group.total_byte_size for group in sizes)
    _refuse_count(path, meta.num_rows, max_rows, "rows")
    _refuse_count(path, decoded, MAX_FILE_BYTES, "bytes of values")
    if sum(group.num_rows for group in sizes) != meta.num_rows:
        raise FileRefused(f"{path} disagrees with itself about its rows", help="it is damaged")


def _refuse_samples(path: Path, footer: bytes) -> None:
    """Compare the per-sequence values that a unit promises with what byrote writes, before pyarrow sees its footer."""
    try:
        chunks = list(column_chunks(footer))
    except ValueError as error:
        raise FileRefused(f"{path} has a footer that cannot be read: {error}", help=_OURS) from None
    if any(chunk.encrypted for chunk in chunks):
        raise FileRefused(f"{path} is encrypted", help=_OURS)
    if any(chunk.n_values < 0 for chunk in chunks):
        raise FileRefused(f"{path} promises fewer than no values", help=_OURS)
    samples = sum(chunk.n_values for chunk in chunks if chunk.path.startswith("samples"))
    _refuse_count(path, samples, MAX_SAMPLES, "per-sequence values")


def _refuse_count(path: Path, n: int, most: int, what: str) -> None:
    if not 0 <= n <= most:
        raise FileRefused(
            f"{path} promises {n:,} {what}; byrote writes and reads at most {most:,}", help=_OURS
        )


def refuse_values(path: Path, table: pa.Table | pa.RecordBatch) -> None:
    """Compare decoded columns, words read as dictionaries, with what byrote writes: no holes, no absurd places or words.

    Raises:
        FileRefused: a step, probe or metric that is missing, a layer, head or position out of any range, or words that
            are too long or do not fit into memory.
    """
    for name in table.schema.names:
        column = table[name]
        if name in _NEVER_NULL and column.null_count:
            raise FileRefused(f"{path} has rows without a {name}", help=_OURS)
        if name in _MOST:
            ends = pc.min_max(column).as_py()
            if ends["min"] is not None and not 0 <= ends["min"] <= ends["max"] <= _MOST[name]:
                raise FileRefused(f"{path} has a {name} of {ends['max']:,} or below 0", help=_OURS)
        elif pa.types.is_dictionary(column.type):
            _refuse_long_words(path, column)


def _refuse_long_words(path: Path, column: pa.ChunkedArray | pa.DictionaryArray) -> None:
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        lengths = pc.binary_length(chunk.dictionary)
        longest = pc.max(lengths).as_py() or 0
        if longest > MAX_WORD_BYTES:
            raise FileRefused(
                f"{path} has a word of {longest:,} bytes; at most {MAX_WORD_BYTES:,} are read", help=_OURS
            )
        if longest * len(chunk) > MAX_WORDS_BYTES:
            total = pc.sum(lengths.take(chunk.indices)).as_py() or 0
            if total > MAX_WORDS_BYTES:
                raise FileRefused(
                    f"{path} has {total:,} bytes of words; at most {MAX_WORDS_BYTES:,} are read", help=_OURS
                )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _opened(path: Path, source: Path | pa.BufferReader, words: Sequence[str]) -> pq.ParquetFile:
    if not _DEPTH:
        _refuse_deep_schema(path, footer_of(path))
    try:
        return pq.ParquetFile(
            source,
            read_dictionary=list(words),
            page_checksum_verification=True,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=10_000_000,
            **_DEPTH,
        )
    except KeyError as missing:
        raise FileRefused(f"{path} has no column {missing}", help=_OURS) from None


def _refuse_deep_schema(path: Path, footer: bytes) -> None:
    """What pyarrow before 26 does not: it builds a schema by recursion, however deep."""
    try:
        n = schema_nodes(footer[:-8])
    except ValueError as error:
        raise FileRefused(f"{path} has a footer that cannot be read: {error}", help=_OURS) from None
    _refuse_count(path, n, MAX_SCHEMA_NODES, "nodes of a schema")


def _ends_of(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    return file.read(8)


def _footer_bytes(end: bytes) -> int | None:
    """Length of the footer by a file's last eight bytes; None where they are not those of a parquet file."""
    return int.from_bytes(end[:4], "little") if end[4:] == b"PAR1" else None


def _refuse_footer(path: Path, length: int | None, most: int) -> None:
    if length is not None and length > most:
        raise FileRefused(f"{path} has a footer of {length:,} bytes; at most {most:,} are read", help=_OURS)
