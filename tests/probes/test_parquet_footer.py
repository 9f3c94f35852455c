"""Footers read without pyarrow: as pyarrow reads them, and where it would end the process."""

from __future__ import annotations

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import parquet_files
from byrote.probes.results.parquet_footer import column_chunks, schema_nodes
from byrote.probes.results.schema import UNIT_SCHEMA
from byrote.probes.results.unit_files import read_unit, unit_facts

ROW = {"run": "r", "step": 1, "probe": "sink", "metric": "score", "layer": 0, "head": 0, "value": 0.5, "lo": 0.4, "hi": 0.6,
       "chance": 0.1, "n": 8, "valid": True, "reason": "", "samples": [0.5] * 8}  # fmt: skip


def unit() -> pa.Table:
    return pa.Table.from_pylist([ROW, {**ROW, "head": 1, "samples": None}, {**ROW, "head": 2}], UNIT_SCHEMA)


def footer(file: Path) -> bytes:
    data = file.read_bytes()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


class NoKeys(pe.KmsClient):
    def __init__(self, config):
        super().__init__()

    def wrap_key(self, key_bytes, master_key_identifier):
        return base64.b64encode(key_bytes)


def write_encrypted(file: Path, column: str, *, plaintext_footer: bool) -> None:
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"k": [column]}, plaintext_footer=plaintext_footer
    )
    factory = pe.CryptoFactory(NoKeys)
    keys = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    with pq.ParquetWriter(file, UNIT_SCHEMA, encryption_properties=keys) as writer:
        writer.write_table(unit())


def test_it_says_what_pyarrow_says(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(unit(), file, row_group_size=2)
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    theirs = [group.column(c) for group in groups for c in range(metadata.num_columns)]
    ours = list(column_chunks(footer(file)))
    assert [(c.path, c.n_values) for c in ours] == [(c.path_in_schema, c.num_values) for c in theirs]
    assert sum(c.n_values for c in ours if c.path.startswith("samples")) == 8 + 1 + 8
    assert not any(c.encrypted for c in ours)


@pytest.mark.parametrize("column", ["value", "samples.list.element"])
@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_unit_is_refused_and_ends_nothing(column, plaintext_footer, tmp_path):
    file = tmp_path / "a.parquet"
    write_encrypted(file, column, plaintext_footer=plaintext_footer)
    if plaintext_footer:
        assert [c.path for c in column_chunks(footer(file)) if c.encrypted] == [column]
    with pytest.raises(ByroteError, match="is damaged"):
        read_unit(file)
    assert unit_facts(file).state == "damaged"


def test_a_footer_cut_short_or_changed_is_an_error_of_the_value(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(unit(), file)
    data = footer(file)
    for at in range(0, len(data), 7):
        with pytest.raises(ValueError):
            list(column_chunks(data[:at]))
        changed = bytearray(data)
        changed[at] ^= 0x5A
        try:
            list(column_chunks(bytes(changed)))
        except ValueError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1c" * 100_000,  # a structure in a structure in a structure
        b"\x19" * 100_000,
        b"\x19\xfc" + b"\xff" * 9 + b"\x01",  # a list of 2^64 structures
        b"\x18" + b"\xff" * 20,
        b"\x1d\x00",
        b"\x45\x02\x00",  # the row groups are a number
    ],
)
def test_made_up_footers(data):
    with pytest.raises(ValueError):
        list(column_chunks(data))


def test_pyarrow_without_a_limit_of_depth_sees_no_schema_of_many_nodes(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_DEPTH", {})
    file, names = tmp_path / "a.parquet", [f"c{i}" for i in range(1_000)]
    pq.write_table(unit(), file)
    with parquet_files.open_parquet(file, UNIT_SCHEMA) as found:
        assert schema_nodes(footer(file)) == len(UNIT_SCHEMA) + 3 and found.metadata.num_rows == 3
    pq.write_table(pa.table([[1]] * len(names), names), file)
    with pytest.raises(ByroteError, match="promises 1,001 nodes of a schema"):
        parquet_files.open_parquet(file, UNIT_SCHEMA)
    file.write_bytes(b"\x1c" * 100_000 + file.read_bytes()[-8:])
    with pytest.raises(ByroteError, match="footer"):
        parquet_files.open_parquet(file, UNIT_SCHEMA)
