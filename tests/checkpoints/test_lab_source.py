"""The lab's data source: worked by hand, and the promises about its streams."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import SourceConfig
from byrote.checkpoints.lab.sequences import STREAMS
from byrote.checkpoints.lab.source import draw
from byrote.checkpoints.lab.sources.tiling import bigram_table, tile

DEFAULT = SourceConfig()
GOLDEN_TOKENS = [0, 22, 114, 70, 34, 112, 80, 18]
GOLDEN_START = 25


def test_tiling_worked_by_hand():
    config = SourceConfig(d_vocab=10, n_ctx=8, block_min=2, block_max=4, bos_token_id=9)
    blocks = np.array([[5, 6, 7, 8], [1, 2, 3, 4]])
    wide = tile(blocks, np.array([3, 4]), config=config)
    assert wide.tolist() == [[9, 5, 6, 7, 5, 6, 7, 5, 6], [9, 1, 2, 3, 4, 1, 2, 3, 4]]


def test_second_block_starts_where_the_first_repeats():
    drawn = draw(DEFAULT, seed=0, stream="train", index=0, n=200)
    for row, start in zip(drawn.wide, drawn.second_block_start, strict=True):
        length = start - 1
        assert DEFAULT.block_min <= length <= DEFAULT.block_max
        assert row[0] == DEFAULT.bos_token_id
        assert (row[start:] == row[1:-length]).all()


def test_tokens_and_next_tokens_are_one_apart():
    drawn = draw(DEFAULT, seed=0, stream="train", index=0, n=3)
    assert drawn.tokens.shape == drawn.next_tokens.shape == (3, DEFAULT.n_ctx)
    assert (drawn.tokens[:, 1:] == drawn.next_tokens[:, :-1]).all()


def test_first_tokens_of_a_known_sequence():
    """The stream must not change between releases: a series is only comparable with its own data."""
    drawn = draw(DEFAULT, seed=0, stream="train", index=0, n=1)
    assert drawn.tokens[0, :8].tolist() == GOLDEN_TOKENS
    assert drawn.second_block_start[0] == GOLDEN_START


def test_a_sequence_depends_on_its_index_alone():
    whole = draw(DEFAULT, seed=3, stream="pool", index=0, n=50)
    part = draw(DEFAULT, seed=3, stream="pool", index=17, n=5)
    assert (part.wide == whole.wide[17:22]).all()
    assert (part.second_block_start == whole.second_block_start[17:22]).all()


def test_streams_and_seeds_share_no_sequence():
    rows = [
        row.tobytes()
        for stream in STREAMS
        for seed in (0, 1)
        for row in draw(DEFAULT, seed=seed, stream=stream, index=0, n=2000).tokens
    ]
    assert len(set(rows)) == len(rows) == 16_000


@pytest.mark.parametrize("bos", [0, 3, 9])
def test_blocks_are_uniform_over_everything_but_bos(bos):
    config = SourceConfig(d_vocab=10, n_ctx=9, block_min=2, block_max=6, bos_token_id=bos)
    drawn = draw(config, seed=0, stream="train", index=0, n=9000)
    first = drawn.tokens[:, 1]
    counts = np.bincount(first, minlength=10)
    assert counts[bos] == 0
    assert (drawn.tokens[:, 1:] != bos).all()
    # 1000 expected per id and 1800 per length; 150 is five standard deviations and more
    assert np.abs(np.delete(counts, bos) - 1000).max() < 150
    lengths = np.bincount(drawn.second_block_start - 1)[2:]
    assert len(lengths) == 5
    assert np.abs(lengths - 1800).max() < 200


def test_neighbours_in_a_block_are_independent():
    config = SourceConfig(d_vocab=5, n_ctx=9, block_min=2, block_max=6)
    tokens = draw(config, seed=0, stream="train", index=0, n=16_000).tokens
    pairs = np.bincount(4 * (tokens[:, 1] - 1) + tokens[:, 2] - 1, minlength=16)
    assert np.abs(pairs - 1000).max() < 160


def test_bigram_table_lists_distinct_successors_and_never_bos():
    config = SourceConfig(d_vocab=12, n_ctx=20, block_min=4, block_max=8, bos_token_id=5, bigram_successors=3)
    table = bigram_table(config)
    assert table.shape == (12, 3)
    assert (table != 5).all()
    assert all(len(set(row)) == 3 for row in table.tolist())


@pytest.mark.parametrize("frac", [0.0, 0.7, 1.0])
def test_bigram_share_of_the_first_block(frac):
    config = SourceConfig(bigram_frac=frac)
    table = bigram_table(config)
    tokens = draw(config, seed=0, stream="train", index=0, n=2000).tokens
    before, after = tokens[:, 1 : config.block_min], tokens[:, 2 : config.block_min + 1]
    listed = (table[before] == after[..., None]).any(axis=-1).mean()
    chance = config.bigram_successors / (config.d_vocab - 1)
    assert listed == pytest.approx(frac + (1 - frac) * chance, abs=0.015)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"block_max": 46}, "use block_max <= 45"),
        ({"block_min": 1}, "2 <= block_min"),
        ({"block_min": 20, "block_max": 10}, "20 to 10"),
        ({"d_vocab": 2}, "d_vocab is 2"),
        ({"bos_token_id": 128}, "choose 0 to 127"),
        ({"bigram_frac": 1.2}, "bigram_frac is 1.2"),
        ({"bigram_successors": 0}, "choose 1 to 127"),
    ],
)
def test_impossible_sources_are_refused(fields, said):
    with pytest.raises(ByroteError, match=said):
        SourceConfig(**fields)


def test_unknown_stream_is_refused_with_the_nearest():
    with pytest.raises(ByroteError, match="did you mean 'held_out'"):
        draw(DEFAULT, seed=0, stream="heldout", index=0, n=1)
