"""Sources of the lab: their exact floors against enumeration, the promises about their streams, and what they refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.sources import SOURCES, Names, Source, SourceConfig, source_named, source_of
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.mentions import names_table
from byrote.checkpoints.lab.sources.tiling import first_block_probability

TINY_NAMES = Names(
    d_vocab=4, n_ctx=5, successors=2, phrase_min=1, phrase_max=3, start_frac=0.3, bos_token_id=2
)
TINY_TILED = SourceConfig(
    d_vocab=4, n_ctx=6, block_min=2, block_max=3, bigram_frac=0.6, bigram_successors=1, bos_token_id=1
)


def every_sequence(source: Source) -> np.ndarray:
    """All sequences of a tiny vocabulary."""
    ids = [i for i in range(source.d_vocab) if i != source.bos_token_id]
    return np.array([(source.bos_token_id, *row) for row in itertools.product(ids, repeat=source.n_ctx)])


def names_by_enumeration(source: Names, row: np.ndarray) -> float:
    """P(row), every phrase of every length tried, with the probability of each place in it."""
    ids = [i for i in range(source.d_vocab) if i != source.bos_token_id]
    table, total = names_table(source).probability, 0.0
    lengths = range(source.phrase_min, source.phrase_max + 1)
    for length in lengths:
        for phrase in itertools.product(ids, repeat=length):
            at = {0: 1.0}  # tokens of an unfinished mention that are behind us -> probability
            for before, token in itertools.pairwise(row):
                after: dict[int, float] = {}
                for place, p in at.items():
                    begins = p * (source.start_frac if place == 0 else 1.0)
                    if phrase[place] == token:
                        following = (place + 1) % length
                        after[following] = after.get(following, 0.0) + begins
                    if place == 0:
                        after[0] = after.get(0, 0.0) + p * (1 - source.start_frac) * table[before, token]
                at = after
            total += sum(at.values()) / len(lengths) / len(ids) ** length
    return total


def tiled_by_enumeration(source: SourceConfig, row: np.ndarray) -> float:
    """P(row), each block length tried."""
    lengths = range(source.block_min, source.block_max + 1)
    probability = first_block_probability(source, row[None])[0]
    return sum(
        float(np.prod(probability[1 : 1 + length]))
        * all(row[t] == row[t - length] for t in range(length + 1, len(row)))
        / len(lengths)
        for length in lengths
    )


@pytest.mark.parametrize(
    ("source", "by_enumeration"), [(TINY_NAMES, names_by_enumeration), (TINY_TILED, tiled_by_enumeration)]
)
def test_the_floor_is_the_probability_of_every_sequence(source: Source, by_enumeration: Callable):
    rows = every_sequence(source)
    expected = np.array([by_enumeration(source, row) for row in rows])
    assert expected.sum() == pytest.approx(1)
    found = source.floor_nll(rows)
    assert np.isnan(found[:, 0]).all()
    possible = expected > 0
    np.testing.assert_allclose(-found[possible, 1:].sum(1), np.log(expected[possible]), rtol=1e-9)
    assert np.isnan(found[~possible]).any(1).all()


def test_sequences_are_drawn_as_often_as_the_floor_says():
    """A chi-squared test of 20,000 sequences against the floor's own probabilities of all 81."""
    source = TINY_NAMES
    drawn = source.draw(seed=0, stream="train", index=0, n=20_000).wide[:, :-1]
    rows = every_sequence(source)[::3]  # of the last token's three values, one each
    codes, counts = np.unique(drawn @ 4 ** np.arange(drawn.shape[1]), return_counts=True)
    expected = np.exp(-source.floor_nll(rows[:, :-1])[:, 1:].sum(1)) * len(drawn)
    found = dict(zip(codes.tolist(), counts.tolist(), strict=True))
    seen = np.array([found.get(code, 0) for code in (rows[:, :-1] @ 4 ** np.arange(drawn.shape[1])).tolist()])
    assert seen.sum() == len(drawn)
    chi2 = ((seen - expected) ** 2 / expected).sum()
    assert chi2 < len(rows) + 5 * np.sqrt(2 * len(rows))


