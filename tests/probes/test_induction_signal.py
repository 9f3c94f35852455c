"""`induction_signal`: by hand, against plain Python, at its null, and the same wherever the corpus is cut."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from byrote.checkpoints.lab.corpus_facts import ngram_facts
from byrote.checkpoints.lab.sources import Names
from byrote.checkpoints.ngrams import EXPECTED_PROB
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.induction_signal import InductionSignal, drawn_from_bigrams
from byrote.probes.text.windows import Windower


def write(folder: Path, documents: list[str]) -> Path:
    path = folder / "x.txt"
    path.write_text("<|endoftext|>".join(documents))
    return path


def found(path: Path, **changes: object):
    """Rows of the measure by n."""
    settings = TextSettings(measures=("induction_signal",), **{"context": 64, **changes})
    frame = measure_text([path], settings).frame
    assert set(frame.metric) == {"share"} and frame.n_gram.tolist() == [2, 3, 4]
    return frame.set_index("n_gram")


def test_a_repeat_counts_where_no_other_document_teaches_it(tmp_path):
    """ab comes back in the first document, and the second has b after every a; xy comes back in the third, which alone has x."""
    shares = found(write(tmp_path, ["a b a b", "a b c", "x y x y"])).value
    assert shares[2] == pytest.approx(1 / 11)
    assert shares[3] == shares[4] == 0


def test_a_table_has_to_give_a_tenth(tmp_path):
    """ab comes back once; elsewhere a is followed by b once in 10 times, then once in 11."""
    documents = ["a b a b", "a b", *["a c"] * 9]
    assert found(write(tmp_path, documents)).value[2] == 0
    assert found(write(tmp_path, [*documents, "a c"])).value[2] == pytest.approx(1 / (4 + 2 * 11))


def test_a_name_that_one_document_alone_mentions_is_not_known_by_heart(tmp_path):
    """n = 3: "the old man" comes back, other documents say "the old sea"; two documents that are alike know one another's."""
    tale = "the old man saw the old man"
    once = found(write(tmp_path, [tale, *["the old sea"] * 12])).value
    assert once[3] == pytest.approx(1 / (7 + 36))
    assert found(write(tmp_path, [tale, tale])).value.tolist() == [0, 0, 0]


