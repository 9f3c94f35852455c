"""Intervals, tests and corrections against closed forms, scipy, and answers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from byrote.probes.few import exact_ends, mean_interval
from byrote.probes.registry import REGISTRY
from byrote.probes.rules import against_chance
from byrote.probes.statistics import (
    benjamini_hochberg,
    bootstrap_mean,
    held_out_best,
    p_greater,
    p_two_sided,
    resampled_means,
    tail_frac,
    two_sample_tail_frac,
)

NAN = float("nan")


def test_interval_is_the_normal_one_for_a_mean():
    """The bootstrapped mean has standard deviation s / sqrt(n), with s the root mean square deviation."""
    x = np.random.default_rng(0).normal(3, 2, size=(200, 1))
    found = bootstrap_mean(x, n_resamples=20_000)
    half = stats.t.isf(0.025, 199) * x.std(ddof=1) / np.sqrt(200)
    assert found.value[0] == pytest.approx(x.mean())
    assert found.lo[0] == pytest.approx(x.mean() - half, abs=0.03 * half)
    assert found.hi[0] == pytest.approx(x.mean() + half, abs=0.03 * half)
    assert found.n[0] == 200


def test_interval_of_yes_and_no_is_the_binomial_one():
    """Resampling a column of 0s and 1s draws a binomial: its percentiles are known exactly."""
    x = np.zeros((32, 1))
    x[:10] = 1
    found = bootstrap_mean(x, n_resamples=50_000)
    tail = tail_frac(32)
    low, high = stats.binom.ppf([tail, 1 - tail], 32, 10 / 32) / 32
    assert (found.lo[0], found.hi[0]) == (pytest.approx(low), pytest.approx(high))


def test_tails_are_those_of_students_interval():
    """t with 31 degrees of freedom leaves 2.5% above 2.0395; times sqrt(32 / 31) that is the normal's 2.0722."""
    assert tail_frac(32) == pytest.approx(stats.norm.sf(2.0395 * np.sqrt(32 / 31)), rel=1e-3)
    assert tail_frac(32) == pytest.approx(0.0191, abs=1e-4)
    assert tail_frac(10**6) == pytest.approx(0.025, abs=1e-5)
    assert tail_frac(1) == pytest.approx(0.025)
    assert tail_frac(32, level=0.5) == pytest.approx(0.25, abs=0.01)


def test_tails_of_a_difference_of_two_samples():
    x = np.random.default_rng(0).normal(size=40)
    assert two_sample_tail_frac(x, np.array([1.0])) == pytest.approx(tail_frac(40))
    equal = two_sample_tail_frac(x, -x)  # Welch: 2 (n - 1) degrees of freedom
    t = stats.t.isf(0.025, 78)
    assert equal == pytest.approx(stats.norm.sf(t * np.sqrt(40 / 39)))
    assert two_sample_tail_frac(np.ones(3), np.ones(1)) == pytest.approx(0.025)


