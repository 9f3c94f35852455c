"""Sources of the lab: their exact floors against enumeration, the promises about their streams, and what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from byrote.checkpoints import entry_points
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import sources as lab_sources
from byrote.checkpoints.lab.sources import (
    SOURCES,
    Graded,
    Markov,
    Names,
    Source,
    SourceConfig,
    Text,
    TriggerBigrams,
    source_named,
    source_of,
)
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.sources.facts import table_probability
from byrote.checkpoints.lab.sources.mentions import walk_table
from byrote.checkpoints.lab.sources.text import N_BYTES
from byrote.checkpoints.lab.sources.text_windows import encoded
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
    table, total = walk_table(source).probability, 0.0
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


def graded_by_enumeration(source: Graded, row: np.ndarray) -> float:
    """P(row), every phrase of every length tried for each of the document's two."""
    ids = range(source.n_table_ids, source.d_vocab)
    lengths = range(source.phrase_min, source.phrase_max + 1)
    each = [
        (phrase, 1 / len(lengths) / len(ids) ** length)
        for length in lengths
        for phrase in itertools.product(ids, repeat=length)
    ]
    by_table, total = table_probability(source, row[None])[0], 0.0
    for (one, p_one), (other, p_other) in itertools.product(each, repeat=2):
        at = {
            (0, 0, False): 1.0
        }  # which phrase, tokens of it behind us, whether a mention just ended -> probability
        for token, walks in zip(row[1:], by_table[1:], strict=True):
            after: dict[tuple[int, int, bool], float] = {}
            for (which, place, ended), p in at.items():
                starts = 0.0 if ended else source.start_frac
                options = [(which, p)] if place else [(i, p * starts / 2) for i in range(2)]
                for i, share in options:
                    phrase = (one, other)[i]
                    if phrase[place] == token:
                        done = place + 1 == len(phrase)
                        key = (0, 0, True) if done else (i, place + 1, False)
                        after[key] = after.get(key, 0.0) + share
                if not place:
                    after[0, 0, False] = after.get((0, 0, False), 0.0) + p * (1 - starts) * walks
            at = after
        total += p_one * p_other * sum(at.values())
    return total


def markov_by_enumeration(source: Markov, row: np.ndarray) -> float:
    """P(row) by the Dirichlet-multinomial formula of whole counts, without any order."""
    k, alpha = source.d_vocab - 1, source.concentration
    counts = np.zeros((source.d_vocab, source.d_vocab))
    for before, token in itertools.pairwise(row[1:]):
        counts[before, token] += 1
    total = -math.log(k)
    for left in np.delete(np.delete(counts, source.bos_token_id, 0), source.bos_token_id, 1):
        total += math.lgamma(k * alpha) - math.lgamma(k * alpha + left.sum())
        total += sum(math.lgamma(alpha + c) - math.lgamma(alpha) for c in left)
    return math.exp(total)


def triggers_by_enumeration(source: TriggerBigrams, row: np.ndarray) -> float:
    """P(row), every set of triggers and every follower tried."""
    ids = [i for i in range(source.d_vocab) if i != source.bos_token_id]
    table = walk_table(source).probability
    sets = list(itertools.combinations(ids, source.triggers))
    sets = sets if source.random_triggers else [tuple(ids[: source.triggers])]
    total = 0.0
    for chosen in sets:
        for followers in itertools.product(ids, repeat=source.triggers):
            own = dict(zip(chosen, followers, strict=True))
            p = 1.0
            for before, token in itertools.pairwise(row.tolist()):
                p *= float(own[before] == token) if before in own else table[before, token]
            total += p / len(sets) / len(ids) ** source.triggers
    return total


TINY_GRADED = Graded(
    d_vocab=5, n_ctx=5, n_phrase_ids=2, successors=1, fact_frac=0.3, background_frac=0.2, start_frac=0.4,
    phrase_min=1, phrase_max=2, bos_token_id=1,
)  # fmt: skip
TINY_TRIGGERS = TriggerBigrams(d_vocab=5, n_ctx=5, successors=1, triggers=2, bos_token_id=3)
ENUMERATED = [
    (TINY_NAMES, names_by_enumeration),
    (TINY_TILED, tiled_by_enumeration),
    (TINY_GRADED, graded_by_enumeration),
    (Markov(d_vocab=4, n_ctx=5, concentration=0.5, bos_token_id=2), markov_by_enumeration),
    (TINY_TRIGGERS, triggers_by_enumeration),
    (replace(TINY_TRIGGERS, random_triggers=True), triggers_by_enumeration),
]


@pytest.mark.parametrize(("source", "by_enumeration"), ENUMERATED)
def test_the_floor_is_the_probability_of_every_sequence(source: Source, by_enumeration: Callable):
    rows = every_sequence(source)
    found = source.floor_nll(rows)
    assert np.nansum(np.exp(-found[:, 1:].sum(1))) == pytest.approx(1)
    chosen = slice(None, None, 7 if len(rows) > 1000 else 1)
    rows, found = rows[chosen], found[chosen]
    expected = np.array([by_enumeration(source, row) for row in rows])
    assert np.isnan(found[:, 0]).all()
    possible = expected > 0
    np.testing.assert_allclose(-found[possible, 1:].sum(1), np.log(expected[possible]), rtol=1e-9, atol=1e-12)
    assert np.isnan(found[~possible]).any(1).all()