def documents(seed: int, n: int = 40) -> list[list[str]]:
    """Documents of very different lengths, with phrases of their own that come back."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(1, 150, size=n):
        words = [f"w{i}" for i in rng.zipf(1.5, size=length) % 60]
        phrase = [f"w{i}" for i in rng.integers(60, size=4)]
        made.append([*words, *phrase, *words[: length // 4], *phrase])
    return made


def slowly(windows: list[tuple[int, list[str]]], n: int) -> float:
    """The same with loops: a table of all other documents for each."""
    counts: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for document, words in windows:
        for i in range(n - 1, len(words)):
            gram = tuple(words[i - n + 1 : i + 1])
            counts[document, gram] += 1
            counts[document, gram[:-1]] += 1
    total: Counter[tuple[str, ...]] = Counter()
    for (_, gram), k in counts.items():
        total[gram] += k
    hits = 0
    for document, words in windows:
        before: set[tuple[str, ...]] = set()
        for i in range(n - 1, len(words)):
            gram = tuple(words[i - n + 1 : i + 1])
            others = [total[one] - counts[document, one] for one in (gram, gram[:-1])]
            hits += gram in before and not (others[0] and others[0] / others[1] >= EXPECTED_PROB)
            before.add(gram)
    return hits / sum(len(words) for _, words in windows)


def test_shares_equal_plain_python(tmp_path):
    made = documents(3)
    path = write(tmp_path, [" ".join(words) for words in made])
    windows = [(d, words[i : i + 48]) for d, words in enumerate(made) for i in range(0, len(words), 48)]
    frame = found(path, context=48)
    for n in (2, 3, 4):
        assert frame.value[n] == pytest.approx(slowly(windows, n))
        assert 0 < frame.lo[n] < frame.value[n] < frame.hi[n]
    assert (frame.n == len(made)).all() and (frame.resampled == "documents").all()


def markov(seed: int, n: int, length: int, phrase: int = 0) -> np.ndarray:
    """Token ids [n, length] of one table of 30 ids; with a phrase, one of each row's own stands in it four times."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(0).dirichlet(np.full(30, 0.1), size=30).cumsum(-1)
    made = np.zeros((n, length), dtype=np.int64)
    for t in range(1, length):
        made[:, t] = (rng.random((n, 1)) >= table[made[:, t - 1]]).sum(-1).clip(max=29)
    for row in made if phrase else ():
        own = rng.integers(30, size=phrase)
        for start in range(0, length - phrase + 1, length // 4):
            row[start : start + phrase] = own
    return made


def test_a_text_of_its_own_bigrams_is_at_its_null_and_phrases_are_far_above(tmp_path):
    np.save(tmp_path / "plain.npy", markov(1, 300, 60))
    np.save(tmp_path / "phrases.npy", markov(1, 300, 60, phrase=6))
    plain, phrases = (found(tmp_path / f"{name}.npy") for name in ("plain", "phrases"))
    assert plain.chance[2] > 0 and plain.value[2] == pytest.approx(plain.chance[2], rel=0.25)
    assert phrases.lo[2] > 10 * phrases.chance[2] and phrases.lo[4] > 0.14 > 20 * phrases.chance[4]


def test_what_is_drawn_has_the_bigrams_of_the_text_and_no_others():
    text = np.array([1, 2, 1, 2, 3, 7, 7, 5], dtype=np.uint64)
    starts = np.array([0, 5, 7])
    drawn = drawn_from_bigrams(np.tile(text, 40), (starts + 8 * np.arange(40)[:, None]).ravel(), seed=0)
    rows = [row for part in drawn.reshape(40, 8) for row in (part[:5], part[5:7], part[7:])]
    assert {int(row[0]) for row in rows} == {1, 5, 7}
    follows = {(int(a), int(b)) for row in rows for a, b in pairwise(row)}
    inside = {(a, b) for a, b in follows if a not in (3, 5)}
    assert inside == {(1, 2), (2, 1), (2, 3), (7, 7)}
    assert {b for a, b in follows if a in (3, 5)} <= {1, 2, 3, 5, 7}, (
        "after what nothing follows, anything does"
    )


@pytest.mark.parametrize("batch_tokens", [16_384, 40_000])
def test_a_sample_is_the_same_wherever_the_corpus_is_cut(monkeypatch, batch_tokens):
    tokens = markov(2, 3000, 30, phrase=4).ravel().astype(np.uint64)
    rows = np.repeat(np.arange(3000), 30)

    def measured() -> tuple[list[tuple[float, ...]], str]:
        windower = Windower(30, 16_380, by_document=True)
        measure = InductionSignal(seed=1, resampled="documents", max_tokens=12_000)
        for batch in (*windower.feed(tokens, rows), *windower.flush()):
            measure.add(batch)
        numbers = [(*one.interval, one.chance, one.n) for one in measure.numbers()]
        return numbers, measure.note

    whole = measured()
    assert whole[1] == "induction_signal is from a sample of 400 of 3,000 windows"
    monkeypatch.setattr("byrote.probes.text.windows.BATCH_TOKENS", batch_tokens)
    assert measured() == whole


def test_a_note_says_that_a_sample_was_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("byrote.probes.text.corpus.InductionSignal", partial(InductionSignal, max_tokens=500))
    path = write(tmp_path, [" ".join(words) for words in documents(1)])
    report = measure_text([path], TextSettings(measures=("induction_signal",)))
    assert any("induction_signal is from a sample of" in note for note in report.notes)


def test_the_lab_audits_its_data_by_the_same_definition(tmp_path):
    wide = Names(n_ctx=24).draw(seed=1, stream="train", index=0, n=256).wide
    np.save(tmp_path / "x.npy", wide[:, 1:])
    facts = ngram_facts(wide)
    settings = TextSettings(measures=("inducible", "induction_signal"))
    frame = measure_text([tmp_path / "x.npy"], settings).frame
    values = frame[(frame.n_gram == 2) & (frame.metric == "share")].set_index("measure").value
    assert values["induction_signal"] == pytest.approx(facts["induction_signal_frac"])
    assert values["inducible"] == pytest.approx(facts["inducible_frac"])
    assert 0 < facts["induction_signal_frac"] < facts["inducible_frac"]