# Shapes of per-sequence values that byrote has; measured coverage is in docs/decisions/0005-expanded-percentiles.md.
SHAPES = {
    "symmetric": (lambda rng, shape: rng.normal(0.3, 0.1, shape), 0.3),
    "uniform": (lambda rng, shape: rng.uniform(0, 1, shape), 0.5),
    "score near 0": (lambda rng, shape: rng.beta(2, 62, shape), 1 / 32),
    "score near 1": (lambda rng, shape: rng.beta(62, 2, shape), 31 / 32),
    "loss": (lambda rng, shape: rng.lognormal(0, 0.4, shape), np.exp(0.08)),
    "difference": (lambda rng, shape: rng.beta(2, 30, shape) - rng.beta(1, 31, shape), 1 / 32),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_at_32_sequences(shape):
    """Of 4000 samples, 93-97% have an interval that holds the true mean; plain percentiles hold it in 92-94%."""
    draw, true_mean = SHAPES[shape]
    samples = draw(np.random.default_rng(5), (32, 4000))
    found = bootstrap_mean(samples)
    held = (found.lo <= true_mean) & (true_mean <= found.hi)
    assert 0.93 <= held.mean() <= 0.97
    below, above = (found.hi < true_mean).mean(), (found.lo > true_mean).mean()
    assert 0.005 < below < 0.06
    assert 0.005 < above < 0.06


def test_columns_of_unequal_n_each_get_their_own_tails():
    x = np.random.default_rng(4).normal(size=(32, 2))
    x[6:, 1] = NAN
    found = bootstrap_mean(x)
    means = resampled_means(x)
    tail = tail_frac(6)
    assert (found.lo[1], found.hi[1]) == tuple(np.nanpercentile(means[:, 1], [100 * tail, 100 - 100 * tail]))
    assert found.lo[0] == np.percentile(means[:, 0], 100 * tail_frac(32))


def test_level_is_what_was_asked_for():
    samples = np.random.default_rng(6).normal(size=(64, 4000))
    found = bootstrap_mean(samples, level=0.5)
    assert ((found.lo <= 0) & (found.hi >= 0)).mean() == pytest.approx(0.5, abs=0.03)


def test_same_seed_same_interval_and_columns_keep_their_pairing():
    x = np.random.default_rng(1).normal(size=(32, 3))
    first, again, other = (bootstrap_mean(x, seed=s) for s in (7, 7, 8))
    assert (first.lo == again.lo).all()
    assert (first.lo != other.lo).all()
    alone = bootstrap_mean(x[:, 1:2], seed=7)
    assert alone.lo[0] == pytest.approx(first.lo[1], abs=1e-12)
    both = bootstrap_mean(np.stack([x[:, 0], x[:, 0] + 1], axis=1))
    assert both.lo[1] - both.lo[0] == pytest.approx(1)


def test_more_columns_than_fit_at_once():
    x = np.random.default_rng(2).normal(size=(16, 5000))
    whole = bootstrap_mean(x)
    for column in (0, 2047, 2048, 4999):
        alone = bootstrap_mean(x[:, column : column + 1])
        assert (whole.lo[column], whole.hi[column]) == (
            pytest.approx(alone.lo[0]),
            pytest.approx(alone.hi[0]),
        )


def test_constant_columns_have_no_width():
    found = bootstrap_mean(np.full((8, 2), 0.25))
    assert found.value.tolist() == found.lo.tolist() == found.hi.tolist() == [0.25, 0.25]


def test_undefined_sequences_are_left_out():
    x = np.array([[1.0, NAN, NAN], [3.0, 2.0, NAN], [5.0, 4.0, NAN], [7.0, NAN, NAN]])
    found = bootstrap_mean(x)
    assert found.value[:2].tolist() == [4, 3]
    assert found.n.tolist() == [4, 2, 0]
    assert (found.lo[1], found.hi[1]) == (2, 4)
    assert np.isnan([found.value[2], found.lo[2], found.hi[2]]).all()
    assert found.lo[0] >= 1
    assert found.hi[0] <= 7


def test_one_sequence_has_no_width():
    found = bootstrap_mean(np.array([[0.5]]))
    assert (found.value[0], found.lo[0], found.hi[0], found.n[0]) == (0.5, 0.5, 0.5, 1)


@pytest.mark.parametrize(("test", "alternative"), [(p_greater, "greater"), (p_two_sided, "two-sided")])
def test_p_values_are_scipys(test, alternative):
    x = np.random.default_rng(3).normal(0.2, 1, size=(20, 50))
    answer = stats.ttest_1samp(x, 0, axis=0, alternative=alternative).pvalue
    np.testing.assert_allclose(test(x), answer, rtol=1e-10)
    x[::3, ::2] = NAN
    answer = stats.ttest_1samp(x, 0, axis=0, alternative=alternative, nan_policy="omit").pvalue
    np.testing.assert_allclose(test(x), answer, rtol=1e-10)


def test_p_values_worked_by_hand():
    """Mean 2, s = 2, n = 4: t = 2 with 3 degrees of freedom."""
    x = np.array([0.0, 2 - np.sqrt(2), 2 + np.sqrt(2), 4])[:, None]
    x = 2 + (x - 2) * 2 / x.std(ddof=1)
    t, df = 2.0, 3
    # Closed form for 3 degrees of freedom.
    upper = 0.5 - (np.arctan(t / np.sqrt(df)) + t / np.sqrt(df) / (1 + t**2 / df)) / np.pi
    assert p_greater(x)[0] == pytest.approx(upper)
    assert p_two_sided(x)[0] == pytest.approx(2 * upper)
    assert p_greater(-x)[0] == pytest.approx(1 - upper)


def test_columns_that_cannot_be_tested():
    x = np.array(
        [
            [NAN, 1.0, 0.3, 0.3, 0.0, -0.3],
            [NAN, NAN, 0.3, 0.3 + 1e-16, 0.0, -0.3],
            [NAN, NAN, 0.3, 0.3, 0.0, -0.3],
        ]
    )
    assert p_greater(x).tolist() == [1, 1, 0, 0, 1, 1]
    assert p_two_sided(x).tolist() == [1, 1, 0, 0, 1, 0]


def test_benjamini_hochberg_worked_by_hand():
    """p (i) times m / i, made monotone from the largest down."""
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    assert benjamini_hochberg(p).tolist() == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.5])
    with_gap = np.array([0.01, NAN, 0.04, 0.03, 0.005, 0.5, NAN])
    adjusted = benjamini_hochberg(with_gap)
    assert np.isnan(adjusted[[1, 6]]).all()
    assert adjusted[[0, 2, 3, 4, 5]].tolist() == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.5])
    assert np.isnan(benjamini_hochberg(np.array([NAN, NAN]))).all()
    assert benjamini_hochberg(np.array([0.03])).tolist() == [0.03]