@pytest.mark.parametrize("name", SOURCES)
def test_a_sequence_depends_on_its_index_and_not_on_the_call(name: str):
    source = source_named(name)
    whole = source.draw(seed=3, stream="pool", index=0, n=12)
    part = source.draw(seed=3, stream="pool", index=7, n=3)
    other = source.draw(seed=4, stream="pool", index=0, n=12)
    assert (part.wide == whole.wide[7:10]).all() and (part.mechanism == whole.mechanism[7:10]).all()
    assert not (other.wide == whole.wide).all(1).any()


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_says_what_predicts_each_token(name: str):
    source = source_named(name)
    drawn = source.draw(seed=0, stream="train", index=0, n=200)
    assert drawn.wide.shape == drawn.mechanism.shape == (200, source.n_ctx + 1)
    assert drawn.mechanism.dtype == np.int8
    assert (drawn.wide[:, 0] == source.bos_token_id).all() and (
        drawn.wide[:, 1:] != source.bos_token_id
    ).all()
    assert ((drawn.mechanism == CODES["bos"]) == (np.arange(source.n_ctx + 1) == 0)).all()
    share = np.isin(drawn.mechanism[:, 1:], [CODES["copy"], CODES["in_context"]]).mean()
    assert source.inducible_frac == pytest.approx(share, abs=0.03)
    with pytest.raises(ByroteError, match="did you mean 'held_out'"):
        source.draw(seed=0, stream="heldout", index=0, n=1)


@pytest.mark.parametrize("name", SOURCES)
def test_a_copy_is_nearly_free_and_its_start_is_not(name: str):
    source = source_named(name)
    if source.no_floor:
        pytest.skip(source.no_floor)
    drawn = source.draw(seed=0, stream="train", index=0, n=100)
    floor = source.floor_nll(drawn)
    assert np.isfinite(floor[:, 1:]).all() and (floor[:, 1:] > -1e-9).all()
    by = {
        name: floor[drawn.mechanism == code].mean()
        for name, code in CODES.items()
        if (drawn.mechanism == code).any()
    }
    if "copy" in by:
        assert by["copy"] < 0.15
        assert all(by[other] > 1 for other in by if other in ("copy_start", "first_mention", "free"))


def test_a_mention_repeats_the_phrase_of_its_document():
    source = Names(phrase_min=4, phrase_max=4, start_frac=0.3)
    drawn = source.draw(seed=0, stream="train", index=0, n=50)
    checked = 0
    for row, mechanism in zip(drawn.wide, drawn.mechanism, strict=True):
        first = row[mechanism == CODES["first_mention"]]
        starts = np.flatnonzero(mechanism == CODES["copy_start"])
        for start in starts[starts <= source.n_ctx - 3]:
            assert (row[start : start + 4] == first).all()
            checked += 1
    assert checked > 50


def test_the_floor_of_an_impossible_token_is_no_number():
    source = SourceConfig(d_vocab=10, n_ctx=12, block_min=3, block_max=4)
    rows = np.array([[0, 1, 2, 3, 4, 1, 2, 3, 9], [0, 1, 2, 3, 4, 1, 2, 3, 4], [0, 1, 2, 3, 99, 1, 2, 3, 4]])
    found = source.floor_nll(rows)
    assert np.isfinite(found[1, 1:]).all() and np.isnan(found[0, 8]) and np.isfinite(found[0, 1:8]).all()
    assert np.isnan(found[2]).all()


def test_other_tables_are_other_languages():
    tables = [names_table(Names(table=number)).successors for number in (0, 1)]
    assert (tables[0] != tables[1]).any(1).mean() > 0.5
    assert (names_table(Names()).probability.sum(1) == pytest.approx(1)) and not names_table(
        Names()
    ).probability[:, 0].any()


@pytest.mark.parametrize("name", SOURCES)
def test_a_manifest_gives_its_source_back(name: str):
    source = source_named(name)
    data = {"source": name, **source.__dict__, "n_held_out": 8}
    found = source_of({"data": data})
    assert found == (source if source.redrawn else None)
    for setting, value in (("d_vocab", 1e9), ("n_ctx", True), ("bos_token_id", None), ("d_vocab", 10**9)):
        assert source_of({"data": data | {setting: value}}) is None


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("nmes", {}, "did you mean 'names'"),
        ("names", {"start_fra": 0.1}, "did you mean 'start_frac'"),
        ("names", {"start_frac": "often"}, "is no float"),
        ("names", {"start_frac": 1.5}, "a probability"),
        ("names", {"phrase_max": 31}, "at most 30"),
        ("names", {"phrase_min": 7}, "1 to phrase_max"),
        ("names", {"d_vocab": 1 << 20}, "more than fit in memory"),
    ],
)
def test_a_source_that_cannot_be_is_refused(name: str, settings: dict, said: str):
    with pytest.raises(ByroteError) as refused:
        source_named(name, settings)
    assert said in f"{refused.value.message} {refused.value.help}"


GOLDEN = {"names": [0, 27, 4, 2, 1, 4, 2, 16, 2, 29, 15, 23]}


@pytest.mark.parametrize("name", GOLDEN)
def test_first_tokens_of_a_known_sequence(name: str):
    """A stream must not change between releases: a series is only comparable with its own data."""
    drawn = source_named(name).draw(seed=0, stream="train", index=0, n=1)
    assert drawn.wide[0, :12].tolist() == GOLDEN[name]
