"""Repeats, hashes, blocks and intervals of corpora: worked by hand, and against plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from byrote.checkpoints.ngrams import hashes, mix, repeats
from byrote.probes.statistics import (
    linearised_interval,
    quotient_interval,
    ratio_intervals,
    sample_interval,
)
from byrote.probes.text.blocks import Blocks, Reservoir, sums_by


def codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint64)


def flags(text: str, orders: tuple[int, ...], starts: tuple[int, ...] = (0,)) -> dict[int, tuple[str, str]]:
    """Per order, `seen` and `shared` as strings of 0 and 1."""
    found = repeats(codes(text), np.asarray(starts), orders)
    return {r.n: tuple("".join(map(str, part.astype(int))) for part in (r.seen, r.shared)) for r in found}


def test_repeats_by_hand():
    """a b c a b c a b d: from the fourth letter on all but d were there; ab, bc, ca came back, then abc, bca, cab."""
    found = flags("abcabcabd", (1, 2, 3, 4))
    assert found[1] == ("000111110", "111111110")
    assert found[2] == ("000011110", "011111110")  # ab bc ca | ab bc ca ab | bd
    assert found[3] == ("000001110", "001111110")  # abc bca cab | abc bca cab | abd
    assert found[4] == ("000000110", "000110110")  # abca bcab cabc | abca bcab | cabd


def test_repeats_stay_in_their_sequence():
    assert flags("ababab", (1, 2), starts=(0, 2, 4))[2] == ("000000", "000000")
    assert flags("abababab", (1, 2), starts=(0, 4))[2] == ("00010001", "01010101")


@pytest.mark.parametrize("spread", [1, 1 << 40])
@pytest.mark.parametrize("orders", [(1, 2, 3, 4, 5, 6, 7), (1, 2, 3, 4, 8, 16, 32)])
def test_repeats_equal_plain_python(orders, spread):
    """Ids below 2^32 are compared exactly, larger codes by a hash: both give what a loop gives."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, size=400).astype(np.uint64)
    tokens[200:300] = tokens[50:150]
    starts = np.asarray([0, 1, 37, 390])
    found = {r.n: r for r in repeats(tokens * np.uint64(spread), starts, orders)}
    for n in orders:
        seen, shared = np.zeros(400, dtype=bool), np.zeros(400, dtype=bool)
        for start, stop in zip(starts, [*starts[1:], 400], strict=True):
            grams = {i: tuple(tokens[i - n + 1 : i + 1]) for i in range(start + n - 1, stop)}
            counts, before = Counter(grams.values()), set()
            for i, gram in grams.items():
                seen[i], shared[i] = gram in before, counts[gram] > 1
                before.add(gram)
        assert (found[n].seen == seen).all()
        assert (found[n].shared == shared).all()


def test_an_order_that_cannot_be_named_is_refused():
    with pytest.raises(ValueError, match="order 5 cannot be named from order 2"):
        list(repeats(codes("aaaaaaaa"), np.asarray([0]), (1, 2, 5)))


def test_hashes_are_equal_for_equal_ngrams_only():
    tokens, starts = codes("abcabd" + "bca"), np.asarray([0, 6])
    for n, ends, found in hashes(tokens, starts, (1, 2, 3)):
        grams = [bytes(tokens[i - n + 1 : i + 1].astype(np.uint8)) for i in ends]
        assert len(grams) == (6 - n + 1) + (3 - n + 1)
        for i, a in enumerate(grams):
            assert [a == b for b in grams] == (found == found[i]).tolist()


def test_hashes_of_every_order_differ():
    tokens = np.zeros(4, dtype=np.uint64)
    found = [code[0] for _, _, code in hashes(tokens, np.asarray([0]), (1, 2, 3))]
    assert len(set(found)) == 3


def test_mix_is_spread_evenly():
    buckets = np.bincount((mix(np.arange(100_000, dtype=np.uint64)) % np.uint64(100)).astype(int))
    assert abs(buckets - 1000).max() < 160  # five standard deviations of a fair draw


def test_sums_by_stretch():
    flag = np.asarray([True, False, True, True, True])
    assert sums_by([flag, ~flag], np.asarray([0, 2, 3])).tolist() == [[1, 1], [1, 0], [2, 0]]


def test_blocks_merge_neighbours():
    """Ten units with values 0 to 9 in four rows: spans of 1, 2, then 4: 0+1+2+3, 4+5+6+7, 8+9."""
    blocks = Blocks(1, capacity=4)
    for unit in range(10):
        blocks.add(np.asarray([unit]), np.asarray([[float(unit)]]))
    assert blocks.sums.tolist() == [[6.0], [22.0], [17.0]]
    assert (blocks.n, blocks.span) == (10, 4)


