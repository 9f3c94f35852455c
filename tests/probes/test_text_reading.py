"""Corpora on disk: documents and units, files of ids, and files made to break a reader."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.texts import (
    Chunk,
    NothingToReadError,
    Packer,
    Reading,
    cut_before,
    separator_pattern,
    text_chunks,
)
from byrote.checkpoints.token_files import id_blocks
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.corpus import open_corpora
from byrote.probes.text.windows import encoder

END = "<|endoftext|>"


def documents(*files: Path, separators: tuple[str, ...] = (END,), raw: bool = False) -> list[bytes]:
    """All documents, put together again from their parts."""
    found: dict[int, bytes] = {}
    reading = Reading()
    for chunk in text_chunks(list(files), separators=separators, text_field="text", raw=raw, reading=reading):
        for part, document in zip(chunk.parts, chunk.documents, strict=True):
            found[document] = found.get(document, b"") + part
    assert list(found) == list(range(len(found)))
    return list(found.values())


def write(path: Path, content: bytes | str) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# documents


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
def test_documents_of_a_text_file(tmp_path, name):
    path = write(tmp_path / name, f"\n one two\n{END}\n\n{END}three{END}")
    assert documents(path) == [b"one two", b"three"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_documents_of_json_lines(tmp_path, name):
    lines = [json.dumps({"text": text}) for text in ("one", "two\nlines", "é \ud800")]
    path = write(tmp_path / name, "\n".join([*lines, ""]))
    assert documents(path) == [b"one", b"two\nlines", "é ?".encode()]


def test_rows_of_a_table_are_documents(tmp_path):
    pq.write_table(pa.table({"id": [1, 2, 3], "text": ["one", None, " two\n"]}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"body": pa.array(["three"], pa.large_string())}), tmp_path / "y.parquet")
    assert documents(tmp_path / "x.parquet", tmp_path / "y.parquet") == [b"one", b"two", b"three"]


def test_a_table_gives_the_numbers_of_its_text(tmp_path):
    texts = [f"one two three {i} two three" for i in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "x.parquet", row_group_size=7)
    read: list[tuple[int, int]] = []
    found = measure_text([tmp_path / "x.parquet"], on_progress=lambda *at: read.append(at)).frame
    other = measure_text([write(tmp_path / "x.txt", END.join(texts))]).frame
    assert found.drop(columns="corpus").equals(other.drop(columns="corpus"))
    size = (tmp_path / "x.parquet").stat().st_size
    assert read[-1] == (size, size)


def test_separators_with_wildcards(tmp_path):
    path = write(tmp_path / "x.txt", f"=== 1 ===\none\n=== 22 ===\ntwo === x{END}three")
    assert documents(path, separators=("=== * ===\n", END)) == [b"one", b"two === x", b"three"]


def test_a_wildcard_stays_in_its_line():
    pattern, longest = separator_pattern(["=*="])
    assert not pattern.search(b"= a\nb =")
    assert not pattern.search(b"=" + b"x" * 201 + b"=")
    assert longest == 3 + 200


def test_a_folder_is_one_corpus_and_hidden_files_are_left_alone(tmp_path):
    (tmp_path / "c" / "deep").mkdir(parents=True)
    write(tmp_path / "c" / "b.txt", "two")
    write(tmp_path / "c" / "a.jsonl.gz", '{"text": "one"}')
    write(tmp_path / "c" / "deep" / "c.txt", "three")
    write(tmp_path / "c" / ".hidden.txt", "no")
    write(tmp_path / "c" / "readme.md", "no")
    (corpus,) = open_corpora([tmp_path / "c"])
    assert corpus.name == "c"
    assert documents(*corpus.files) == [b"one", b"two", b"three"]


def test_corpora_of_one_name_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.txt", "one")
    paths = [tmp_path / "a" / "x.txt", tmp_path / "b" / "x.txt"]
    assert [corpus.name for corpus in open_corpora([*paths, paths[0]])] == [str(path) for path in paths]


@pytest.mark.parametrize("read_bytes", [1, 7, 1 << 20])
def test_how_a_file_is_read_does_not_matter(tmp_path, monkeypatch, read_bytes):
    text = "".join(f"é word{i} {END if i % 7 == 0 else ''} \n" for i in range(300))
    path = write(tmp_path / "x.txt", text)
    expected = [part.strip().encode() for part in text.split(END) if part.strip()]
    monkeypatch.setattr("byrote.checkpoints.texts.READ_BYTES", read_bytes)
    assert documents(path) == expected


def test_long_documents_are_cut_between_words(monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.texts.PART_BYTES", 100)
    monkeypatch.setattr("byrote.checkpoints.texts.CHUNK_BYTES", 300)
    text = b" ".join(b"word%d" % i for i in range(200))
    packer = Packer()
    chunks = [
        c for i in range(0, len(text), 33) for c in packer.feed(text[i : i + 33], starts_document=not i)
    ]
    chunks += packer.flush()
    parts = [part for chunk in chunks for part in chunk.parts]
    assert b"".join(parts) == text
    assert len(chunks) > 3
    assert all(len(part) <= 100 for part in parts)
    assert all(part.startswith(b" word") for part in parts[1:])


def test_text_without_spaces_is_cut_at_characters():
    for text in ("é" * 51, "日本語" * 17, "a" * 100):
        data = text.encode()[:100]
        cut = cut_before(data)
        assert 96 <= cut <= 100
        data[:cut].decode()


# units


def words(text: str) -> np.ndarray:
    with encoder("words", None) as encode:
        return encode(Chunk([text.encode()], [0]))[0]


def test_words_are_runs_of_letters_or_of_punctuation():
    found = words("Don't stop -- don't_1 日本 日本!! 3.5")
    spelled = ["don", "'", "t", "stop", "--", "don", "'", "t_1", "日本", "日本", "!!", "3", ".", "5"]
    assert len(found) == len(spelled)
    for i, word in enumerate(spelled):
        assert (found == found[i]).tolist() == [word == other for other in spelled]


def test_words_have_the_same_code_wherever_they_stand():
    first = words("alpha beta")
    rng = np.random.default_rng(0)
    for _ in range(20):
        before = " ".join("x" * n for n in rng.integers(1, 90, size=rng.integers(1, 50)))
        assert words(f"{before} Alpha\n\tBETA")[-2:].tolist() == first.tolist()


def test_different_words_have_different_codes():
    parts = [
        " ".join(f"w{i}" for i in range(start, start + 10_000)).encode()
        for start in range(0, 100_000, 10_000)
    ]
    with encoder("words", None) as encode:
        codes, _ = encode(Chunk(parts, [0] * len(parts)))
    assert len(np.unique(codes)) == len(codes) == 100_000
    assert len(np.unique(words("ab ba aab aba baa a aa aaa"))) == 8


def test_words_end_with_their_document():
    with encoder("words", None) as encode:
        codes, of = encode(Chunk([b"one", b"two one", b"one"], [4, 4, 5]))
    assert of.tolist() == [4, 4, 4, 5]
    assert codes[0] == codes[2] == codes[3] != codes[1]


def test_bytes_are_bytes():
    with encoder("bytes", None) as encode:
        codes, of = encode(Chunk([b"\xff\x00a", b"b"], [0, 1]))
    assert codes.tolist() == [255, 0, 97, 98]
    assert of.tolist() == [0, 0, 0, 1]


def make_tokenizer(path: Path, vocabulary: list[str]) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["[UNK]", *vocabulary])}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_truncation(3)
    made.enable_padding()
    made.save(str(path))
    return path


def test_tokens_are_the_tokenizers_and_are_neither_cut_nor_padded(tmp_path):
    path = make_tokenizer(tmp_path / "tokenizer.json", ["a", "b"])
    with encoder("tokens", path) as encode:
        codes, of = encode(Chunk([b"a b a b a b", b"b c"], [0, 1]))
    assert codes.tolist() == [1, 2, 1, 2, 1, 2, 2, 0]
    assert of.tolist() == [0] * 6 + [1, 1]


def test_a_tokenizer_alone_means_tokens(tmp_path):
    path = make_tokenizer(tmp_path / "tokenizer.json", ["a", "b"])
    assert TextSettings(tokenizer=path).units == "tokens"


@pytest.mark.parametrize("content", ["{}", "not json", "\x00"])
def test_a_tokenizer_that_is_none_is_refused(tmp_path, content):
    path, corpus = write(tmp_path / "tokenizer.json", content), write(tmp_path / "x.txt", "a")
    with pytest.raises(ByroteError, match=r"is not a tokenizer\.json"):
        measure_text([corpus], TextSettings(tokenizer=path))


# token ids


def ids_of(*paths: Path) -> tuple[list[int], list[int]]:
    blocks = list(id_blocks(paths))
    return tuple(np.concatenate(part).tolist() for part in zip(*blocks, strict=True))


def test_rows_of_ids_are_documents(tmp_path, monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.token_files._BLOCK_IDS", 4)
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.uint16).reshape(2, 3))
    np.save(tmp_path / "b.npy", np.arange(5, dtype=np.int64))
    save_file({"tokens": np.arange(9, dtype=np.int32).reshape(3, 3)}, tmp_path / "c.safetensors")
    ids, of = ids_of(tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "c.safetensors")
    assert ids == [*range(6), *range(5), *range(9)]
    assert of == [0] * 3 + [1] * 3 + [2] * 5 + [3] * 3 + [4] * 3 + [5] * 3


def test_ids_and_text_give_the_same_numbers(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer.json", [f"w{i}" for i in range(30)])
    rows = np.random.default_rng(0).integers(30, size=(12, 100))
    np.save(tmp_path / "ids.npy", rows + 1)
    text = END.join(" ".join(f"w{i}" for i in row) for row in rows)
    write(tmp_path / "x.txt", text)
    settings = TextSettings(tokenizer=tokenizer, context=50)
    one, other = (measure_text([tmp_path / name], settings).frame for name in ("ids.npy", "x.txt"))
    assert one.drop(columns="corpus").equals(other.drop(columns="corpus"))
    assert len(one) > 25


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(4), "not token ids"),
        (np.zeros((2, 2, 2), dtype=int), "of 3 axes"),
        (np.asarray([1, -1]), "negative ids"),
        (np.asfortranarray(np.ones((3, 4), dtype=int)), "stored by columns"),
        (np.asarray([{}, {}]), "not token ids"),  # a pickle, which is never opened
    ],
)
def test_arrays_that_are_no_ids_are_refused(tmp_path, array, words):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ByroteError, match=words):
        measure_text([tmp_path / "x.npy"])


def test_damaged_id_files_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1000))
    whole = (tmp_path / "x.npy").read_bytes()
    for content, words in (
        (whole[:4000], "truncated"),
        (b"nonsense", r"not a \.npy file"),
        (b"", r"not a \.npy"),
    ):
        write(tmp_path / "x.npy", content)
        with pytest.raises(ByroteError, match=words):
            measure_text([tmp_path / "x.npy"])
    save_file({"ids": np.arange(4)}, tmp_path / "x.safetensors")
    with pytest.raises(ByroteError, match="no tensor `tokens`"):
        measure_text([tmp_path / "x.safetensors"])


def test_ids_are_not_compared_with_words(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(100))
    human = write(tmp_path / "human.txt", "one two")
    with pytest.raises(ByroteError, match="holds token ids and other corpora are read as words"):
        measure_text([tmp_path / "x.npy"], reference=human)


# files made to break a reader


@pytest.mark.parametrize("content", ["", " \n\t\n", f"{END}\n{END}"])
@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
def test_a_file_without_text_is_nothing_to_read(tmp_path, name, content):
    with pytest.raises(NothingToReadError, match="holds no text"):
        measure_text([write(tmp_path / name, content)])


def test_an_empty_folder_and_empty_lines_are_nothing_to_read(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(NothingToReadError, match="holds no text"):
        measure_text([tmp_path / "c"])
    with pytest.raises(NothingToReadError, match="holds no text"):
        measure_text([write(tmp_path / "x.jsonl", "\n\n")])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", b"\x7fELF\x00\x01text", "is not text: it holds NUL bytes"),
        ("x.txt", "wide".encode("utf-16"), "is not text"),
        ("x.txt", bytes(range(128, 256)) * 20, "is not UTF-8 text"),
        ("x.md", b"text", "is not a corpus file"),
        ("x.jsonl", b'{"content": "one"}\n', "line 1 has no text in a field 'text'"),
        ("x.jsonl", b'{"text": 3}\n', "line 1 has no text in a field 'text'"),
        ("x.jsonl", b"plain\n", "line 1 is not JSON"),
        ("x.jsonl", b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        ("x.jsonl", b"[1]\n", "line 1 is not a JSON object"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, name, content, words):
    with pytest.raises(ByroteError, match=words):
        measure_text([write(tmp_path / name, content)])


@pytest.mark.parametrize(
    "content", [gzip.compress(b"one two " * 9999)[:-20], b"plain", b"\x1f\x8b\x08broken"]
)
def test_a_damaged_archive_is_refused(tmp_path, content):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(content)
    with pytest.raises(ByroteError, match="cannot be unpacked"):
        measure_text([path])


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(ByroteError, match="does not exist"):
        measure_text([tmp_path / "nowhere.txt"])


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    report = measure_text([write(tmp_path / "x.txt", b"one \xff two caf\xe9 " * 8)])
    assert "x.txt: bytes that are not UTF-8 were replaced in 16 places" in report.notes
    assert not report.incomplete


def test_any_file_can_be_measured_as_bytes(tmp_path):
    report = measure_text([write(tmp_path / "x.txt", b"\x00\xff" * 50)], TextSettings(units="bytes"))
    assert report.meta["corpora"]["x.txt"]["units"] == 100


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert documents(write(tmp_path / "x.txt", "\ufeffone")) == [b"one"]


def test_lines_without_text_are_skipped_and_said(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"text": "one two"}\nbroken\n{"text": null}\n{"text": "three"}')
    report = measure_text([path])
    assert "x.jsonl: 2 lines contain no text: line 2 is not JSON" in report.notes
    assert report.incomplete
    assert report.meta["corpora"]["x.jsonl"]["documents"] == 2


def test_a_line_over_the_limit_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.texts.MAX_LINE_BYTES", 1 << 20)
    long = json.dumps({"text": "word " * 500_000})
    report = measure_text([write(tmp_path / "x.jsonl", f'{long}\n{{"text": "one two"}}\n{long}')])
    assert report.meta["corpora"]["x.jsonl"]["documents"] == 1
    assert any("2 lines contain no text: line 1 is longer than 1 MiB" in note for note in report.notes)


def test_an_archive_that_expands_like_no_text_is_refused(tmp_path):
    path = tmp_path / "bomb.txt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(80):
            file.write(b"a " * (1 << 19))
    assert path.stat().st_size < 200_000
    with pytest.raises(ByroteError, match="expands more than 200 times"):
        measure_text([path])


def test_a_corpus_that_breaks_late_only_loses_its_own_numbers(tmp_path):
    text = END.join(f"one two three {i}" for i in range(20))
    good = write(tmp_path / "good.txt", text)
    bad = write(tmp_path / "bad.txt", text + END + "x" * (3 << 20) + " \x00")
    report = measure_text([bad, good])
    (lost,) = report.frame[report.frame.corpus == "bad.txt"].to_dict("records")
    assert (lost["measure"], lost["metric"]) == ("corpus", "read")
    assert "NUL bytes" in lost["reason"]
    assert len(report.frame[report.frame.corpus == "good.txt"]) > 20
    assert report.incomplete


def test_windows_that_are_never_whole_are_nothing_to_read(tmp_path):
    path = write(tmp_path / "x.txt", END.join(["one two three"] * 10))
    with pytest.raises(NothingToReadError, match="no whole window of 512 tokens"):
        measure_text([path], TextSettings(windows="full"))
