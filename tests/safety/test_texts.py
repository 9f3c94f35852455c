"""Texts, members and token ids that anybody may have made: limits are checked before anything large is read."""

from __future__ import annotations

import gzip
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from no_files import NO_FILES
from safetensors.numpy import save_file

from byrote.checkpoints import ByroteError
from byrote.checkpoints.safe_read import FileRefused, read_json
from byrote.checkpoints.token_files import id_array, id_blocks
from byrote.checkpoints.token_sets import NO_TOKEN_SETS, token_sets_from_files
from byrote.checkpoints.vocabulary import from_ranges, usable_ids, variant_pairs
from byrote.probes.stimuli import Vocabulary
from byrote.probes.text import TextSettings, measure_text

SETTINGS = TextSettings(context=16, measures=("repeats",))


def refused(path: Path, match: str) -> None:
    """By `byrote text`, in a message with advice, soon, and without much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ByroteError, match=match) as caught:
        measure_text([path], SETTINGS)
    assert caught.value.help and "\n" not in str(caught.value)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 << 10


def members_refused(path: Path, match: str) -> None:
    with pytest.raises(ByroteError, match=match) as caught:
        token_sets_from_files(NO_TOKEN_SETS, tokenizer=None, bos=0, n_ctx=32, members=path)
    assert caught.value.help


@pytest.mark.parametrize("ending", (".txt", ".jsonl", ".txt.gz", ".parquet", ".npy", ".safetensors"))
@pytest.mark.parametrize("kind", NO_FILES)
def test_only_regular_files_are_text(ending, kind, tmp_path):
    path = tmp_path / f"x{ending}"
    NO_FILES[kind](path)
    refused(path, "is not a corpus file|holds no text")
    members_refused(path, "is not a file")


# Tables


def table(path: Path, texts: pa.Array, **options) -> Path:
    pq.write_table(pa.table({"text": texts}), path, **options)
    return path


def test_sixty_million_rows_in_a_small_file_are_refused_by_the_header(tmp_path):
    path = table(tmp_path / "x.parquet", pa.nulls(60_000_000, pa.string()), write_statistics=False)
    assert path.stat().st_size < 1 << 20
    refused(path, r"x\.parquet claims 60,000,000 rows in .* bytes: this is not text")


def test_one_text_in_many_rows_is_refused(tmp_path):
    """Each row names the one text of 1 MiB that is stored: 10 GB of text in 50 kB."""
    shared = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), pa.array(["ab " * 350_000]))
    path = table(tmp_path / "x.parquet", shared, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1 << 20
    refused(path, r"x\.parquet expands more than 200 times")


def test_one_row_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.texts.MAX_CELL_BYTES", 1 << 20)
    refused(table(tmp_path / "x.parquet", pa.array(["ab " * 700_000])), "has a text of 2 MiB")


@pytest.mark.parametrize("kind", (pa.string(), pa.large_string()))
@pytest.mark.parametrize("use_dictionary", (True, False))
def test_an_honest_table_is_read_as_ever(kind, use_dictionary, tmp_path, monkeypatch):
    texts = ["a b c d " * 8, None, "", "ünï " * 20, "a b c d " * 8] * 300
    path = table(
        tmp_path / "x.parquet", pa.array(texts, kind), use_dictionary=use_dictionary, row_group_size=400
    )
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text or ""}) + "\n" for text in texts))
    expected = measure_text([tmp_path / "x.jsonl"], SETTINGS).frame.drop(columns="corpus")
    assert measure_text([path], SETTINGS).frame.drop(columns="corpus").equals(expected)
    monkeypatch.setattr("byrote.checkpoints.texts._BOMB_BYTES", 1 << 12)  # a few rows at a time
    assert measure_text([path], SETTINGS).frame.drop(columns="corpus").equals(expected)


@pytest.mark.parametrize("harm", ("footer of exabytes", "truncated", "noise"))
def test_a_table_that_lies_is_refused(harm, tmp_path):
    path = table(tmp_path / "x.parquet", pa.array(["a b c"] * 100))
    data = bytearray(path.read_bytes())
    if harm == "footer of exabytes":
        data[-8:-4] = b"\xff\xff\xff\x7f"
    elif harm == "truncated":
        del data[len(data) // 2 :]
    else:
        data[4 : len(data) // 3] = bytes(range(256))[: len(data) // 3 - 4]
    path.write_bytes(data)
    refused(path, "cannot be read")


# Lines of JSON


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "line 1 is not JSON"),
        (b'{"text": ' + b'{"text":' * 50_000, "line 1 is not JSON"),
        (b"[" + b"[]," * (1 << 22) + b"[]]", "line 1 is not a JSON object"),  # 300 MB of lists
        (b'{"text": ' + b"9" * 5000 + b"}", "line 1 is not JSON|line 1 has no text"),
        (b'{"text": [["a"]]}', "line 1 has no text in a field 'text'"),
        (b'{"text": null}', "line 1 has no text in a field 'text'"),
        (b"NaN", "line 1 is not a JSON object"),
        (b'"a"', "line 1 is not a JSON object"),
    ],
)
def test_lines_of_other_kinds_hold_no_text(line, match, tmp_path):
    (tmp_path / "x.jsonl").write_bytes(line + b"\n")
    refused(tmp_path / "x.jsonl", match)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ByroteError, match=r"x\.jsonl: " + f"({match})") as caught:
        token_sets_from_files(
            NO_TOKEN_SETS, tokenizer=tmp_path / "tokenizer.json", bos=0, n_ctx=8, members=tmp_path / "x.jsonl"
        )
    assert caught.value.help


def test_an_archive_of_one_endless_line_is_refused(tmp_path):
    with gzip.open(tmp_path / "x.jsonl.gz", "wb") as file:
        file.write(b'{"text": "' + bytes(range(65, 91)) * (8 << 20))
    refused(tmp_path / "x.jsonl.gz", "expands more than 200 times")


# Token ids


def npy(path: Path, header: str, data: bytes = bytes(64)) -> Path:
    body = header.encode() + b" " * (117 - len(header)) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + data)
    return path


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }", "is truncated"),
        ("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, 8), }", r"claims shape \(-1, 8\)"),
        ("{'descr': '<i8', 'fortran_order': False, 'shape': (10**12, 8), }", r"is not a \.npy file"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "not token ids|is not a .npy"),
        ("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (2,), }", "not token ids"),
        ("__import__('os').system('true')", r"is not a \.npy file"),
    ],
)
def test_headers_of_ids_that_lie_are_refused(header, match, tmp_path):
    path = npy(tmp_path / "x.npy", header)
    refused(path, match)
    members_refused(path, match)


def test_ids_that_no_vocabulary_has_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.full((4, 9), 1 << 63, np.uint64))
    refused(tmp_path / "x.npy", r"holds ids of 9,223,372,036,854,775,808")
    members_refused(tmp_path / "x.npy", "holds ids of")


def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path):
    path = npy(
        tmp_path / "x.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }", b""
    )
    os.truncate(path, (1 << 40) + 128)
    with pytest.raises(ByroteError, match=r"holds 1,099,511,627,776 ids; at most 134,217,728 are read"):
        id_array(path)
    next(iter(id_blocks([path])))  # a piece at a time it can be


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"repeat_count": np.ones(10**6)}, "repeat_count has shape"),
        ({"repeat_count": np.array([1, np.nan])}, "repeat_count is not a count"),
        ({"repeat_count": np.array([1, 1e300])}, "repeat_count is not a count"),
        ({"repeat_count": np.array([True, False])}, "repeat_count is BOOL"),
        ({"reference_nll": np.ones((2, 9), np.complex64)}, "reference_nll is C64"),
    ],
)
def test_what_comes_with_ids_is_of_their_shape_and_kind(more, match, tmp_path):
    save_file({"tokens": np.ones((2, 9), np.int64), **more}, tmp_path / "x.safetensors")
    members_refused(tmp_path / "x.safetensors", match)


# Vocabularies read without the library


@pytest.mark.parametrize(
    "ranges",
    [
        [[0, 10**12]], [[0, 10**30]], [[0, 1 << 23], [0, 1 << 23]], [[-5, 3]], [[3, 1]], [["a", "b"]], [[0.5, 2]],
        [[0, 1, 2]], [3], [[True, 2]],
    ],
)  # fmt: skip
def test_ranges_that_are_no_vocabulary(ranges):
    with pytest.raises((ValueError, TypeError)):
        from_ranges(ranges)
    good = {"ids": [[0, 3], [5, 5]], "bos": 0, "note": "", "variants": []}
    found = Vocabulary.from_json(good)
    assert found is not None and found.ids.tolist() == [0, 1, 2, 3, 5]
    assert Vocabulary.from_json(good | {"ids": ranges}) is None


@pytest.mark.parametrize(
    "change", ({"bos": "x"}, {"bos": 10**12}, {"bos": None}, {"note": {}}, {"variants": [[1]]})
)
def test_a_stored_vocabulary_of_other_kinds_is_none(change):
    assert Vocabulary.from_json({"ids": [[0, 3]], "bos": 0, "note": "", "variants": [], **change}) is None


@pytest.mark.parametrize(
    "content",
    [
        "[" * 200_000,
        '{"model": {"vocab": {"a": 1}}, "x": ' + "[" * 100 + "]" * 100 + "}",
        '{"model": {"vocab": ' + json.dumps([[["a"]]]) + "}}",
        '{"model": {"vocab": {"a": 1}}, "added_tokens": [{"id": [1]}]}',
        '{"model": {"vocab": {"a": {}}}}',
        '{"model": {"vocab": {"a": 1}}, "added_tokens": 3}',
        '{"model": []}',
        "[]",
    ],
)
def test_a_tokenizer_that_cannot_be_read_gives_all_ids_and_says_so(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    ids, _, note = usable_ids({"bos_token_id": 0}, 9, tokenizer=tmp_path / "tokenizer.json")
    assert ids == list(range(1, 9)) and "tokenizer.json cannot be read" in note
    assert variant_pairs(tmp_path / "tokenizer.json", ids) == []


def test_json_of_many_values_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, 2, [3]]}')
    assert read_json(tmp_path / "x.json", max_values=5) == {"a": [1, 2, [3]]}
    with pytest.raises(FileRefused, match="holds more than 4 values"):
        read_json(tmp_path / "x.json", max_values=4)