def test_blocks_are_the_same_however_they_are_fed():
    rng = np.random.default_rng(0)
    units = np.sort(rng.integers(1000, size=5000))
    values = rng.integers(100, size=(5000, 3)).astype(float)
    columns = rng.integers(3, size=5000)
    whole, parts, counted = Blocks(3, capacity=32), Blocks(3, capacity=32), Blocks(3, capacity=32)
    whole.add(units, values)
    for i in range(0, 5000, 77):
        parts.add(units[i : i + 77], values[i : i + 77])
        counted.add_counts(units[i : i + 77], columns[i : i + 77])
    assert (whole.sums == parts.sums).all()
    assert whole.sums.sum(0).tolist() == values.sum(0).tolist()
    assert counted.sums.sum(0).tolist() == np.bincount(columns).tolist()


def test_interval_of_a_ratio_with_equal_denominators_is_that_of_a_mean():
    x = np.random.default_rng(0).normal(3, 2, size=(400, 1))
    ((value, lo, hi),) = ratio_intervals(x, np.ones((400, 1)), seed=0)
    half = 1.96 * x.std() / 20
    assert value == pytest.approx(x.mean())
    assert (lo, hi) == (
        pytest.approx(value - half, abs=0.06 * half),
        pytest.approx(value + half, abs=0.06 * half),
    )


def test_ratio_pools():
    """1 of 2 and 0 of 6 are 1 of 8, not the mean of a half and nothing."""
    ((value, lo, hi),) = ratio_intervals(np.asarray([[1], [0]]), np.asarray([[2], [6]]), seed=0)
    assert (value, lo, hi) == (1 / 8, 0.0, 0.5)


def test_one_unit_has_no_interval_and_nothing_has_no_ratio():
    ((value, lo, hi),) = ratio_intervals(np.asarray([[1]]), np.asarray([[2]]), seed=0)
    assert value == 0.5
    assert np.isnan([lo, hi]).all()
    assert np.isnan(ratio_intervals(np.zeros((3, 1)), np.zeros((3, 1)), seed=0)[0]).all()


def test_quotient_of_two_ratios():
    rng = np.random.default_rng(0)
    a, b = rng.poisson(20, 200).astype(float), rng.poisson(10, 300).astype(float)
    one, other = np.full(200, 100.0), np.full(300, 100.0)
    value, lo, hi = quotient_interval((a, one), (b, other), seed=0)
    assert value == pytest.approx(a.mean() / b.mean())
    half = 1.96 * value * np.hypot(a.std() / a.mean() / 200**0.5, b.std() / b.mean() / 300**0.5)
    assert (hi - lo) / 2 == pytest.approx(half, rel=0.08)


def test_linearised_interval_of_a_mean_is_that_of_the_mean():
    x = np.random.default_rng(0).exponential(1.0, size=300)
    left_out = (x.sum() - x) / 299
    value, lo, hi = linearised_interval(float(x.mean()), [left_out], seed=0)
    ((_, lo_direct, hi_direct),) = ratio_intervals(x[:, None], np.ones((300, 1)), seed=0)
    assert (value, lo, hi) == (
        pytest.approx(x.mean()),
        pytest.approx(lo_direct),
        pytest.approx(hi_direct),
    )


@pytest.mark.parametrize("blocks", [8, 20])
def test_intervals_of_few_blocks_cover(blocks):
    """A ratio of sums, and a quotient of two such: 500 corpora each, nominal 95%, three standard errors of 1% below."""
    rng, held = np.random.default_rng(blocks), np.zeros(2)
    for _ in range(500):
        sizes = [rng.poisson(60, n) + 10.0 for n in (blocks, 2 * blocks)]
        hits = [np.round(rng.beta(4, 16, len(size)) * size) for size in sizes]
        ((_, lo, hi),) = ratio_intervals(hits[0][:, None], sizes[0][:, None], seed=0)
        held[0] += lo <= 0.2 <= hi
        _, lo, hi = quotient_interval((hits[0], sizes[0]), (hits[1], sizes[1]), seed=0)
        held[1] += lo <= 1 <= hi
    assert (held / 500 > 0.92).all()
    assert (held / 500 < 0.98).all()


def test_linearised_interval_of_a_square_covers():
    """Squares of means of 60 draws around 2: the interval holds 4 about 95 times in 100."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(300):
        x = rng.normal(2, 1, 60)
        left_out = ((x.sum() - x) / 59) ** 2
        _, lo, hi = linearised_interval(float(x.mean() ** 2), [left_out], seed=0)
        held += lo < 4 < hi
    assert 270 <= held <= 297


def test_interval_of_a_median():
    """Of 101 ordered values the bootstrapped median lies between order statistics 41 and 61: 51 +- 1.96 sqrt(101) / 2."""
    value, lo, hi = sample_interval(np.arange(101.0), lambda v: np.median(v, axis=-1), seed=0)
    assert value == 50
    assert lo == pytest.approx(40.2, abs=1.2)
    assert hi == pytest.approx(59.8, abs=1.2)


def test_reservoir_is_uniform():
    drawn = np.zeros(30)
    for seed in range(2000):
        sample = Reservoir(6, seed=seed)
        for start in range(0, 30, 10):
            for item, place in sample.places(10):
                sample.keep(place, start + item)
        drawn[sample.items] += 1
    assert drawn.sum() == 2000 * 6
    assert abs(drawn - 400).max() < 5 * (2000 * 0.2 * 0.8) ** 0.5
