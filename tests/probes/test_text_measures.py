"""Every measure of a corpus on texts small enough to do by hand, against plain Python, and at its null."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.ngrams import entropy_nats, hashes, mix, top_mass
from byrote.checkpoints.texts import Chunk
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.concentration import BUCKETS, kl_nats
from byrote.probes.text.near_duplicates import _PROBES, BINS, SHINGLE, NearDuplicates, clusters, signatures
from byrote.probes.text.tail_mass import Rare, Table, _coverage, sampling_error
from byrote.probes.text.windows import Windower, encoder

RNG = np.random.default_rng(0)


def write(folder: Path, name: str, *documents: str) -> Path:
    path = folder / name
    path.write_text("<|endoftext|>".join(documents))
    return path


def random_text(n: int, vocabulary: int, seed: int) -> str:
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).integers(vocabulary, size=n))


def row(frame: pd.DataFrame, measure: str, metric: str, n: int | None = None, corpus: str = "") -> pd.Series:
    found = frame[(frame.measure == measure) & (frame.metric == metric)]
    found = found[found.n_gram == n] if n is not None else found
    found = found[found.corpus == corpus] if corpus else found
    assert len(found) == 1, found
    return found.iloc[0]


def value(frame: pd.DataFrame, *what: object) -> float:
    return float(row(frame, *what).value)


@pytest.fixture
def by_hand(tmp_path):
    """a b c a b c a b d, one window of nine words."""
    return measure_text([write(tmp_path, "x.txt", "a b c a b c a b d")], TextSettings(context=9)).frame


def test_inducible_by_hand(by_hand):
    """Bigrams seen again: ab bc ca ab, 4 of 9 words. Their first word was there before 5 times, bd is the miss.
    Trigrams seen again: abc bca cab, 3 of 9; their first two words were there before 4 times.
    """
    assert value(by_hand, "inducible", "share", 2) == pytest.approx(4 / 9)
    assert value(by_hand, "inducible", "hit_rate", 2) == pytest.approx(4 / 5)
    assert value(by_hand, "inducible", "share", 3) == pytest.approx(3 / 9)
    assert value(by_hand, "inducible", "hit_rate", 3) == pytest.approx(3 / 4)
    assert value(by_hand, "inducible", "share", 6) == 0  # no 6-gram comes twice
    assert row(by_hand, "inducible", "share", 2).reason == "no interval from 1 window"


def test_rep_by_hand(by_hand):
    """8 bigrams, 4 seen before; 7 trigrams, 3 seen before; 6 4-grams, abca and bcab seen before; 5 words of 9 occurred
    before; every word but d is in a bigram that comes twice.
    """
    assert value(by_hand, "rep", "rep_n", 2) == pytest.approx(4 / 8)
    assert value(by_hand, "rep", "rep_n", 3) == pytest.approx(3 / 7)
    assert value(by_hand, "rep", "rep_n", 4) == pytest.approx(2 / 6)
    assert value(by_hand, "rep", "rep_w") == pytest.approx(5 / 9)
    assert value(by_hand, "rep", "rep_r") == pytest.approx(8 / 9)


def test_rep_w_reaches_16_words_back(tmp_path):
    """`x` comes back after 16 words (counted) and `y` after 17 (not): 1 of 35 words."""
    words = ["x", *(f"a{i}" for i in range(15)), "x", "y", *(f"b{i}" for i in range(16)), "y"]
    frame = measure_text([write(tmp_path, "x.txt", " ".join(words))], TextSettings(context=64)).frame
    assert value(frame, "rep", "rep_w") == pytest.approx(1 / 35)


def test_repeats_look_beyond_the_window(tmp_path):
    """A text said twice: 40 different words in windows of 40 never repeat, in the document half of them do."""
    text = " ".join(f"w{i}" for i in range(40))
    frame = measure_text([write(tmp_path, "x.txt", f"{text} {text}")], TextSettings(context=40)).frame
    assert value(frame, "inducible", "share", 2) == 0
    assert value(frame, "repeats", "share", 1) == pytest.approx(40 / 80)
    assert value(frame, "repeats", "share", 2) == pytest.approx(39 / 79)
    assert value(frame, "repeats", "share", 32) == pytest.approx(9 / 49)


def test_shares_are_pooled_over_documents_and_repeats_stay_inside_them(tmp_path):
    """a b a b has 1 of 3 bigrams seen before; a b c d e none of 4; together 1 of 7."""
    path = write(tmp_path, "x.txt", "a b a b", "a b c d e")
    frame = measure_text([path], TextSettings(context=16)).frame
    assert value(frame, "rep", "rep_n", 2) == pytest.approx(1 / 7)
    assert value(frame, "inducible", "share", 2) == pytest.approx(1 / 9)


def test_random_text_is_at_its_null(tmp_path):
    """Words drawn independently are as their shuffle: the interval of every share holds its chance level."""
    path = write(tmp_path, "x.txt", *(random_text(400, 60, seed) for seed in range(64)))
    frame = measure_text([path], TextSettings(context=200)).frame
    checked = frame[frame.measure.isin(["inducible", "rep", "repeats"]) & (frame.value > 1e-4)]
    assert len(checked) >= 9
    outside = checked[(checked.chance < checked.lo) | (checked.chance > checked.hi)]
    assert len(outside) <= 2, outside  # the null is one draw itself
    assert (checked.n == 64).all()


def test_null_level_of_bigrams_is_the_birthday_one(tmp_path):
    """In 200 words of 60, a bigram is new with probability (1 - 1/3600)^(bigrams before): mean 1 - 0.973 over a window."""
    path = write(tmp_path, "x.txt", *(random_text(200, 60, seed) for seed in range(64)))
    found = row(measure_text([path], TextSettings(context=200)).frame, "rep", "rep_n", 2)
    expected = 1 - np.mean((1 - 1 / 3600) ** np.arange(199))
    assert found.lo < expected < found.hi
    assert found.chance == pytest.approx(expected, rel=0.06)


def test_copied_text_is_far_above_its_null(tmp_path):
    block = random_text(50, 1000, 3)
    path = write(tmp_path, "x.txt", *(f"{block} {block}" for _ in range(10)))
    found = row(measure_text([path], TextSettings(context=100)).frame, "inducible", "share", 7)
    assert found.value == pytest.approx(
        44 / 100
    )  # of the second 50 words, the first 6 have no full 7-gram yet
    assert found.chance < 0.001


def test_entropy_and_top_mass_by_hand():
    counts = np.asarray([1, 1, 2, 0])
    assert float(entropy_nats(counts)) == pytest.approx(0.5 * np.log(4) + 0.5 * np.log(2))
    assert float(top_mass(counts)) == 0.5
    assert float(entropy_nats(np.ones(BUCKETS))) == pytest.approx(np.log(BUCKETS))


def test_divergence_by_hand():
    """Counts 3, 1 and 1, 1 with 1 added: p = 4/6, 2/6 and q = 1/2, 1/2."""
    expected = 4 / 6 * np.log(4 / 3) + 2 / 6 * np.log(2 / 3)
    assert float(kl_nats(np.asarray([3, 1]), np.asarray([1, 1]))) == pytest.approx(expected)
    assert float(kl_nats(np.asarray([5, 2]), np.asarray([5, 2]))) == 0


def test_concentration_counts_unigrams_and_bigrams(tmp_path):
    """a a a b: a three times, b, aa twice, ab: shares 3, 1, 2, 1 of 7 in four buckets."""
    frame = measure_text([write(tmp_path, "x.txt", "a a a b")]).frame
    p = np.asarray([3, 1, 2, 1]) / 7
    assert value(frame, "concentration", "entropy") == pytest.approx(-(p * np.log(p)).sum())
    assert row(frame, "concentration", "entropy").chance == pytest.approx(np.log(BUCKETS))


def test_weights_of_documents_are_sums_of_log_ratios(tmp_path):
    """Words a and b, one per document: two buckets. Reference 3 a and 9 b, corpus 9 a and 3 b, 1 added to each bucket
    of 10,000: a weighs ln(4 / 10), b ln(10 / 4).
    """
    human = write(tmp_path, "human.txt", *"abbb" * 3)
    corpus = write(tmp_path, "x.txt", *"aaab" * 3)
    frame = measure_text([corpus], TextSettings(measures=("concentration",)), reference=human).frame
    a, b = np.log(4 / 10), np.log(10 / 4)
    for metric, expected in (("mean", (9 * a + 3 * b) / 12), ("p05", a), ("p50", a), ("p95", b)):
        found = row(frame, "concentration", f"log_weight_{metric}", None, "x.txt")
        assert found.value == pytest.approx(expected)
        assert found.lo <= found.value <= found.hi


def _buckets(grams: set[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Which bucket each n-gram falls in, asked of texts that hold one n-gram each."""
    found = {}
    for length in (1, 2):
        alone = [gram for gram in grams if len(gram) == length]
        parts = [" ".join(gram).encode() for gram in alone]
        with encoder("words", None) as encode:
            codes, _ = encode(Chunk(parts, list(range(len(parts)))))
        ((_, _, hashed),) = hashes(codes, length * np.arange(len(parts)), (length,))
        found |= dict(zip(alone, (hashed % BUCKETS).astype(int).tolist(), strict=True))
    return found


