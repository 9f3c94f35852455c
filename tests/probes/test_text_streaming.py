"""Corpora are read piece by piece: the pieces do not show in the numbers, and memory does not grow with the file."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from byrote.checkpoints.texts import Chunk, Packer, Reading, text_chunks
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.induction_signal import InductionSignal
from byrote.probes.text.near_duplicates import NearDuplicates
from byrote.probes.text.tail_mass import Table
from byrote.probes.text.windows import encoder

END = "<|endoftext|>"
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz      ", dtype=np.uint8)


def some_text(seed: int, documents: int = 60) -> list[str]:
    """Documents of very different lengths, with repeats inside them and copies among them."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(1, 900, size=documents):
        words = [f"wört{i}" for i in rng.zipf(1.4, size=length) % 500]
        made.append(" ".join([*words, *words[: length // 3]]))
    return [*made, *made[:5]]


def write(path: Path, documents: list[str]) -> Path:
    if ".jsonl" in path.name:
        data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents).encode()
    else:
        data = END.join(documents).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def frame(folder: Path, name: str, *, documents: int = 60, **settings: object) -> pd.DataFrame:
    """Every measure that needs no model, a reference included."""
    corpus = write(folder / name, some_text(1, documents))
    human = write(folder / f"human-{name}", some_text(2, documents))
    report = measure_text([corpus], TextSettings(context=64, **settings), reference=human)
    assert len(report.frame) > 60
    return report.frame


# the pieces do not show


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.txt.gz", "x.jsonl.gz"])
def test_numbers_do_not_depend_on_how_much_is_read_at_once(tmp_path, monkeypatch, name):
    whole = frame(tmp_path, name, documents=14)
    for read_bytes in (61, 4096):
        monkeypatch.setattr("byrote.checkpoints.texts.READ_BYTES", read_bytes)
        pd.testing.assert_frame_equal(frame(tmp_path, name, documents=14), whole, check_exact=True)


@pytest.mark.parametrize("windows", ["documents", "full", "packed"])
@pytest.mark.parametrize("units", ["words", "bytes"])
def test_numbers_do_not_depend_on_the_size_of_chunks(tmp_path, monkeypatch, windows, units):
    settings = {
        "windows": windows,
        "units": units,
        "documents": 16 if units == "words" else 6,
    }  # seven bytes a word
    whole = frame(tmp_path, "x.txt", **settings)
    monkeypatch.setattr("byrote.checkpoints.texts.CHUNK_BYTES", 3000)
    monkeypatch.setattr("byrote.checkpoints.texts.CHUNK_PARTS", 3)
    monkeypatch.setattr("byrote.probes.text.windows._GROUP_BYTES", 500)
    pd.testing.assert_frame_equal(frame(tmp_path, "x.txt", **settings), whole, check_exact=True)


def test_only_the_null_depends_on_the_size_of_batches(tmp_path, monkeypatch):
    """Each batch is shuffled with a seed of its own; everything else is the same to the last bit."""
    whole = frame(tmp_path, "x.txt")
    monkeypatch.setattr("byrote.probes.text.windows.BATCH_TOKENS", 16_384)  # no piece is longer
    monkeypatch.setattr("byrote.probes.text.near_duplicates._SIGNED_AT_ONCE", 7)
    parts = frame(tmp_path, "x.txt")
    pd.testing.assert_frame_equal(
        parts.drop(columns="chance"), whole.drop(columns="chance"), check_exact=True
    )
    assert not parts.chance.equals(whole.chance)


def test_a_long_document_in_parts_is_the_document(tmp_path, monkeypatch):
    whole = frame(tmp_path, "x.txt")
    monkeypatch.setattr("byrote.checkpoints.texts.PART_BYTES", 300)
    pd.testing.assert_frame_equal(frame(tmp_path, "x.txt"), whole, check_exact=True)


def test_a_tokenizer_gives_the_tokens_of_the_whole_document(tmp_path, monkeypatch):
    """Byte-level BPE, trained here; the text has digits, punctuation, runs of blanks and two alphabets."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rng = np.random.default_rng(0)
    stock = [
        "the cat's",
        "1,234.5",
        "  two",
        "blanks\n\n",
        "слово",
        "don't",
        "--",
        "mat.",
        "(end)",
        "a",
        "\tb",
    ]
    text = " ".join(stock[i] for i in rng.integers(len(stock), size=3000))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator([text], trainers.BpeTrainer(vocab_size=400, show_progress=False))
    made.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr("byrote.checkpoints.texts.PART_BYTES", 256)
    packer = Packer()
    chunks = [*packer.feed(text.encode(), starts_document=True), *packer.flush()]
    parts = [part for chunk in chunks for part in chunk.parts]
    assert len(parts) > 50
    with encoder("tokens", tmp_path / "tokenizer.json") as encode:
        codes, _ = encode(Chunk(parts, [0] * len(parts)))
    assert codes.tolist() == made.encode(text.strip()).ids


@pytest.mark.parametrize("read_bytes", [1, 2, 5, 13, 1 << 20])
def test_the_separator_that_is_named_first_wins_wherever_a_block_ends(tmp_path, monkeypatch, read_bytes):
    """`END` is a part of `ENDING`, and `=*=` may reach into the next block."""
    (tmp_path / "x.txt").write_text("one ENDING two END three =x= four = 5\n six =ENDING= seven")
    monkeypatch.setattr("byrote.checkpoints.texts.READ_BYTES", read_bytes)
    found: Counter[int] = Counter()
    parts: dict[int, bytes] = {}
    for chunk in text_chunks(
        [tmp_path / "x.txt"],
        separators=("ENDING", "END", "=*="),
        text_field="text",
        raw=False,
        reading=Reading(),
    ):
        for part, document in zip(chunk.parts, chunk.documents, strict=True):
            parts[document] = parts.get(document, b"") + part
            found[document] += 1
    assert list(parts.values()) == [b"one", b"two", b"three", b"four = 5\n six", b"seven"]


@pytest.mark.parametrize("read_bytes", [1, 3, 64, 1 << 20])
def test_damage_is_counted_the_same_wherever_a_block_ends(tmp_path, monkeypatch, read_bytes):
    """Two bytes that are no UTF-8, a character cut short at the end; U+FFFD itself is text, a mark at the start is not."""
    text = (
        "one two three four five six seven eight nine ten eleven twelve thirteen \ufffd\ufffd ".encode() * 3
    )
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbf" + text + b"a \xff b \xc3 c \xe2\x82")
    monkeypatch.setattr("byrote.checkpoints.texts.READ_BYTES", read_bytes)
    reading = Reading()
    chunks = text_chunks(
        [tmp_path / "x.txt"], separators=(END,), text_field="text", raw=False, reading=reading
    )
    (part,) = (part for chunk in chunks for part in chunk.parts)
    assert part == text + "a \ufffd b \ufffd c \ufffd".encode()
    assert reading.replaced == 3


@pytest.mark.parametrize("read_bytes", [100, 333, 1 << 20])
def test_the_limit_of_a_line_is_exact(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr("byrote.checkpoints.texts.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("byrote.checkpoints.texts.READ_BYTES", read_bytes)
    frame_bytes = len(json.dumps({"text": ""}))
    lines = [json.dumps({"text": "x" * (n - frame_bytes)}) for n in (1000, 1001, 20, 999, 5000)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    reading = Reading()
    chunks = list(
        text_chunks([tmp_path / "x.jsonl"], separators=(END,), text_field="text", raw=False, reading=reading)
    )
    lengths = [len(part) for chunk in chunks for part in chunk.parts]
    assert lengths == [n - frame_bytes for n in (1000, 20, 999)]
    assert [text for _, text in reading.files] == ["2 lines contain no text: line 2 is longer than 0 MiB"]


# against plain Python, across every boundary


def test_shares_equal_plain_python_across_every_boundary(tmp_path, monkeypatch):
    """Windows of 64 words cut from each document's start, counted with loops; read 97 bytes and 9 KB at a time."""
    for name, size in (("READ_BYTES", 97), ("PART_BYTES", 1000), ("CHUNK_BYTES", 9000)):
        monkeypatch.setattr(f"byrote.checkpoints.texts.{name}", size)
    monkeypatch.setattr("byrote.probes.text.windows.BATCH_TOKENS", 16_384)
    documents = some_text(5)
    path = write(tmp_path / "x.txt", documents)
    found = measure_text([path], TextSettings(context=64, measures=("inducible", "rep", "repeats"))).frame
    value = {
        (r.measure, r.metric, None if pd.isna(r.n_gram) else r.n_gram): r.value for r in found.itertuples()
    }
    words = [text.split() for text in documents]
    windows = [text[i : i + 64] for text in words for i in range(0, len(text), 64)]
    for n in (2, 3, 4, 5, 6, 7):
        share, hit_rate = _inducible(windows, n)
        assert value["inducible", "share", n] == pytest.approx(share)
        assert value["inducible", "hit_rate", n] == pytest.approx(hit_rate)
    for n in (2, 3, 4):
        assert value["rep", "rep_n", n] == pytest.approx(_again(windows, n))
    for n in (1, 2, 3, 4, 8, 16, 32):
        assert value["repeats", "share", n] == pytest.approx(_again(words, n))
    total = sum(map(len, windows))
    near = sum(w[i] in w[max(0, i - 16) : i] for w in windows for i in range(len(w)))
    assert value["rep", "rep_w", None] == pytest.approx(near / total)
    assert value["rep", "rep_r", None] == pytest.approx(sum(map(_covered, windows)) / total)


@pytest.mark.parametrize("mode", ["full", "packed"])
def test_windows_of_every_mode_equal_plain_python(tmp_path, mode):
    documents = [text.split() for text in some_text(6)]
    path = write(tmp_path / "x.txt", [" ".join(words) for words in documents])
    found = measure_text([path], TextSettings(context=48, windows=mode, measures=("inducible", "rep"))).frame
    stream = [[word for words in documents for word in words]] if mode == "packed" else documents
    windows = [words[i : i + 48] for words in stream for i in range(0, len(words), 48)]
    kept = [window for window in windows if mode == "packed" or len(window) == 48]
    assert mode == "packed" or len(kept) < len(windows)
    value = {(r.metric, r.n_gram): r.value for r in found.itertuples() if not pd.isna(r.n_gram)}
    for n in (2, 5):
        assert (value["share", n], value["hit_rate", n]) == pytest.approx(_inducible(kept, n))
    assert value["rep_n", 3] == pytest.approx(_again(kept, 3))


def _inducible(windows: list[list[str]], n: int) -> tuple[float, float]:
    """Share, and hit rate, of tokens whose n-1 tokens before stood earlier in the window and had this successor."""
    hits = open_ = total = 0
    for window in windows:
        followed: dict[tuple[str, ...], set[str]] = {}
        for i, token in enumerate(window):
            total += 1
            if i >= n - 1:
                after = followed.setdefault(tuple(window[i - n + 1 : i]), set())
                open_ += bool(after)
                hits += token in after
                after.add(token)
    return hits / total, hits / open_


def _again(texts: list[list[str]], n: int) -> float:
    """1 - different n-grams over n-grams, both summed over texts."""
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in texts]
    return 1 - sum(len(set(each)) for each in grams) / sum(map(len, grams))


def _covered(window: list[str]) -> int:
    """Tokens in a bigram that the window has more than once."""
    bigrams = Counter(pairwise(window))
    inside = [False, *(bigrams[pair] > 1 for pair in pairwise(window)), False]
    return sum(before or after for before, after in pairwise(inside))


def test_clusters_equal_those_of_exact_similarity(tmp_path):
    """Copies with 0 to 6 words changed among 200 documents of 150 words: compared pair by pair, no estimate involved."""
    rng = np.random.default_rng(3)
    documents = [[f"w{i}" for i in rng.integers(5000, size=150)] for _ in range(200)]
    for source, changes in zip(range(30), rng.permutation(np.repeat([0, 1, 12], 10)), strict=True):
        copy = list(documents[source])
        for place in rng.choice(150, size=changes, replace=False):
            copy[place] = "other"
        documents.append(copy)
    sets = [{tuple(text[i : i + 5]) for i in range(146)} for text in documents]
    cluster = list(range(len(sets)))
    for i, one in enumerate(sets):
        for j in range(i):
            alike = len(one & sets[j]) / len(one | sets[j])
            assert not 0.7 < alike < 0.9  # none so near the threshold that an estimate could miss
            if alike >= 0.8:
                cluster = [cluster[i] if c == cluster[j] else c for c in cluster]
    sizes = list(Counter(cluster).values())
    path = write(tmp_path / "x.txt", [" ".join(text) for text in documents])
    found = measure_text([path], TextSettings(measures=("near_duplicates",))).frame.set_index("metric").value
    assert found["clustered_share"] == pytest.approx(sum(n for n in sizes if n > 1) / 230)
    assert found["redundant_share"] == pytest.approx(sum(n - 1 for n in sizes) / 230)
    assert found["redundant_share"] == pytest.approx(20 / 230)


# memory

SMALL = {  # what is held at once, and the limits of every table: reached in the first part of the file
    "checkpoints.texts.READ_BYTES": 4096,
    "checkpoints.texts.CHUNK_BYTES": 8192,
    "probes.text.windows.BATCH_TOKENS": 2048,
    "probes.text.settings.PIECE_TOKENS": 512,
    "probes.text.tail_mass.MAX_RARE": 128,
    "probes.text.tail_mass._BLOCKS": 8,
    "probes.text.concentration._BLOCKS": 8,
    "probes.text.concentration._SAMPLE": 16,
}


def growth_bytes(path: Path, reference: Path) -> int:
    """By how much the least in use in the last quarter of a file's reading exceeds the least in the second quarter.

    In use is what Python and numpy allocated and did not free, looked at after each block of the file; the reference is
    read before.
    """
    measure_text([reference])  # what is imported or cached once is no growth
    curve, n = np.zeros(4096, dtype=np.int64), 0

    def look(done: int, total: int) -> None:
        nonlocal n
        if done > 2 * reference.stat().st_size:
            curve[n] = tracemalloc.get_traced_memory()[0]
            n += 1

    tracemalloc.start()
    try:
        measure_text([path], TextSettings(context=128), reference=reference, on_progress=look)
    finally:
        tracemalloc.stop()
    quarters = np.array_split(curve[:n], 4)
    return int(quarters[3].min() - quarters[1].min())


@pytest.fixture
def small_tables(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(f"byrote.{name}", value)
    monkeypatch.setattr("byrote.probes.text.corpus.NearDuplicates", partial(NearDuplicates, max_documents=64))
    monkeypatch.setattr("byrote.probes.text.tail_mass.Table", partial(Table, 256))
    monkeypatch.setattr("byrote.probes.text.corpus.InductionSignal", partial(InductionSignal, max_tokens=256))


def new_text(path: Path, documents: int, seed: int) -> Path:
    """Documents of 30 long words, nearly all of them seen for the first time."""
    rng = np.random.default_rng(seed)
    letters = LETTERS[rng.integers(26, size=(documents, 30, 20))]
    return write(path, [" ".join(word.tobytes().decode() for word in words) for words in letters])


N_DOCUMENTS, DOCUMENT_BYTES = 800, 30 * 21
HALF_BYTES = N_DOCUMENTS * DOCUMENT_BYTES // 2  # what is read between the quarters that are compared


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path, small_tables, name):
    """With every table full, less than 5 bytes for every 100 read."""
    reference = new_text(tmp_path / "human.txt", 150, 1)
    assert growth_bytes(new_text(tmp_path / name, N_DOCUMENTS, 2), reference) < 0.05 * HALF_BYTES


def test_a_table_without_limit_would_be_seen(tmp_path, small_tables, monkeypatch):
    """The same where an eighth of every document's signature is kept: 64 bytes for 630."""
    kept: list[np.ndarray] = []
    signed = NearDuplicates._keep

    def keep_too(self: NearDuplicates, found: np.ndarray) -> None:
        kept.append(found[:, :16].copy())
        signed(self, found)

    monkeypatch.setattr(NearDuplicates, "_keep", keep_too)
    reference = new_text(tmp_path / "human.txt", 150, 1)
    assert growth_bytes(new_text(tmp_path / "x.txt", N_DOCUMENTS, 2), reference) > 0.05 * HALF_BYTES


_MEASURE = """
import re, sys
from pathlib import Path
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.induction_signal import InductionSignal

def peak_mib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024

peaks = []
for name in sys.argv[2:]:
    measure_text([name], reference=sys.argv[1] or None)
    peaks.append(peak_mib())
assert "torch" not in sys.modules
print(*peaks)
"""
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


def write_big(path: Path, mb: int, kind: str) -> Path:
    """Random letters and blanks, so that nearly every word and n-gram is new: the worst case for counting."""
    rng = np.random.default_rng(mb)
    with path.open("wb") as file:
        for _ in range(mb):
            text = LETTERS[np.frombuffer(rng.bytes(1_000_000), dtype=np.uint8) & 31].tobytes()
            if kind == "line":
                file.write(text)
            elif kind == "jsonl":
                file.writelines(b'{"text": "%s"}\n' % text[i : i + 800] for i in range(0, len(text), 800))
            else:
                size = {"documents": 2000, "tiny": 20}[kind]
                file.writelines(text[i : i + size] + END.encode() for i in range(0, len(text), size))
    return path


def peaks_mib(run_python, paths: list[Path], reference: Path | None = None) -> list[float]:
    """Peak memory of one process after it has measured each of the files.

    Not `ru_maxrss`: a child inherits its parent's there, and the parent is a test run that holds torch.
    """
    printed = run_python(_MEASURE, str(reference or ""), *map(str, paths))
    return [float(peak) for peak in printed.split()]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [("documents", "txt"), ("line", "txt"), ("tiny", "txt"), ("jsonl", "jsonl")]
)
def test_memory_has_a_limit(run_python, tmp_path, kind, name):
    """With a reference of 64 MB every table is full: from 64 to 256 MB less than 10 MiB more per 100 MB, and 450 MiB at
    the most.
    """
    sizes = (64, 256) if kind != "tiny" else (16, 48)
    reference = write_big(tmp_path / "reference.txt", sizes[0], "documents")
    small, large = (write_big(tmp_path / f"{mb}.{name}", mb, kind) for mb in sizes)
    before, after = peaks_mib(run_python, [small, large], reference)
    assert (after - before) / (sizes[1] - sizes[0]) * 100 < 10
    assert after < 450