def test_false_discoveries_stay_at_the_level():
    """100 heads, 20 of them real: of those called, at most 5% on average are not."""
    rng = np.random.default_rng(9)
    false = []
    for _ in range(200):
        effect = np.where(np.arange(100) < 20, 1.2, 0.0)
        called = benjamini_hochberg(p_greater(rng.normal(effect, 1, size=(16, 100)))) < 0.05
        false.append(called[20:].sum() / max(1, called.sum()))
        assert called[:20].sum() > 10
    assert np.mean(false) < 0.05


def test_the_held_out_best_of_equal_columns_is_not_raised_by_its_choice():
    rng, naive, held_out = np.random.default_rng(10), [], []
    for _ in range(300):
        x = rng.normal(0, 1, size=(32, 20))
        best, values = held_out_best(x)
        naive.append(x[:, best].mean())
        held_out.append(values.mean())
    assert np.mean(naive) > 0.25  # the highest of 20 means with standard error 0.18
    assert abs(np.mean(held_out)) < 0.04


def test_a_column_that_is_clearly_best_is_itself_held_out():
    x = np.random.default_rng(11).normal(0, 0.1, size=(9, 3)) + np.array([0.0, 5.0, 1.0])
    best, values = held_out_best(x)
    assert best == 1 and (values == x[:, 1]).all()
    x[:, 2] = NAN
    assert held_out_best(x)[0] == 1
    assert held_out_best(x[:2])[1].tolist() == x[:2, 1].tolist()


def test_upper_bound_of_a_share():
    """None of n: 1 - 0.05^(1/n)."""
    lo, hi = exact_ends(np.array([0, 3, 5]), np.array([29, 10, 5]), level=0.9)
    np.testing.assert_allclose(hi, [1 - 0.05 ** (1 / 29), stats.beta.ppf(0.95, 4, 7), 1.0])
    np.testing.assert_allclose(lo, [0.0, stats.beta.ppf(0.05, 3, 8), 0.05 ** (1 / 5)])