def test_concentration_equals_plain_python(tmp_path):
    """Two corpora of 40 documents, thousands of different n-grams: entropy, mass of the fullest, divergence and every
    document's weight from counters and sums over single n-grams.
    """
    rng = np.random.default_rng(8)
    made = {
        name: [[f"w{i}" for i in rng.zipf(a, size=n) % 2000] for n in rng.integers(2, 200, size=40)]
        for name, a in (("human.txt", 1.2), ("x.txt", 1.5))
    }
    human, corpus = (write(tmp_path, name, *map(" ".join, documents)) for name, documents in made.items())
    frame = measure_text([corpus], TextSettings(measures=("concentration",)), reference=human).frame
    grams = {
        name: [[*zip(words), *pairwise(words)] for words in documents] for name, documents in made.items()
    }
    bucket = _buckets({gram for rows in grams.values() for row in rows for gram in row})
    assert len(bucket) > 3000 > len(bucket) - len(set(bucket.values()))  # some share a bucket
    counts = {name: Counter(bucket[gram] for row in rows for gram in row) for name, rows in grams.items()}
    p, q = counts["x.txt"], counts["human.txt"]
    shares = np.asarray(sorted(p.values(), reverse=True)) / p.total()
    assert value(frame, "concentration", "entropy", None, "x.txt") == pytest.approx(
        -(shares * np.log(shares)).sum()
    )
    assert value(frame, "concentration", "top_1pct_mass", None, "x.txt") == pytest.approx(shares[:100].sum())
    ln_p, ln_q = (
        {i: np.log((one[i] + 1) / (one.total() + BUCKETS)) for i in range(BUCKETS)} for one in (p, q)
    )
    divergence = sum(np.exp(ln_p[i]) * (ln_p[i] - ln_q[i]) for i in range(BUCKETS))
    assert value(frame, "concentration", "kl_to_reference") == pytest.approx(divergence)
    weights = [sum(ln_q[bucket[g]] - ln_p[bucket[g]] for g in row) for row in grams["x.txt"]]
    each = [weight / len(row) for weight, row in zip(weights, grams["x.txt"], strict=True)]
    assert value(frame, "concentration", "log_weight_mean") == pytest.approx(np.mean(weights))
    assert value(frame, "concentration", "log_weight_p05") == pytest.approx(np.percentile(weights, 5))
    assert value(frame, "concentration", "log_weight_p95") == pytest.approx(np.percentile(weights, 95))
    assert value(frame, "concentration", "log_weight_per_ngram_mean") == pytest.approx(np.mean(each))


