"""Stimuli: what is drawn, from which ids, and that the same request always draws the same."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from byrote.checkpoints import ByroteError
from byrote.checkpoints.vocabulary import MAX_VARIANTS, as_ranges, from_ranges, usable_ids, variant_pairs
from byrote.probes.stimuli import CONDITIONS, STIMULI, Stimulus, Vocabulary, block_sizes, make

IDS = np.arange(10, 90)
VOCABULARY = Vocabulary(IDS, 3)
BLOCKS = [kind for kind in STIMULI if kind != "planted_pairs"]


def drawn(kind: str, *, n_ctx: int = 256, seed: int = 0, n_seq: int = 32, vocabulary=VOCABULARY) -> Stimulus:
    return make(kind, vocabulary, n_ctx=n_ctx, seed=seed, n_seq=n_seq)


def blocks(stimulus: Stimulus) -> np.ndarray:
    r, m = stimulus.params["r"], stimulus.params["m"]
    return stimulus.tokens[:, 1:].reshape(stimulus.n, m, r)


@pytest.mark.parametrize("kind", BLOCKS)
def test_shape_first_token_and_ids(kind):
    stimulus = drawn(kind)
    r, m = stimulus.params["r"], stimulus.params["m"]
    assert stimulus.tokens.shape == (16 if kind == "paragraph_copies" else 32, 1 + r * m)
    assert (stimulus.tokens[:, 0] == 3).all()
    assert np.isin(stimulus.tokens[:, 1:], IDS).all()
    assert stimulus.copy_index.shape == stimulus.match_tokens.shape == stimulus.tokens.shape
    assert (stimulus.copy_index[:, 0] == 0).all()
    assert (np.diff(stimulus.copy_index, axis=1) >= 0).all()
    assert (stimulus.kind, stimulus.seed) == (kind, 0)
    assert stimulus.to_json() == {
        "id": stimulus.id,
        "kind": kind,
        "seed": 0,
        "n": stimulus.n,
        **stimulus.params,
    }
    json.dumps(stimulus.to_json())


def test_standard_sizes():
    assert drawn("repeated_random").params == {"r": 25, "m": 4, "n_ids": 80, "bos": 3}
    assert drawn("paragraph_copies", n_ctx=512).params["r"] == 40
    assert drawn("paragraph_copies", n_ctx=512).params["m"] == 11


@pytest.mark.parametrize("kind", ["repeated_random", "paragraph_copies"])
def test_blocks_are_equal_and_their_tokens_distinct(kind):
    stimulus = drawn(kind)
    found = blocks(stimulus)
    assert (found == found[:, :1]).all()
    assert all(len(set(row)) == len(row) for row in found[:, 0].tolist())
    assert (stimulus.match_tokens == stimulus.tokens).all()
    r = stimulus.params["r"]
    assert (stimulus.copy_index[:, 1:] == np.arange(stimulus.tokens.shape[1] - 1) // r + 1).all()


def test_shuffled_null_keeps_the_first_block_and_draws_the_later_ones_anew():
    repeated, null = drawn("repeated_random"), drawn("shuffled_repeat")
    assert null.params == repeated.params
    first, later = blocks(null)[:, 0], blocks(null)[:, 1:]
    assert (first == blocks(repeated)[:, 0]).all()
    assert all(len(set(row)) == len(row) for block in later for row in block.tolist())
    # 25 of 80 ids at random: a position agrees with the repeat once in 80.
    assert (later == blocks(repeated)[:, 1:]).mean() == pytest.approx(1 / 80, abs=0.01)
    assert (null.match_tokens == repeated.tokens).all()


def test_jittered_blocks_have_lengths_of_their_own():
    stimulus = drawn("jittered_repeat", n_seq=200)
    periods = []
    for row, copy in zip(stimulus.tokens[:, 1:], stimulus.copy_index[:, 1:], strict=True):
        period = int((copy == 1).sum())
        assert (row[period:] == row[:-period]).all()
        assert len(set(row[:period].tolist())) == period
        assert (copy == np.arange(len(row)) // period + 1).all()
        periods.append(period)
    assert (min(periods), max(periods)) == (15, 35)
    assert len(set(periods)) == 21
    assert np.mean(np.array(periods) == 25) < 0.12
    assert stimulus.tokens.shape[1] == drawn("repeated_random").tokens.shape[1]


@pytest.mark.parametrize("kind", STIMULI)
def test_the_same_request_draws_the_same_tokens(kind):
    first, again = drawn(kind), drawn(kind)
    assert first.id == again.id
    assert (first.tokens == again.tokens).all()
    ids = {first.id, drawn(kind, seed=1).id, drawn(kind, n_seq=40).id, drawn(kind, n_ctx=48).id}
    ids.add(drawn(kind, vocabulary=Vocabulary(IDS, 4)).id)
    ids.add(drawn(kind, vocabulary=Vocabulary(IDS[1:], 3)).id)
    assert len(ids) == 6


def test_kinds_of_one_seed_are_drawn_independently():
    firsts = {
        kind: drawn(kind, n_ctx=512).tokens[0, 1:13].tolist() for kind in STIMULI if kind != "shuffled_repeat"
    }
    assert len({tuple(row) for row in firsts.values()}) == 4


def test_every_id_is_as_likely_at_every_place():
    """Sampling without replacement, in random order: ids and positions are independent."""
    found = blocks(drawn("repeated_random", n_seq=4000, vocabulary=Vocabulary(np.arange(40), 99)))[:, 0]
    counts = np.stack([np.bincount(found[:, place], minlength=40) for place in range(25)])
    chi2 = ((counts - 100) ** 2 / 100).sum()  # 25 x 39 degrees of freedom, fewer as rows are dependent
    assert chi2 < 975 + 6 * np.sqrt(2 * 975)


@pytest.mark.parametrize(
    ("n_ctx", "n_ids", "sizes"),
    [
        (1024, 5000, (25, 4)),
        (101, 5000, (25, 4)),
        (100, 5000, (24, 4)),  # repeats of at least 12 tokens: the block gives way
        (49, 5000, (12, 4)),
        (48, 5000, (15, 3)),  # four repeats would be under 12 tokens: one repeat fewer
        (30, 5000, (14, 2)),
        (10, 5000, (4, 2)),
        (5, 5000, (2, 2)),
        (1024, 20, (20, 4)),
        (1024, 2, (2, 4)),
    ],
)
def test_blocks_shrink_to_fit(n_ctx, n_ids, sizes):
    r, m = block_sizes(n_ctx, n_ids)
    assert (r, m) == sizes
    assert 1 + r * m <= n_ctx
    for kind in BLOCKS:
        stimulus = drawn(kind, n_ctx=n_ctx, n_seq=8, vocabulary=Vocabulary(np.arange(1, n_ids + 1), 0))
        assert stimulus.tokens.shape[1] <= n_ctx
        assert f"r{stimulus.params['r']}m{stimulus.params['m']}" in stimulus.id


@pytest.mark.parametrize(("n_ctx", "n_ids"), [(4, 100), (1, 100), (100, 1), (100, 0)])
def test_what_cannot_hold_a_repeat_is_refused(n_ctx, n_ids):
    vocabulary = Vocabulary(np.arange(n_ids), 0)
    for kind in ("repeated_random", "shuffled_repeat", "jittered_repeat"):
        with pytest.raises(ByroteError, match="cannot hold a repeated block"):
            drawn(kind, n_ctx=n_ctx, vocabulary=vocabulary)
    with pytest.raises(ByroteError, match="cannot hold a copied paragraph"):
        drawn("paragraph_copies", n_ctx=n_ctx, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("n_ctx", "p", "copies"),
    [
        (512, 40, 11),
        (441, 40, 11),
        (440, 39, 11),
        (133, 12, 11),
        (132, 13, 10),
        (49, 12, 4),
        (48, 11, 4),
        (33, 8, 4),
        (32, 15, 2),
        (25, 12, 2),
    ],
)
def test_paragraphs_lose_copies_before_they_get_short(n_ctx, p, copies):
    params = drawn("paragraph_copies", n_ctx=n_ctx).params
    assert (params["r"], params["m"]) == (p, copies)


# Planted pairs.


@pytest.mark.parametrize(
    ("n_ctx", "n_ids", "pos", "gaps"),
    [
        (1024, 5000, 64, [4, 8, 16, 32]),
        (48, 127, 48, [4, 8, 16, 32]),
        (37, 127, 37, [4, 8, 16]),
        (64, 23, 23, [4, 8, 16]),
        (10, 127, 10, [4]),
    ],
)
def test_planted_pairs_differ_in_one_token_from_row_to_row(n_ctx, n_ids, pos, gaps):
    stimulus = drawn(
        "planted_pairs", n_ctx=n_ctx, vocabulary=Vocabulary(np.arange(1, n_ids + 1), 0), n_seq=16
    )
    assert stimulus.tokens.shape == (16 * len(CONDITIONS), pos)
    assert (stimulus.tokens[:, 0] == 0).all() and (stimulus.copy_index == 0).all()
    for i in range(16):
        rows = stimulus.tokens[len(CONDITIONS) * i :][: len(CONDITIONS)]
        null, apart, pair, skip = rows.tolist()
        (gap,) = set(stimulus.extra["gap"][len(CONDITIONS) * i :][: len(CONDITIONS)].tolist())
        assert gap == gaps[i % len(gaps)]
        b, at = int(stimulus.extra["target"][len(CONDITIONS) * i]), pos - 3 - gap
        q, r = null[-2:]
        assert len(set(null)) == len(set(apart)) == pos and b not in null
        assert apart == [*null[:at], b, *null[at + 1 :]]
        assert pair == [*apart[: at - 1], r, *apart[at:]]
        assert skip == [*apart[: at - 2], q, *apart[at - 1 :]]
        assert set(stimulus.extra["variant"].tolist()) == {-1}


def test_planted_variants_are_shown_both_ways_round_and_nowhere_else():
    alike = tuple((i, i + 40) for i in range(10, 30))
    stimulus = drawn("planted_pairs", vocabulary=Vocabulary(IDS, 3, "", alike), n_seq=50)
    shown = np.stack([stimulus.extra["target"], stimulus.extra["variant"]], axis=1)[:: len(CONDITIONS)]
    assert {tuple(sorted(row)) for row in shown.tolist()} == set(alike)
    assert 0.2 < (shown[:, 0] < shown[:, 1]).mean() < 0.8
    for row, variant in zip(stimulus.tokens, stimulus.extra["variant"], strict=True):
        assert variant not in row
    counts = np.unique(shown.min(1), return_counts=True)[1]
    assert set(counts) <= {2, 3}  # 50 items, 20 pairs


@pytest.mark.parametrize(("n_ctx", "n_ids"), [(9, 100), (64, 9)])
def test_what_cannot_hold_a_planted_pair_is_refused(n_ctx, n_ids):
    with pytest.raises(ByroteError, match="cannot hold a planted pair"):
        drawn("planted_pairs", n_ctx=n_ctx, vocabulary=Vocabulary(np.arange(1, n_ids + 1), 0))


# Which ids a model uses.

TOKENIZER = {
    "model": {"vocab": {"a": 1, "b": 2, "c": 5, "d": 6}},
    "added_tokens": [{"id": 0, "special": True}, {"id": 7, "special": True}, {"id": 8, "special": False}],
}


def ids_of(tmp_path, tokenizer, config, d_vocab=10):
    file = tmp_path / "tokenizer.json"
    if tokenizer is not None:
        file.write_text(tokenizer if isinstance(tokenizer, str) else json.dumps(tokenizer))
    return usable_ids(config, d_vocab, tokenizer=file)


def test_special_and_padding_ids_are_left_out(tmp_path):
    assert ids_of(tmp_path, TOKENIZER, {"bos_token_id": 0}) == ([1, 2, 5, 6, 8], 0, "")
    found = ids_of(tmp_path, TOKENIZER, {"bos_token_id": 0, "eos_token_id": [5, 6], "pad_token_id": 1})
    assert found == ([2, 8], 0, "")


def test_ids_of_a_list_vocabulary(tmp_path):
    unigram = {"model": {"vocab": [["a", -1.0], ["b", -2.0], ["c", -3.0]]}, "added_tokens": None}
    assert ids_of(tmp_path, unigram, {"bos_token_id": 0}) == ([1, 2], 0, "")


def test_ids_beyond_the_embedding_are_left_out(tmp_path):
    assert ids_of(tmp_path, TOKENIZER, {"bos_token_id": 0}, d_vocab=6)[0] == [1, 2, 5]


def test_without_a_tokenizer_every_id_counts_and_that_is_said(tmp_path):
    ids, bos, note = ids_of(tmp_path, None, {"bos_token_id": 2, "model_type": "gpt2"}, d_vocab=5)
    assert (ids, bos) == ([0, 1, 3, 4], 2)
    assert "no tokenizer.json" in note
    assert ids_of(tmp_path, None, {"bos_token_id": 0, "model_type": "transformer_lens_native"})[2] == ""


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model": {"vocab": 3}}', '{"model": {"vocab": {}}, "added_tokens": [1]}']
)
def test_a_tokenizer_that_cannot_be_read_is_said(tmp_path, text):
    ids, _, note = ids_of(tmp_path, text, {"bos_token_id": 0}, d_vocab=4)
    assert ids == [1, 2, 3]
    assert "tokenizer.json cannot be read" in note


@pytest.mark.parametrize(
    ("config", "bos"),
    [
        ({"bos_token_id": None, "eos_token_id": 7}, 7),
        ({"eos_token_id": [6, 7]}, 6),
        ({}, 0),
        ({"bos_token_id": 50256, "eos_token_id": 50256}, 0),  # a class's default on a small vocabulary
        ({"bos_token_id": True}, 0),
    ],
)
def test_without_a_bos_another_id_stands_first_and_nowhere_else(tmp_path, config, bos):
    ids, found, note = ids_of(tmp_path, None, {"model_type": "transformer_lens_native", **config})
    assert found == bos
    assert bos not in ids
    assert f"id {bos} was used" in note


WORDS = {
    "ter": 0, "ters": 1, "Ġter": 2,  # the plural comes first, and each word is taken once
    "the": 3, "The": 4, "Ġthe": 5,  # then other case
    "▁cat": 6, "cat": 7,  # then the space
    "dog": 8, "Ġdogs": 9,  # neither: two differences at once
    "at": 10, "ats": 11, "x12": 12, "x12s": 13, "ééé": 14, "ééés": 15,
}  # fmt: skip


@pytest.mark.parametrize("as_list", [False, True])
def test_variants_are_found_by_spelling(tmp_path, as_list):
    vocab = [[word, -1.0] for word in WORDS] if as_list else WORDS
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": None}))
    assert variant_pairs(file, range(16)) == [[0, 1], [4, 3], [7, 6]]
    assert variant_pairs(file, [0, 3, 5, 6, 7]) == [[3, 5], [7, 6]]  # only ids that may be used


def test_no_more_variants_than_a_stimulus_draws_from(tmp_path):
    words = ["".join(letters) for letters in itertools.product("abcdefg", repeat=4)]
    file = tmp_path / "tokenizer.json"
    vocab = {text: i for i, text in enumerate(part for word in words for part in (word, f"{word}s"))}
    file.write_text(json.dumps({"model": {"vocab": vocab}}))
    found = variant_pairs(file, range(len(vocab)))
    assert len(found) == MAX_VARIANTS and found == variant_pairs(file, range(len(vocab)))
    assert all(second == first + 1 and first % 2 == 0 for first, second in found)
    assert max(first for first, _ in found) > len(vocab) * 0.9  # from the whole vocabulary


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"model": {"vocab": 3}}', '{"model": {"vocab": [1, 2]}}', '{"model": {"vocab": {"ter": [], "ters": {}}}}',
        '{"model": {"vocab": {"ter": "0", "ters": true}}}',
    ],
)  # fmt: skip
def test_a_tokenizer_that_says_nothing_gives_no_variants(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    assert variant_pairs(tmp_path / "tokenizer.json", range(9)) == []
    assert usable_ids({"bos_token_id": 0}, 4, tokenizer=tmp_path / "tokenizer.json")[0] == [1, 2, 3]
    assert variant_pairs(None, range(9)) == variant_pairs(tmp_path / "missing.json", range(9)) == []


def test_id_ranges_there_and_back():
    for ids in ([], [4], [1, 2, 3, 7], list(range(100)), [0, 2, 4]):
        assert from_ranges(as_ranges(ids)) == ids
    assert as_ranges([1, 2, 3, 7]) == [[1, 3], [7, 7]]


def test_byte_fallbacks_and_ids_that_text_never_uses_are_left_out(tmp_path):
    words = {"<s>": 0, **{f"<0x{i:02X}>": 1 + i for i in range(256)}, **{f"w{i}": 257 + i for i in range(60)}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}, "added_tokens": []}))
    asked = {"config": {"bos_token_id": 0}, "d_vocab": 320, "tokenizer": tmp_path / "tokenizer.json"}
    ids, _, note = usable_ids(**asked)
    assert ids == list(range(257, 317))
    assert note == "256 ids were left out of random sequences: byte fallbacks"
    counts = dict.fromkeys(range(257, 300), 300)
    assert usable_ids(**asked, produced=counts)[0] == list(range(257, 300))
    assert (
        usable_ids(**asked, produced=dict.fromkeys(range(257, 300), 3))[0] == ids
    )  # too short a text says nothing
    ids, _, note = usable_ids(**asked, untrained=range(270, 280))
    assert (
        not set(ids) & set(range(270, 280))
        and "10 ids were left out of random sequences: never trained" in note
    )
    ids, _, note = usable_ids(**asked, untrained=range(257, 300))
    assert ids == list(range(257, 317)) and "43 ids are in random sequences although never trained" in note