@pytest.mark.parametrize(
    ("value", "half", "among", "sampled", "side"),
    [
        (0.41, 0.05, 1, False, "above"),
        (0.36, 0.02, 1, False, "at"),  # sure, and not surely by the smallest effect
        (0.40, 0.12, 1, False, "at"),
        (0.19, 0.05, 1, False, "below"),
        (0.44, 0.08, 1, False, "above"),
        (0.44, 0.08, 16, False, "at"),  # 2.95 / 1.96 times as wide
        (0.44, 0.08, 1, True, "at"),  # 1.41 times
    ],
)
def test_where_a_number_stands_against_chance(value, half, among, sampled, side):
    found = against_chance(
        value, value - half, value + half, chance=0.3, smallest=0.05, among=among, sampled=sampled
    )
    assert found == side


def test_yes_and_no_have_exact_intervals_however_many_there_are():
    outcomes = np.zeros((256, 2))
    outcomes[:13, 1] = 1.0
    found = mean_interval(outcomes, "binary")
    assert (found.lo[0], found.value[0]) == (0, 0)
    assert found.hi[0] == pytest.approx(1 - 0.025 ** (1 / 256))  # 1.4%, where the bootstrap had [0, 0]
    exact = stats.binomtest(13, 256).proportion_ci(method="exact")
    np.testing.assert_allclose([found.lo[1], found.hi[1]], [exact.low, exact.high])


def test_a_share_of_few_sequences_has_the_interval_of_as_many_coin_tosses_as_it_is_worth():
    rows = np.array([0.0, 0.05, 0.1, 0.02, 0.6, 0.03, 0.2, 0.08])[:, None]
    n, p, s2 = 8, rows.mean(), rows.var(ddof=1)
    worth = p * (1 - p) * n / s2 * (stats.norm.ppf(0.025) / stats.t.ppf(0.025, n - 1)) ** 2
    found = mean_interval(rows, "share")
    assert found.lo[0] == pytest.approx(stats.beta.ppf(0.025, p * worth, worth - p * worth + 1))
    assert found.hi[0] == pytest.approx(stats.beta.ppf(0.975, p * worth + 1, worth - p * worth))
    same = mean_interval(np.ones((8, 1)), "share")
    assert (same.lo[0], same.hi[0]) == (pytest.approx(0.025 ** (1 / 8)), 1.0)
    few = np.r_[rows, np.full((40, 1), np.nan)]  # what counts is how many are defined
    assert mean_interval(few, "share").lo[0] == pytest.approx(found.lo[0])


def test_intervals_of_other_numbers_are_those_of_the_bootstrap_bit_for_bit():
    rows = np.random.default_rng(0).beta(2, 62, (32, 5))
    for kind, samples in (("share", rows), ("other", rows[:8]), ("other", np.zeros((8, 2)))):
        found, bootstrap = mean_interval(samples, kind, seed=3), bootstrap_mean(samples, seed=3)
        for end in ("value", "lo", "hi", "n"):
            assert np.array_equal(getattr(found, end), getattr(bootstrap, end))


@pytest.mark.parametrize(
    ("probe", "metric", "kind"),
    [
        ("prefix_matching", "score@jittered_repeat", "share"),
        ("repeat_loss", "top1_later@jittered_repeat", "share"),
        ("repeat_loss", "difference", "other"),
        ("copying_logit", "score", "other"),  # from -1 to 1
        ("induction_circuit", "change", "other"),  # a difference of two shares
        ("extraction", "score@twins", "binary"),
        ("extraction", "matched", "share"),
        ("exact_match", "completed@twins", "binary"),
        ("exact_match", "accuracy", "share"),
        ("exposure", "first", "binary"),
        ("pruned_memory", "accuracy", "share"),
    ],
)
def test_what_a_metric_is_follows_from_its_description(probe, metric, kind):
    assert REGISTRY[probe].kind_of(metric) == kind