def test_divergence_between_samples_of_one_source_is_near_its_chance(tmp_path):
    a = write(tmp_path, "a.txt", *(random_text(300, 40, seed) for seed in range(40)))
    b = write(tmp_path, "b.txt", *(random_text(300, 40, seed + 100) for seed in range(40)))
    c = write(tmp_path, "c.txt", *(random_text(300, 20, seed + 200) for seed in range(40)))
    frame = measure_text([b, c], TextSettings(measures=("concentration",)), reference=a).frame
    same, other = (row(frame, "concentration", "kl_to_reference", None, name) for name in ("b.txt", "c.txt"))
    assert same.value < 2 * same.chance
    assert other.lo > 5 * other.chance


def _batch(*documents: np.ndarray):
    windower = Windower(512, 16384, by_document=True)
    tokens = np.concatenate(documents).astype(np.uint64)
    of = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    (batch,) = [*windower.feed(tokens, of), *windower.flush()]
    return batch


def test_signatures_estimate_the_jaccard_similarity():
    """Sets that share a known part: 128 bins, so the estimate is within 4 standard deviations of the truth."""
    for share in (0.3, 0.6, 0.9):
        a = RNG.integers(1 << 40, size=1000)
        b = np.concatenate([a[: int(1000 * share)], RNG.integers(1 << 40, size=1000 - int(1000 * share))])
        truth = len(set(a) & set(b)) / len(set(a) | set(b))
        both = np.concatenate([a, b]).astype(np.uint64)
        ((_, _, codes),) = hashes(both, np.asarray([0]), (1,))
        one, two = signatures(np.repeat([0, 1], 1000), codes)
        assert (one == two).mean() == pytest.approx(truth, abs=4 * (truth * (1 - truth) / 128) ** 0.5)


