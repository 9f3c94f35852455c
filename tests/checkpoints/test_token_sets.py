"""Sequences that come with a series or are given: read, checked, and where they begin to repeat themselves."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.source import draw, fresh_sequences, source_nll
from byrote.checkpoints.lab.sources import SourceConfig, source_of
from byrote.checkpoints.lab.sources.tiling import bigram_table
from byrote.checkpoints.token_sets import (
    N_CANDIDATES,
    NO_TOKEN_SETS,
    TokenSets,
    starts_over,
    token_sets_from_files,
    token_sets_of,
)

WORDS = {"the": 1, "cat": 2, "sat": 3, "on": 4, "mat": 5, "[UNK]": 6}
SOURCE = SourceConfig(d_vocab=20, n_ctx=40, block_min=5, block_max=15)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def given(
    tokenizer: Path | None = None, *, base: TokenSets = NO_TOKEN_SETS, n_ctx: int = 99, **files: Path
) -> TokenSets:
    return token_sets_from_files(base, tokenizer=tokenizer, bos=0, n_ctx=n_ctx, **files)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Where a sequence repeats itself.


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        ([0, 7, 8, 9, 7, 8, 9, 7, 8], 4),
        ([0, 7, 8, 9, 6, 7, 8, 9, 6], 5),  # exactly one more block
        ([0, 7, 8, 9, 6, 5, 7, 8, 9], 9),  # three tokens are too few to tell
        ([0, 7, 7, 7, 7, 7, 7, 7, 7], 2),
        ([0, 7, 8, 7, 8, 7, 8, 7, 9], 9),  # breaks off: nothing is copied to the end
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], 9),
        ([0, 1], 2),
    ],
)
def test_where_a_sequence_begins_to_repeat_itself(tokens, start):
    assert starts_over(np.array([tokens, tokens])).tolist() == [start, start]


def test_the_labs_own_blocks_are_found():
    drawn = draw(SOURCE, seed=3, stream="pool", index=0, n=200)
    assert starts_over(drawn.tokens).tolist() == drawn.second_block_start.tolist()


# What a lab series carries.


def lab_series(folder: Path, **manifest: object) -> Path:
    from lookup_models import random_state, write_series

    pool, others = (draw(SOURCE, seed=0, stream=s, index=0, n=6).tokens for s in ("pool", "twins"))
    data = {
        "members": {"tokens": pool, "repeat_count": np.arange(6)},
        "twins": {"tokens": others},
        "held_out": {"tokens": pool + 1},
    }
    return write_series(folder, {0: random_state()}, data=data, manifest=manifest)


def manifest_data(**changes: object) -> dict:
    return {"source": "tiled_blocks", **SOURCE.__dict__, "n_held_out": 6, **changes}


def test_a_lab_series_carries_its_own(tmp_path):
    material = token_sets_of(open_series(lab_series(tmp_path / "lab", data=manifest_data())))
    pool = draw(SOURCE, seed=0, stream="pool", index=0, n=6).tokens
    assert material.members.tolist() == pool.tolist()
    assert material.repeat_count.tolist() == [0, 1, 2, 3, 4, 5]
    assert material.natural.tolist() == (pool + 1).tolist()
    assert set(material.sources) == {"natural", "members", "twins"}


def test_candidates_are_the_twins_and_more_of_their_stream(tmp_path):
    material = token_sets_of(open_series(lab_series(tmp_path / "lab", data=manifest_data())))
    assert (
        material.candidates.tolist()
        == draw(SOURCE, seed=0, stream="twins", index=0, n=N_CANDIDATES).tokens.tolist()
    )
    assert material.candidates[:6].tolist() == material.twins.tolist()
    assert fresh_sequences(SOURCE, seed=0, after=6, n=3).tolist() == material.candidates[6:9].tolist()
    trained_on = {row.tobytes() for row in material.members}
    assert not trained_on & {row.tobytes() for row in material.candidates}


@pytest.mark.parametrize(
    "data", [{}, {"source": "other"}, manifest_data(d_vocab=1), manifest_data(block_max="long")]
)
def test_without_a_known_source_only_the_twins_are_known(tmp_path, data):
    series = open_series(lab_series(tmp_path / "lab", data=data))
    material = token_sets_of(series)
    assert source_of(series.manifest) is None
    assert (material.candidates, material.reference) == (None, None)
    assert len(material.twins) == 6


def test_other_series_carry_nothing(tmp_path, lab_series):
    assert token_sets_of(open_series(lab_series(1))) is NO_TOKEN_SETS


def test_a_damaged_data_file_is_said(tmp_path):
    series = lab_series(tmp_path / "lab")
    (series / "data" / "twins.safetensors").write_bytes(b"half")
    with pytest.raises(ByroteError, match=r"twins\.safetensors is 4 bytes, too short"):
        token_sets_of(open_series(series))


# How surprising the lab's tokens are.


def test_reference_of_uniform_blocks():
    drawn = draw(SOURCE, seed=0, stream="pool", index=0, n=4)
    nll = source_nll(SOURCE, drawn.tokens, drawn.second_block_start)
    for row, start in zip(nll, drawn.second_block_start, strict=True):
        assert np.isnan(row[0]) and np.isnan(row[start:]).all()
        np.testing.assert_allclose(row[1:start], math.log(19))


def test_reference_of_a_bigram_source_is_its_table():
    source = SourceConfig(
        d_vocab=20, n_ctx=40, block_min=5, block_max=15, bigram_frac=0.7, bigram_successors=4
    )
    table = bigram_table(source)
    listed, other = int(table[3, 1]), next(i for i in range(1, 20) if i not in table[3])
    tokens = np.array([[0, 3, listed, 9], [0, 3, other, 9]])
    nll = source_nll(source, tokens, np.array([4, 4]))
    np.testing.assert_allclose(nll[:, 1], math.log(19))
    np.testing.assert_allclose(nll[0, 2], -math.log(0.7 / 4 + 0.3 / 19))
    np.testing.assert_allclose(nll[1, 2], -math.log(0.3 / 19))
    total = sum(
        math.exp(-source_nll(source, np.array([[0, 3, i]]), np.array([3]))[0, 2]) for i in range(1, 20)
    )
    assert total == pytest.approx(1)


def test_ids_of_another_vocabulary_have_no_reference():
    assert np.isnan(source_nll(SOURCE, np.array([[0, 1, 20]]), np.array([3]))).all()


# Files.


LINES = "the cat sat on the mat the cat sat on\n\nsat on the mat the cat sat on the mat on the\n"


def test_members_are_lines_cut_to_the_shortest(tmp_path, tokenizer):
    material = given(
        tokenizer, members=written(tmp_path / "m.txt", LINES), twins=written(tmp_path / "t.txt", LINES[:38])
    )
    assert material.members.shape == (2, 11)
    assert material.members[1].tolist() == [0, 3, 4, 1, 5, 1, 2, 3, 4, 1, 5]
    assert material.repeat_count.tolist() == [1, 1]
    assert material.twins.shape == (1, 11)
    assert material.sources == {"members": "m.txt", "twins": "t.txt"}
    assert material.candidates is None


def test_ids_are_taken_as_they_are_with_what_comes_with_them(tmp_path):
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4)
    nll = np.linspace(0, 1, 12).reshape(3, 4).astype(np.float32)
    save_file(
        {"tokens": tokens, "repeat_count": np.array([5, 6, 7]), "reference_nll": nll, "x": nll},
        tmp_path / "m.safetensors",
    )
    np.save(tmp_path / "t.npy", tokens)
    material = given(members=tmp_path / "m.safetensors", twins=tmp_path / "t.npy")
    assert material.members.dtype == np.int64 and material.members.tolist() == tokens.tolist()
    assert material.repeat_count.tolist() == [5, 6, 7]
    np.testing.assert_allclose(material.reference_nll["members"], nll)
    assert set(material.reference_nll) == {"members"}


def test_what_is_given_replaces_what_a_series_carries(tmp_path):
    base = token_sets_of(open_series(lab_series(tmp_path / "lab", data=manifest_data())))
    np.save(tmp_path / "ids.npy", np.ones((2, base.twins.shape[1]), dtype=np.int64))
    found = given(base=base, members=tmp_path / "ids.npy")
    assert (len(found.members), found.repeat_count.tolist(), found.notes) == (2, [1, 1], ())
    assert found.candidates is base.candidates and found.twins is base.twins
    found = given(base=base, twins=tmp_path / "ids.npy")
    assert found.candidates is None and len(found.twins) == 2 and found.members is base.members


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.npy", b"", r"is not a \.npy file"),
        ("m.npy", b"\x93NUMPY", r"is not a \.npy file"),
        ("m.safetensors", b"half", "too short for safetensors"),
        ("m.safetensors", {"ids": np.ones((2, 9), dtype=np.int64)}, "no tensor `tokens`"),
        ("m.safetensors", {"tokens": np.ones((2, 9))}, "tokens are F64, not integers"),
        ("m.npy", -np.ones((2, 9), dtype=np.int64), "negative ids"),
        ("m.npy", np.ones(9, dtype=np.int64), "tokens are 9, not sequences"),
        ("m.npy", np.ones((9, 1), dtype=np.int64), "tokens are 9 x 1, not sequences"),
        (
            "m.safetensors",
            {"tokens": np.ones((2, 9), dtype=np.int64), "repeat_count": np.ones(3, dtype=np.int64)},
            r"repeat_count has shape \(3,\), not \(2,\)",
        ),
        (
            "m.safetensors",
            {"tokens": np.ones((2, 9), dtype=np.int64), "reference_nll": np.ones((2, 8))},
            r"reference_nll has shape \(2, 8\), not \(2, 9\)",
        ),
        ("m.txt", b"", "holds no sequence"),
        ("m.txt", b"the cat\n" + LINES.encode(), "shortest line of m.txt has 2 tokens"),
    ],
)
def test_what_cannot_be_members_is_refused(tmp_path, tokenizer, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        save_file(content, path)
    else:
        np.save(path, content)
    with pytest.raises(ByroteError, match=message):
        given(tokenizer, members=path)


def test_json_lines_bring_their_repeat_counts(tmp_path, tokenizer):
    lines = [{"text": "the cat sat on the mat the cat sat on", "repeat_count": 7}, {"text": "sat " * 9}]
    members = written(tmp_path / "m.jsonl", "\n\n".join(map(json.dumps, lines)))
    material = given(tokenizer, members=members)
    assert material.members.tolist() == [[0, 1, 2, 3, 4, 1, 5, 1, 2, 3], [0] + [3] * 9]
    assert material.repeat_count.tolist() == [7, 1]
    assert material.notes == (
        "members: 2 sequences of m.jsonl were cut to 9 tokens, the length of the shortest (the longest has 10)",
    )


def test_gzipped_lines_and_ids_stored_by_columns_are_read(tmp_path, tokenizer):
    (tmp_path / "m.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + LINES.encode()))
    ids = np.arange(22).reshape(2, 11)
    np.save(tmp_path / "t.npy", np.asfortranarray(ids))
    material = given(tokenizer, members=tmp_path / "m.txt.gz", twins=tmp_path / "t.npy")
    assert material.members[1].tolist() == [0, 3, 4, 1, 5, 1, 2, 3, 4, 1, 5]
    assert material.twins.tolist() == ids.tolist()


def test_an_archive_is_read_no_further_than_a_file_may_be_long(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.token_sets.MAX_FILE_BYTES", 2 << 20)
    (tmp_path / "m.txt.gz").write_bytes(gzip.compress(b"the cat sat on the mat the cat sat\n" * 100_000))
    with pytest.raises(ByroteError, match="has 2 MiB; at most 2 are read"):
        given(tokenizer, members=tmp_path / "m.txt.gz")


def test_a_line_over_the_limit_is_refused(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.token_sets.MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr("byrote.checkpoints.texts.MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(ByroteError, match=r"m\.txt: line 2 is longer than 1 MiB"):
        given(tokenizer, members=written(tmp_path / "m.txt", f"{LINES[:38]}{'cat ' * 300_000}"))


def test_half_a_surrogate_pair_is_replaced(tmp_path, tokenizer):
    members = written(tmp_path / "m.jsonl", json.dumps({"text": "cat \ud800 " * 6}))
    assert given(tokenizer, members=members).members.shape == (1, 13)


def test_a_tokenizer_that_pads_and_cuts_does_neither_here(tmp_path, tokenizer):
    made = json.loads(tokenizer.read_text())
    made["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    made["padding"] = {
        "strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 6, "pad_type_id": 0,
        "pad_token": "[UNK]",
    }  # fmt: skip
    tokenizer.write_text(json.dumps(made))
    assert given(tokenizer, members=written(tmp_path / "m.txt", LINES[:38])).members.shape == (1, 11)


def test_members_and_twins_are_made_of_one_length(tmp_path):
    """The loss falls along a sequence: longer twins would seem better known."""
    rows = np.arange(24).reshape(2, 12)
    save_file({"tokens": rows, "reference_nll": rows * 0.5}, tmp_path / "m.safetensors")
    np.save(tmp_path / "t.npy", rows[:, :9] + 100)
    material = given(members=tmp_path / "m.safetensors", twins=tmp_path / "t.npy")
    assert material.members.tolist() == rows[:, :9].tolist()
    assert material.twins.tolist() == (rows[:, :9] + 100).tolist()
    np.testing.assert_allclose(material.reference_nll["members"], rows[:, :9] * 0.5)
    assert material.notes == (
        "members and twins were cut to 8 tokens after BOS, to be of one length (members had 11, twins had 8)",
    )


def test_what_is_longer_than_the_context_is_cut_without_a_word(tmp_path, tokenizer):
    rows = np.arange(24).reshape(2, 12)
    save_file({"tokens": rows, "reference_nll": rows * 0.5}, tmp_path / "m.safetensors")
    twins = written(tmp_path / "t.txt", LINES)
    material = given(tokenizer, n_ctx=10, members=tmp_path / "m.safetensors", twins=twins)
    assert material.members.shape == material.reference_nll["members"].shape == (2, 10)
    assert (material.twins.shape, material.notes) == ((2, 10), ())


def test_what_a_series_carries_is_cut_to_what_is_given(tmp_path):
    base = token_sets_of(open_series(lab_series(tmp_path / "lab", data=manifest_data())))
    np.save(tmp_path / "ids.npy", np.ones((2, 9), dtype=np.int64))
    found = given(base=base, members=tmp_path / "ids.npy")
    assert {rows.shape[1] for rows in (found.members, found.twins, found.candidates)} == {9}
    assert found.twins.tolist() == base.twins[:, :9].tolist()


@pytest.mark.parametrize(
    ("shared", "said"), [(1, "1 of the twins is a member"), (2, "2 of the twins are members")]
)
def test_twins_that_are_members_are_said(tmp_path, shared, said):
    rows = np.arange(40).reshape(4, 10)
    np.save(tmp_path / "m.npy", rows)
    np.save(tmp_path / "t.npy", np.concatenate([rows[:shared], rows + 100]))
    (note,) = given(members=tmp_path / "m.npy", twins=tmp_path / "t.npy").notes
    assert note == f"{said} too: twins must never have been trained on"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"text": "the cat"}\n[1]', "m.jsonl: line 2 is not a JSON object"),
        ("m.jsonl", b'\n{"txt": "the cat"}', "m.jsonl: line 2 has no text in a field 'text'"),
        ("m.jsonl", b'{"text": "the', "m.jsonl: line 1 is not JSON"),
        ("m.jsonl", b"[" * 100_000, "m.jsonl: line 1 is not JSON"),
        ("m.jsonl", b'{"text": "the cat", "repeat_count": "two"}', "repeat_count is not a count"),
        ("m.jsonl", b'{"text": "the cat", "repeat_count": -1}', "repeat_count is not a count"),
        ("m.jsonl", b'{"text": "the cat", "repeat_count": true}', "repeat_count is not a count"),
        ("m.txt", b"the \x00 cat", "is not text: it holds NUL bytes"),
        ("m.txt", b"the cat\n" * 20_000, "m.txt has 0 MiB; at most 0 are read"),
    ],
)
def test_text_that_cannot_be_members_is_refused(tmp_path, tokenizer, monkeypatch, name, content, message):
    monkeypatch.setattr("byrote.checkpoints.token_sets.MAX_FILE_BYTES", 150_000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ByroteError, match=message):
        given(tokenizer, members=tmp_path / name)


def test_negative_counts_and_a_broken_tokenizer_are_refused(tmp_path, tokenizer):
    save_file(
        {"tokens": np.ones((2, 9), np.int64), "repeat_count": np.array([1, -1])}, tmp_path / "m.safetensors"
    )
    with pytest.raises(ByroteError, match="repeat_count is negative"):
        given(members=tmp_path / "m.safetensors")
    tokenizer.write_text("{")
    with pytest.raises(ByroteError, match=r"is not a tokenizer\.json"):
        given(tokenizer, members=written(tmp_path / "m.txt", LINES))


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "m.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ByroteError, match="not token ids"):
        given(members=tmp_path / "m.npy")


def test_lines_without_a_tokenizer_and_what_is_no_file_are_refused(tmp_path, tokenizer):
    with pytest.raises(ByroteError, match=r"no tokenizer\.json") as refusal:
        given(tmp_path / "missing.json", members=written(tmp_path / "m.txt", "the cat"))
    assert ".npy" in refusal.value.help
    with pytest.raises(ByroteError, match="is not a file"):
        given(tokenizer, members=tmp_path)


def test_lab_files_written_by_training_hold_what_is_read(tmp_path):
    """The trainer's own files: nothing here was written for the reader."""
    from byrote.checkpoints.lab import Arm, LabConfig, train

    config = LabConfig(
        n_layers=1, d_model=8, n_heads=1, d_head=8, source=SOURCE, arm=Arm("repeated", 0.5, 4), steps=4, batch=4,
        warmup_steps=1, n_held_out=8,
    )  # fmt: skip
    path = tmp_path / "run"
    train(path, config)
    material = token_sets_of(open_series(path))
    stored = load_file(path / "data" / "members.safetensors")
    assert material.members.tolist() == stored["tokens"].tolist()
    assert material.repeat_count.sum() == 4 * 2
    assert json.loads((path / "manifest.json").read_text())["data"]["source"] == "tiled_blocks"
    assert len(material.candidates) == N_CANDIDATES and len(material.natural) == 8