@pytest.mark.parametrize("source", [source for source, _ in ENUMERATED])
def test_sequences_are_drawn_as_often_as_the_floor_says(source: Source):
    """A chi-squared test of 20,000 sequences' first four tokens against the floor's own probabilities."""
    drawn = source.draw(seed=0, stream="train", index=0, n=20_000).wide[:, :5]
    ids = [i for i in range(source.d_vocab) if i != source.bos_token_id]
    rows = np.array([(source.bos_token_id, *row) for row in itertools.product(ids, repeat=4)])
    expected = np.exp(-source.floor_nll(rows)[:, 1:].sum(1)) * len(drawn)
    expected[np.isnan(expected)] = 0.0
    place = {row.tobytes(): i for i, row in enumerate(rows)}
    found = np.bincount([place[row.tobytes()] for row in drawn], minlength=len(rows))
    assert expected.sum() == pytest.approx(len(drawn)) and not found[expected == 0].any()
    often = expected >= 5
    parts = [
        (found[often], expected[often]),
        (found[~often].sum(keepdims=True), expected[~often].sum(keepdims=True)),
    ]
    chi2 = sum(float(((a - b) ** 2 / np.maximum(b, 1)).sum()) for a, b in parts)
    assert chi2 < often.sum() + 5 * np.sqrt(2 * often.sum())


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
    tables = [walk_table(Names(table=number)).successors for number in (0, 1)]
    assert (tables[0] != tables[1]).any(1).mean() > 0.5
    assert (walk_table(Names()).probability.sum(1) == pytest.approx(1)) and not walk_table(
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
        ("names", {"start_frac": "often"}, "not of type float"),
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


GOLDEN = {
    "names": [0, 27, 4, 2, 1, 4, 2, 16, 2, 29, 15, 23],
    "graded": [0, 54, 107, 100, 100, 9, 46, 33, 14, 123, 120, 113],
    "markov": [0, 3, 4, 4, 4, 4, 4, 1, 2, 3, 1, 1],
    "trigger_bigrams": [0, 13, 35, 2, 22, 11, 6, 1, 35, 8, 2, 22],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_first_tokens_of_a_known_sequence(name: str):
    """A stream must not change between releases: a series is only comparable with its own data."""
    drawn = source_named(name).draw(seed=0, stream="train", index=0, n=1)
    assert drawn.wide[0, :12].tolist() == GOLDEN[name]


# Real text.


def test_text_windows_are_of_the_part_of_their_stream(tmp_path: Path):
    text = bytes(range(97, 123)) * 400
    file = tmp_path / "letters.txt"
    file.write_bytes(text[:-1000] + bytes(range(48, 58)) * 100)
    source = Text(path=str(file), n_ctx=16)
    held_out = source.draw(seed=0, stream="held_out", index=0, n=64).wide[:, 1:]
    train = source.draw(seed=0, stream="train", index=0, n=64).wide[:, 1:]
    assert (held_out < 58).any() and (train >= 97).all()
    assert ((np.diff(train, axis=1) == 1) | (np.diff(train, axis=1) == -25)).all()
    assert source.bos_token_id == 256 and np.isnan(source.floor_nll(train)).all()


def test_a_copy_in_text_is_three_tokens_that_stood_together_before(tmp_path: Path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"abcdXabcdYbcdZ" * 800)
    drawn = Text(path=str(file), n_ctx=14).draw(seed=0, stream="train", index=0, n=200)
    for row, mechanism in zip(drawn.wide.tolist(), drawn.mechanism.tolist(), strict=True):
        for t in range(3, len(row)):
            before = [row[i - 2 : i + 1] for i in range(3, t)]
            assert (mechanism[t] == CODES["copy"]) == (row[t - 2 : t + 1] in before)


def test_bpe_is_trained_in_a_process_of_its_own_and_is_the_same_again(tmp_path: Path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"the cat sat on the mat and the cat sat on the hat, thank you. " * 300)
    source = Text(path=str(file), bpe=300, n_ctx=8)
    ids = encoded(source).ids
    assert source.d_vocab == 301 and ids.max() >= N_BYTES and len(ids) < file.stat().st_size / 2
    digest = source.resolved().digest
    encoded.cache_clear()
    assert source.resolved().digest == digest
    assert source.resolved().path == "text.txt"


def test_text_that_is_not_there_too_short_or_another_is_refused(tmp_path: Path):
    file = tmp_path / "text.txt"
    with pytest.raises(ByroteError, match="cannot be read"):
        Text(path=str(file)).draw(seed=0, stream="train", index=0, n=1)
    file.write_bytes(b"short")
    with pytest.raises(ByroteError, match="too few for windows"):
        Text(path=str(file), n_ctx=8).draw(seed=0, stream="train", index=0, n=1)
    with pytest.raises(ByroteError, match="has other content"):
        Text(path=str(file), digest="0" * 32).draw(seed=0, stream="train", index=0, n=1)
    for settings, said in (({"bpe": 100}, "256 to"), ({"bpe": 300, "tokenizer": "t.json"}, "either bpe")):
        with pytest.raises(ByroteError) as refused:
            Text(**settings)
        assert said in f"{refused.value.message} {refused.value.help}"


# Other packages' sources.


def test_an_installed_package_adds_a_source(monkeypatch: pytest.MonkeyPatch):
    @dataclass(frozen=True)
    class Mine(Names):
        """Names under another name."""

        name: ClassVar[str] = "mine"

    def offering(found: dict) -> None:
        lab_sources.sources.cache_clear()
        monkeypatch.setattr(
            entry_points, "installed", lambda group: found if group == "byrote.sources" else {}
        )

    offering({"mine": Mine})
    assert source_named("mine", {"d_vocab": 40}).d_vocab == 40
    assert isinstance(source_of({"data": {"source": "mine", **Mine().__dict__}}), Mine)
    for found in ({"names": Names}, {"other": Mine}, {"mine": 3}):
        offering(found)
        with pytest.raises(ByroteError, match="is not a source of that name"):
            source_named("tiled_blocks")
    lab_sources.sources.cache_clear()