def test_near_duplicates_by_hand():
    """20 different documents of 300 tokens, a copy of the first, and the second with one token changed: its set of
    5-grams keeps 291 of 296, Jaccard 291 / 301. Two clusters of two among 22: 4/22 clustered, 2/22 redundant.
    """
    documents = [RNG.integers(1 << 30, size=300) for _ in range(20)]
    changed = documents[1].copy()
    changed[150] += 1
    measure = NearDuplicates(seed=0, by_document=True)
    measure.add(_batch(*documents, documents[0], changed))
    clustered, redundant = measure.numbers()
    assert (clustered.value, redundant.value) == (pytest.approx(4 / 22), pytest.approx(2 / 22))
    assert clustered.n == 22
    assert clustered.interval[1] <= 4 / 22 <= clustered.interval[2]
    assert measure.note == "largest near-duplicate cluster: 2 documents"


def test_documents_that_only_share_words_are_no_duplicates():
    """Jaccard 0.5 (two thirds of the 5-grams shared) stays below the threshold of 0.8."""
    base = RNG.integers(1 << 30, size=304)
    found = []
    for _ in range(40):
        other = base.copy()
        other[-100:] = RNG.integers(1 << 30, size=100)
        found.append(other)
    batch = _batch(*found)
    ((_, ends, codes),) = hashes(batch.tokens, batch.pieces, (SHINGLE,))
    assert len(np.unique(clusters(signatures(ends // 304, codes)))) == 40


def test_more_documents_than_fit_are_sampled_with_their_copies():
    documents = [RNG.integers(1 << 30, size=40) for _ in range(600)]
    measure = NearDuplicates(seed=0, by_document=True, max_documents=400)
    measure.add(_batch(*(d for one in documents for d in (one, one))))
    clustered, redundant = measure.numbers()
    assert clustered.n < 400
    assert (clustered.value, redundant.value) == (1.0, 0.5)
    assert "from a sample of" in measure.note


@pytest.mark.parametrize(("counts", "rare"), [([1, 1, 2, 16], 1), ([1, 9, 10], 9), ([1] * 10, 1), ([5], 5)])
def test_rare_is_at_least_a_tenth_of_all(counts, rare):
    """Of 20, a tenth is 2: two singletons are enough; one singleton of 20 is not, so the count of 9 joins it."""
    table = Table()
    table.add(np.repeat(np.arange(len(counts), dtype=np.uint64) << np.uint64(45), counts))
    found = Rare.of(table)
    assert found.max_count == rare
    assert len(found.keys) == sum(count <= rare for count in counts)


def test_a_table_that_is_full_keeps_a_sample_with_right_counts():
    codes = RNG.integers(1 << 62, size=1000, dtype=np.int64).astype(np.uint64)
    table = Table(limit=100)
    for part in np.array_split(np.repeat(codes, 3), 7):
        table.add(part)
    assert 0 < len(table.keys) <= 100
    assert set(table.keys) <= set(codes)
    assert (table.counts == 3).all()
    assert table.total == 3000


def test_coverage_by_hand():
    """Rare n-grams seen 0, 1 and 2 times among 10; drawing half: 0, 1/2 and 3/4, mean 5/12."""
    assert _coverage(np.asarray([0, 1, 2, 7]), 5.0) == pytest.approx(5 / 12)


def test_tail_mass_equals_plain_python(tmp_path):
    rng = np.random.default_rng(5)
    documents = [" ".join(f"w{i}" for i in rng.zipf(1.5, size=120) % 300) for _ in range(30)]
    other = [" ".join(f"w{i}" for i in rng.zipf(2.0, size=100) % 300) for _ in range(30)]
    human, corpus = write(tmp_path, "human.txt", *documents), write(tmp_path, "x.txt", *other)
    frame = measure_text([corpus], TextSettings(measures=("tail_mass",)), reference=human).frame
    for n in (1, 2, 3):
        first, second, text = (_grams(part, n) for part in (documents[0::2], documents[1::2], other))
        by_count = Counter(first.values())
        running, limit = 0, 0
        while running < 0.1 * first.total():
            limit += 1
            running += limit * by_count[limit]
        rare = {gram for gram, count in first.items() if count <= limit}
        mass, held_out = (sum(c for g, c in grams.items() if g in rare) for grams in (text, second))
        found = row(frame, "tail_mass", "mass", n, "x.txt")
        assert found.value == pytest.approx(mass / text.total())
        assert found.chance == pytest.approx(held_out / second.total())
        survival = row(frame, "tail_mass", "survival", n)
        assert survival.value == pytest.approx(mass / text.total() / (held_out / second.total()))
        assert survival.lo < survival.value < survival.hi
        drawn = 0.5 * min(text.total(), second.total())
        covered = [1 - (1 - drawn / text.total()) ** text[gram] for gram in rare]
        coverage = row(frame, "tail_mass", "coverage", n, "x.txt")
        assert coverage.value == pytest.approx(np.mean(covered))
        assert coverage.lo < coverage.value < coverage.hi


def test_tail_of_another_sample_of_the_same_source_survives(tmp_path):
    def sample(seed: int, tail: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [" ".join(f"w{i}" for i in rng.zipf(1.3, size=300) % tail) for _ in range(120)]

    human, same, cut = (
        write(tmp_path, name, *sample(*how))
        for name, how in {"human.txt": (1, 5000), "same.txt": (2, 5000), "cut.txt": (3, 200)}.items()
    )
    frame = measure_text([same, cut], TextSettings(measures=("tail_mass",)), reference=human).frame
    found = row(frame, "tail_mass", "survival", 1, "same.txt")
    assert found.lo < 1 < found.hi
    assert row(frame, "tail_mass", "survival", 1, "cut.txt").hi < 0.5
    assert row(frame, "tail_mass", "coverage", 1, "cut.txt").hi < 0.5 * found.chance


def test_the_example_without_corpora_shows_what_narrow_sampling_does(tmp_path, monkeypatch):
    """The example of docs/text.md: the same law again is at chance, at temperature 0.7 its tail is lost."""
    page = (Path(__file__).parents[2] / "docs" / "text.md").read_text()
    (code,) = (part for part in page.split("```python\n") if "temperature" in part.split("```")[0])
    monkeypatch.chdir(tmp_path)
    exec(compile(code.split("```")[0], "docs/text.md", "exec"), {})
    frame = measure_text(["again.txt", "synthetic.txt"], reference="human.txt").frame
    for metric in ("survival", "coverage"):
        again, narrow = (row(frame, "tail_mass", metric, 1, f"{name}.txt") for name in ("again", "synthetic"))
        assert again.lo < again.chance < again.hi
        assert narrow.hi < 0.7 * narrow.chance
    again, narrow = (row(frame, "inducible", "share", 2, f"{name}.txt") for name in ("again", "synthetic"))
    assert narrow.lo > 2 * again.hi
    again, narrow = (
        row(frame, "concentration", "entropy", None, f"{name}.txt") for name in ("again", "synthetic")
    )
    assert narrow.hi < again.lo


def _grams(documents: list[str], n: int) -> Counter:
    split = [text.split() for text in documents]
    return Counter(tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1))


def test_the_error_of_sampled_ngrams_is_that_of_many_draws():
    """One kind in 4, drawn 4,000 times from 600 kinds with counts of 1 to 3: the total scaled up varies as predicted."""
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 4, size=600)
    kept = rng.random((4000, 600)) < 0.25
    totals = 4 * kept @ counts
    predicted = [sampling_error(counts[one], 2) for one in kept[:200]]
    assert totals.mean() == pytest.approx(counts.sum(), rel=0.01)
    assert np.mean(predicted) == pytest.approx(totals.std() / counts.sum(), rel=0.05)
    assert sampling_error(counts, 0) == 0


def test_a_sample_of_rare_ngrams_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("byrote.probes.text.tail_mass.MAX_RARE", 50)
    human, corpus = (
        write(tmp_path, name, *(random_text(200, 3000, seed) for seed in range(start, start + 10)))
        for name, start in (("human.txt", 0), ("x.txt", 50))
    )
    notes = measure_text([corpus], TextSettings(measures=("tail_mass",)), reference=human).notes
    said = [note for note in notes if note.startswith("x.txt: tail_mass n=1: 1 in ")]
    assert len(said) == 1
    assert "standard error of" in said[0]


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_short_documents_that_share_half_are_no_duplicates(shared):
    """Of 4 shingles each, 1 to 3 in common (J = 1/7, 1/3, 3/5): at most 1 pair in 100 is estimated at 0.8, and the mean is J."""
    rng = np.random.default_rng(shared)
    codes = mix(rng.integers(1 << 62, size=2400).astype(np.uint64)).reshape(300, 2, 4)
    codes[:, 1, :shared] = codes[:, 0, :shared]
    found = signatures(np.repeat(np.arange(600), 4), codes.reshape(-1)).reshape(300, 2, -1)
    alike = (found[:, 0] == found[:, 1]).mean(1)
    assert alike.mean() == pytest.approx(shared / (8 - shared), abs=0.02)
    assert (alike >= 0.8).mean() <= 0.01


def test_empty_bins_are_filled_the_same_whether_few_or_many_are_full(monkeypatch):
    """Two ways to find the first full bin in the order of asking, and the plain loop."""
    rng = np.random.default_rng(4)
    sizes = np.asarray([1, 2, 5, 20, 32, 40, 90, 200])
    codes = mix(rng.integers(1 << 62, size=sizes.sum()).astype(np.uint64))
    sequence = np.repeat(np.arange(len(sizes)), sizes)
    made = []
    for limit in (0, 32, BINS):
        monkeypatch.setattr("byrote.probes.text.near_duplicates._FEW_BINS", limit)
        made.append(signatures(sequence, codes))
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()
    for i in range(len(sizes)):
        smallest: dict[int, int] = {}
        for code in codes[sequence == i].tolist():
            value = (code >> 20) & 0x7FFFFFFF
            smallest[code >> 57] = min(value, smallest.get(code >> 57, value))
        expected = [
            smallest[next(b for b in [one, *_PROBES[one].tolist()] if b in smallest)] for one in range(BINS)
        ]
        assert made[0][i].tolist() == expected


def test_every_number_has_an_interval_or_a_reason(tmp_path):
    human = write(tmp_path, "human.txt", *(random_text(60, 30, seed) for seed in range(12)))
    short = write(tmp_path, "short.txt", "one two")
    report = measure_text([short], reference=human)
    frame = report.frame
    silent = frame[frame.value.isna() | frame.lo.isna() | frame.hi.isna()]
    assert (silent.reason != "").all()
    assert (frame[frame.lo.notna()].reason == "").all()
    assert "the text has no 3-grams" in set(frame.reason)
    assert report.incomplete
    assert (frame.lo.isna() | ((frame.lo <= frame.value) & (frame.value <= frame.hi))).all()


def test_values_of_fractions_are_fractions(tmp_path):
    human = write(tmp_path, "human.txt", *(random_text(200, 30, seed) for seed in range(12)))
    frame = measure_text([human]).frame
    fractions = frame[frame.unit == "fraction"]
    assert len(fractions) > 15
    assert fractions.value.dropna().between(0, 1).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units": "letters"}, "there is no units 'letters'"),
        ({"measures": ("induction",)}, "there is no measure 'induction'"),
        ({"windows": "all"}, "there is no windows 'all'"),
        ({"context": 4}, "a context of 4 tokens"),
        ({"units": "tokens"}, "no tokenizer"),
        ({"sample": 2}, "a sample of 2"),
        ({"separators": ("*",)}, "a separator needs text"),
        ({"separators": ()}, "a separator needs text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ByroteError, match=words):
        TextSettings(**changes)


@pytest.mark.parametrize("measure", ["tail_mass", "perplexity"])
def test_a_measure_says_what_it_needs(tmp_path, measure):
    with pytest.raises(ByroteError, match=f"{measure} needs a"):
        measure_text([write(tmp_path, "x.txt", "a b")], TextSettings(measures=(measure,)))
