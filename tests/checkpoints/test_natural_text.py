"""Text that is given: every kind of file becomes the same windows, and what cannot be read is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from byrote.checkpoints import token_sets
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.token_sets import MIN_WINDOW_TOKENS, MIN_WINDOWS, Windows, natural_windows

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dogs", "ran"]
BOS = 0
IDS = {word: i for i, word in enumerate(WORDS, 1)}
RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(1, 9, size=size).tolist() for size in (450, 130, 299, 20)]


def written_out(ids: list[int]) -> str:
    return " ".join(WORDS[i - 1] for i in ids)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({**IDS, "[UNK]": 9}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(5)  # as many tokenizer.json files say; a text is not cut
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def cut(path: Path, tokenizer: Path | None = None, *, width: int = 33, wanted: int = 8) -> Windows:
    return natural_windows(path, tokenizer=tokenizer, bos=BOS, width=width, wanted=wanted)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def in_windows(documents: list[list[int]], size: int) -> list[list[int]]:
    """BOS and `size` ids of one document, all that are whole."""
    return [[BOS, *d[at : at + size]] for d in documents for at in range(0, len(d) - size + 1, size)]


def as_txt(folder: Path) -> Path:
    return written(folder / "a.txt", "<|endoftext|>".join(map(written_out, DOCUMENTS)))


def as_text_of_another_name(folder: Path) -> Path:
    return as_txt(folder).rename(folder / "book")


def as_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"id": i, "text": written_out(d)}) for i, d in enumerate(DOCUMENTS)]
    return written(folder / "a.jsonl", "\n".join(lines))


def as_jsonl_gz(folder: Path) -> Path:
    return written(folder / "a.jsonl.gz", gzip.compress(as_jsonl(folder).read_bytes()))


def as_parquet(folder: Path) -> Path:
    table = pa.table({"url": ["x"] * 4, "text": [written_out(d) for d in DOCUMENTS]})
    pq.write_table(table, folder / "a.parquet")
    return folder / "a.parquet"


def as_parquet_with_one_column_of_text(folder: Path) -> Path:
    texts = pa.array([*map(written_out, DOCUMENTS), None], pa.large_string())
    pq.write_table(pa.table({"n": [1, 2, 3, 4, 5], "content": texts}), folder / "a.parquet", row_group_size=2)
    return folder / "a.parquet"


def as_folder(folder: Path) -> Path:
    texts = folder / "texts"
    (texts / "more").mkdir(parents=True)
    (texts / ".cache").mkdir()
    for i, document in enumerate(DOCUMENTS):
        written(texts / ("more" if i > 1 else ".") / f"{i}.txt", written_out(document))
    written(texts / ".cache" / "0.txt", "not this one " * 100)
    written(texts / "README.md", "nor this")
    return texts


@pytest.mark.parametrize(
    "write",
    [as_txt, as_text_of_another_name, as_jsonl, as_jsonl_gz, as_parquet, as_parquet_with_one_column_of_text, as_folder],
    ids=lambda write: write.__name__,
)  # fmt: skip
def test_every_kind_of_text_gives_the_same_windows(tmp_path, tokenizer, write):
    found = cut(write(tmp_path), tokenizer)
    assert found.tokens.tolist() == in_windows(DOCUMENTS, 32)  # 14 + 4 + 9 + 0
    assert found.tokens.shape == (27, 33) and found.notes == ()


def test_rows_of_ids_are_documents_and_their_own_bos_is_not_doubled(tmp_path):
    rows = np.concatenate([np.zeros((9, 1)), RNG.integers(1, 9, size=(9, 70))], axis=1).astype(np.int32)
    np.save(tmp_path / "a.npy", rows)
    save_file({"tokens": rows}, tmp_path / "a.safetensors")
    wanted = in_windows(rows[:, 1:].tolist(), 32)
    assert len(wanted) == 18
    for name in ("a.npy", "a.safetensors"):
        assert cut(tmp_path / name).tokens.tolist() == wanted
    np.save(tmp_path / "stream.npy", rows[:, 1:].ravel().astype(np.uint16))
    assert cut(tmp_path / "stream.npy").tokens.tolist() == in_windows([rows[:, 1:].ravel().tolist()], 32)


def test_short_documents_are_joined_with_a_bos_between_them(tmp_path, tokenizer):
    documents = [RNG.integers(1, 9, size=20).tolist() for _ in range(40)]
    lines = "\n".join(json.dumps({"text": written_out(d)}) for d in documents)
    found = cut(written(tmp_path / "a.jsonl", lines), tokenizer)
    stream = [i for document in documents for i in (BOS, *document)][1:]
    assert found.tokens.tolist() == in_windows([stream], 32)
    assert found.notes == ("a.jsonl: documents shorter than 33 tokens were joined, BOS between them",)


def test_documents_are_joined_only_where_that_gives_more_of_the_windows_wanted(tmp_path, tokenizer):
    documents = [RNG.integers(1, 9, size=size).tolist() for size in (9 * 32, *[31] * 30)]
    path = written(tmp_path / "a.txt", "<|endoftext|>".join(map(written_out, documents)))
    assert cut(path, tokenizer).tokens.tolist() == in_windows(documents, 32)
    joined = cut(path, tokenizer, wanted=32)
    assert len(joined.tokens) == (9 * 32 + 30 * 32) // 32 and "joined" in joined.notes[0]


def test_a_short_text_gives_shorter_windows_and_says_so(tmp_path, tokenizer):
    ids = RNG.integers(1, 9, size=500).tolist()
    found = cut(written(tmp_path / "a.txt", written_out(ids)), tokenizer, width=1024, wanted=32)
    assert found.tokens.tolist() == in_windows([ids], 62)[:MIN_WINDOWS]
    assert found.notes == ("a.txt is short: 8 windows of 63 tokens instead of 1,024",)


@pytest.mark.parametrize(
    ("n", "width", "least"),
    [(8 * 31 - 1, 1024, MIN_WINDOW_TOKENS), (8 * 15 - 1, 16, 16), (3, 1024, MIN_WINDOW_TOKENS)],
)
def test_too_little_text_for_windows_is_refused(tmp_path, tokenizer, n, width, least):
    path = written(tmp_path / "a.txt", written_out([1] * n))
    with pytest.raises(
        ByroteError, match=f"a.txt holds {n} tokens, too few for 8 windows of {least}"
    ) as refusal:
        cut(path, tokenizer, width=width)
    assert f"{8 * (width - 1):,} tokens" in refusal.value.help
    assert len(cut(written(path, written_out([1] * (8 * (least - 1)))), tokenizer, width=width).tokens) == 8


def test_no_more_is_read_than_a_stimulus_draws_from(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(token_sets, "MAX_TOKENS", 400)
    text = as_txt(tmp_path)
    with text.open("a") as more:
        more.writelines(f"<|endoftext|>{written_out(d)}" for d in DOCUMENTS * 50)
    found = cut(text, tokenizer)
    assert found.tokens.tolist() == in_windows([DOCUMENTS[0][:400]], 32)
    assert found.notes == ("a.txt: only its first 400 tokens were read",)
    np.save(tmp_path / "ids.npy", np.ones(10**6, dtype=np.int64))
    assert len(cut(tmp_path / "ids.npy").tokens) == 400 // 32


def test_what_is_put_right_is_said(tmp_path, tokenizer):
    lines = [json.dumps({"text": written_out(DOCUMENTS[0])}), "{broken", json.dumps({"title": "x"})]
    found = cut(written(tmp_path / "a.jsonl", "\n".join(lines)), tokenizer)
    assert len(found.notes) == 1 and "2 lines contain no text: line 2 is not JSON" in found.notes[0]
    text = written_out(DOCUMENTS[0]).encode() + b" \xff mat"
    assert cut(written(tmp_path / "a.txt", text), tokenizer).notes == ("a.txt: bytes that are not UTF-8 were replaced (1)",)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt holds no text"),
        ("a.txt", b" \n\n", "a.txt holds no text"),
        ("a.jsonl", b"", "a.jsonl holds no text"),
        ("a.bin", b"\x00\x01\x02" * 100, "a.bin is not text: it holds NUL bytes"),
        ("a.txt", b"\xff\xfet\x00h\x00e\x00", "NUL bytes"),
        ("a.zst", bytes(range(128, 256)) * 50, "is not UTF-8 text"),
        ("a.txt.gz", b"not gzip", "cannot be unpacked"),
        ("a.jsonl", b'{"body": "the cat"}', "no text in a field 'text'"),
        ("a.jsonl", b"the cat", "is not JSON"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.npy", b"\x93NUMPY", r"is not a \.npy file"),
        ("a.npy", np.ones((4, 40)), "not token ids"),
        ("a.npy", -np.ones((4, 40), dtype=np.int64), "negative ids"),
        ("a.npy", np.zeros((0, 40), dtype=np.int64), "a.npy holds no text"),
        ("a.safetensors", {"ids": np.ones((4, 40), dtype=np.int64)}, "no tensor `tokens`"),
        ("a.safetensors", b"half", "a.safetensors"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, tokenizer, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        save_file(content, path)
    else:
        np.save(path, content)
    with pytest.raises(ByroteError, match=message) as refusal:
        cut(path, tokenizer)
    assert refusal.value.help


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ByroteError, match="not token ids"):
        cut(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"content": ["x"], "title": ["y"]}, "has no column 'text' \\(it has content, title\\)"),
        ({"text": [1], "n": [2]}, "has no column 'text'"),
    ],
)
def test_a_table_without_a_column_of_text_is_refused(tmp_path, tokenizer, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ByroteError, match=message):
        cut(tmp_path / "a.parquet", tokenizer)


def test_text_needs_the_models_tokenizer_and_says_what_else_there_is(tmp_path, tokenizer):
    text = as_txt(tmp_path)
    for missing in (None, tmp_path / "missing.json"):
        with pytest.raises(ByroteError, match=r"the model folder has no tokenizer\.json") as refusal:
            cut(text, missing)
        assert ".npy" in refusal.value.help
    with pytest.raises(ByroteError, match=r"is not a tokenizer\.json"):
        cut(text, written(tmp_path / "broken.json", "{}"))


def test_folders_without_text_and_with_both_kinds_are_refused(tmp_path, tokenizer):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ByroteError, match="holds no text") as refusal:
        cut(tmp_path / "empty", tokenizer)
    assert ".parquet" in refusal.value.help
    folder = as_folder(tmp_path)
    np.save(folder / "a.npy", np.ones(99, dtype=np.int64))
    with pytest.raises(ByroteError, match="mixes text and token ids"):
        cut(folder, tokenizer)
    with pytest.raises(ByroteError, match="does not exist"):
        cut(tmp_path / "nowhere", tokenizer)
