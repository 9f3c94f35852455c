"""Likeness of documents against exact Jaccard similarities, and the synthetic share of mixtures whose share is known."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.ngrams import mix
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.concentration import BUCKETS
from byrote.probes.text.density import COLUMNS, ROWS, among_others, columns_of
from byrote.probes.text.synthetic_share import scores_of, separation, share

RNG = np.random.default_rng(4)


def test_density_is_the_mean_jaccard_similarity_to_the_others():
    pool = mix(np.arange(400, dtype=np.uint64))
    sets = [RNG.choice(400, size=RNG.integers(60, 200), replace=False) for _ in range(40)]
    columns = np.stack([columns_of(pool[one]) for one in sets])
    assert columns.shape == (40, ROWS) and columns.max() < COLUMNS
    table = np.stack([np.bincount(row, minlength=COLUMNS) for row in columns.T])
    exact = np.array([[len(np.intersect1d(a, b)) / len(np.union1d(a, b)) for b in sets] for a in sets])
    expected = (exact.sum(1) - 1) / 39
    found = among_others(table, columns)
    assert np.abs(found - expected).max() < 0.012 and abs(found.mean() - expected.mean()) < 0.004
    assert np.corrcoef(found, expected)[0, 1] > 0.95


def test_disjoint_documents_have_no_density_and_equal_ones_have_all():
    apart = np.stack([columns_of(mix(np.arange(100 * i, 100 * i + 90, dtype=np.uint64))) for i in range(30)])
    table = np.stack([np.bincount(row, minlength=COLUMNS) for row in apart.T])
    assert abs(among_others(table, apart).mean()) < 1e-4  # accidents in 20,000 columns are taken off
    same = np.repeat(apart[:1], 30, axis=0)
    table = np.stack([np.bincount(row, minlength=COLUMNS) for row in same.T])
    np.testing.assert_allclose(among_others(table, same), 1)


def documents(n: int, words: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Documents of 60 words of one source, as buckets."""
    return list(rng.choice(BUCKETS, p=words, size=(n, 60)))


def sources(rng: np.random.Generator, distance: float) -> tuple[np.ndarray, np.ndarray]:
    human = rng.gamma(0.3, size=BUCKETS) + 1e-9
    synthetic = human * np.exp(distance * rng.normal(size=BUCKETS))
    return human / human.sum(), synthetic / synthetic.sum()


@pytest.mark.parametrize("truth", [0.0, 0.3, 0.9])
def test_the_share_of_a_mixture_is_found(truth):
    """In 20 mixtures of 80 documents: no bias beyond the cut at 0, and intervals that hold the truth."""
    rng = np.random.default_rng(int(10 * truth))
    human, synthetic = sources(rng, 0.7)
    known = documents(200, human, rng), documents(200, synthetic, rng)
    values, held = [], 0
    for seed in range(20):
        n = rng.binomial(80, truth)
        mixture = documents(80 - n, human, rng) + documents(n, synthetic, rng)
        value, lo, hi = share(*scores_of(mixture, *known), seed=seed)
        values.append(value)
        held += lo <= truth <= hi
    assert abs(np.mean(values) - truth) < 0.05
    assert held >= 17


def test_sources_that_are_one_give_no_estimate():
    rng = np.random.default_rng(1)
    human, _ = sources(rng, 0)
    found = scores_of(*(documents(60, human, rng) for _ in range(3)))
    assert np.isnan(share(*found, seed=0)).all()
    value, lo, hi = separation(found[2], found[1], seed=0)
    assert lo < 0.5 < hi and abs(value - 0.5) < 0.2


def text(path, n: int, words: str, seed: int):
    rng = np.random.default_rng(seed)
    vocabulary = np.array(words.split())
    path.write_text("<|endoftext|>".join(" ".join(rng.choice(vocabulary, 40)) for _ in range(n)))
    return path


def test_the_whole_way_from_files(tmp_path):
    people = " ".join(f"w{i}" for i in range(300))
    machine = " ".join(f"w{i}" for i in range(0, 300, 3))  # a third of the words: denser
    human, synthetic = text(tmp_path / "h.txt", 60, people, 0), text(tmp_path / "s.txt", 60, machine, 1)
    mixture = tmp_path / "m.txt"
    parts = [text(tmp_path / "a.txt", 30, people, 2), text(tmp_path / "b.txt", 10, machine, 3)]
    mixture.write_text("<|endoftext|>".join(part.read_text() for part in parts))
    settings = TextSettings(context=40, measures=("synthetic_share", "density"))
    report = measure_text([mixture], settings, reference=human, synthetic=synthetic)
    assert not report.incomplete
    frame = report.frame.set_index(["corpus", "measure", "metric"])
    found = frame.loc[("m.txt", "synthetic_share", "share")]
    assert found["lo"] < 0.25 < found["hi"] and found["hi"] - found["lo"] < 0.5 and found["n"] == 40
    assert frame.loc[("s.txt", "density", "mean"), "lo"] > 2 * frame.loc[("h.txt", "density", "mean"), "hi"]
    across = frame.loc[("s.txt", "density", "to_reference")]
    assert across["value"] > 0 and across["chance"] == frame.loc[("h.txt", "density", "mean"), "value"]
    assert report.meta["synthetic"] == "s.txt"


def test_a_mixture_needs_both_of_its_sources(tmp_path):
    one, two = text(tmp_path / "h.txt", 20, "a b c", 0), text(tmp_path / "s.txt", 20, "a b", 1)
    with pytest.raises(ByroteError, match="synthetic_share needs a reference"):
        measure_text([one], synthetic=two)
    with pytest.raises(ByroteError, match="are the sources themselves, and no mixture"):
        measure_text([two], reference=one, synthetic=two)
    with pytest.raises(ByroteError, match="needs a synthetic corpus"):
        measure_text([one], TextSettings(measures=("synthetic_share",)), reference=two)
