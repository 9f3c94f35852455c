"""The arithmetic of degradation: worked by hand, by an independent route, and on planted truth; each refusal by its words."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade import (
    boundary_fit,
    capacity,
    churn,
    dose_response,
    double_descent,
    effective_data,
    effective_size,
    extraction_threshold,
    fit_r_star,
    near_zero,
    noise_floor,
    prediction_churn,
    preferential_damage,
    with_unique_tokens,
)
from byrote.probes.degrade.capacity import firth_logistic
from byrote.probes.degrade.descent_over_seeds import smoothed
from byrote.probes.degrade.dose_response import band, log_doses, peak, umbrella_p
from byrote.probes.degrade.run_cells import cells_of
from byrote.probes.degrade.simulated_runs import simulated_rows
from byrote.probes.degrade_calibration import curve_calibrations, dose_calibrations, size_calibrations
from byrote.probes.findings_degrade import ladder_words
from byrote.probes.seed_statistics import fieller

SIZES = np.array([1e3, 4e3, 1.6e4, 6.4e4])
SEEDS = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])


def rows(means, **facts) -> pd.DataFrame:
    return simulated_rows(np.asarray(means, dtype=np.float64)[:, None] + SEEDS, **facts)


# Sizes.


def law(size):
    return 1.0 + 3.0 * np.asarray(size) ** -0.2


def test_a_power_law_gives_back_the_size_it_was_made_of():
    ladder = simulated_rows(np.tile(law(SIZES)[:, None], 3), parameters=SIZES, arm="control")
    arm = simulated_rows(
        np.tile(law([8e3, 1.6e4])[:, None], 3), parameters=np.array([1.6e4, 6.4e4]), arm="repeated"
    )
    found = effective_size(ladder, arm, floor=1.0)
    assert found.ladder.slope == pytest.approx(-0.2) and found.ladder.r2 == pytest.approx(1)
    assert found.rows["multiplier"].tolist() == pytest.approx([0.5, 0.25, 2 / (2 + 4)])  # harmonic over sizes
    assert found.rows["effective"].iloc[:2].tolist() == pytest.approx([8e3, 1.6e4])
    assert (found.rows["clipped"] == "").all() and (found.rows["hi"] - found.rows["lo"]).max() < 1e-9
    assert "a power law of the loss above 1 nats over 4 sizes from 1,000 to 64,000" in ladder_words(
        found.ladder
    )
    without = effective_size(ladder, arm, floor=0.0)
    assert without.ladder.r2 < 1 and without.rows["multiplier"].iloc[0] != pytest.approx(0.5, abs=1e-3)


def test_interpolation_is_on_the_chord_and_prefix_matching_on_a_line():
    ladder = simulated_rows(
        np.array([[4.0] * 3, [3.0] * 3, [1.0] * 3]), parameters=np.array([1e2, 1e3, 1e4]), arm="control"
    )
    arm = simulated_rows(np.array([[2.0] * 3]), parameters=1e4, arm="repeated")
    assert effective_size(ladder, arm, how="interpolate").rows["effective"].iloc[0] == pytest.approx(10**3.5)
    score = ladder.assign(value=0.1 * np.log10(ladder["parameters"]), better="higher")
    low = arm.assign(value=0.35, better="higher")
    found = effective_size(score, low, how="linear")
    assert found.rows["effective"].iloc[0] == pytest.approx(10**3.5)
    assert "a line in ln N" in ladder_words(found.ladder)


def test_one_value_per_seed_is_the_one_that_the_seed_alone_would_have_where_the_ladder_is_a_line():
    """Values fall by 1 per e-fold of size: an arm 0.5 above its size's is e^-0.5 of the size, and its seeds move it by themselves."""
    sizes, common = np.exp([0.0, 1.0, 2.0]), np.array([-0.3, 0.1, 0.2])
    ladder = simulated_rows(np.array([4.0, 3.0, 2.0])[:, None] + common, parameters=sizes, arm="control")
    own = np.array([-0.1, 0.0, 0.2])
    arm = simulated_rows((2.5 + common + own)[None], parameters=sizes[2:], arm="repeated")
    for how in ("interpolate", "linear"):
        found = effective_size(ladder, arm, how=how)
        assert found.by_seed["repeated", sizes[2]] == pytest.approx(-0.5 - own)
    other = arm.assign(init_seed=arm["init_seed"] + 7, data_seed=arm["data_seed"] + 7)
    assert effective_size(ladder, other, how="interpolate").by_seed == {}


def test_values_by_seed_spread_as_resamples_do():
    rng = np.random.default_rng(5)
    ladder = simulated_rows(
        law(SIZES)[:, None] + rng.normal(0, 0.02, (4, 8)), parameters=SIZES, arm="control"
    )
    arm = simulated_rows(
        law([8e3])[:, None] + rng.normal(0, 0.02, (1, 8)), parameters=SIZES[3:], arm="repeated"
    )
    found = effective_size(ladder, arm, floor=1.0)
    values = found.by_seed["repeated", SIZES[3]]
    row = found.rows.iloc[0]
    half = stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert np.exp(values.mean()) == pytest.approx(row["multiplier"], rel=0.05)
    assert half == pytest.approx(np.log(row["hi"] / row["lo"]) / 2, rel=0.15)


def test_what_lies_beyond_the_ladder_is_clipped_and_a_bound():
    ladder = rows([4.0, 3.0, 2.0, 1.0], parameters=SIZES, arm="control")
    worse = rows([5.0], parameters=1.6e4, arm="worse")
    better = rows([0.5], parameters=1.6e4, arm="better")
    for how in ("power", "interpolate", "linear"):
        found = effective_size(ladder, pd.concat([worse, better], ignore_index=True), how=how).rows
        below, above = (found[found["arm"] == arm].iloc[0] for arm in ("worse", "better"))
        assert (below["clipped"], below["lo"]) == ("below", 0) and below["effective"] == pytest.approx(1e3)
        assert (above["clipped"], above["hi"]) == ("above", np.inf) and above["effective"] == pytest.approx(
            6.4e4
        )


def test_a_loss_below_the_floor_is_better_than_any_size():
    ladder = rows([4.0, 3.0, 2.0, 1.5], parameters=SIZES, arm="control")
    found = effective_size(ladder, rows([0.9], parameters=1e3, arm="memorised"), floor=1.0).rows
    assert found["clipped"].tolist() == ["above", "above"]


@pytest.mark.parametrize(
    ("means", "options", "words"),
    [
        ([4.0, 3.0, 3.5, 1.0], {}, "not monotone: 3 at 4,000 and 3.5 at 16,000"),
        ([4.0, 3.0, 2.0, 1.0], {"floor": 2.5}, "loss of 1 is not above the floor of 2.5"),
        ([4.0, 3.0, 2.0, 1.0], {"how": "linar"}, "cannot be read off by 'linar'"),
        ([4.0, 3.0], {}, "the control has 2 sizes, and effective size by power needs 3"),
    ],
)
def test_ladders_that_are_refused(means, options, words):
    ladder = rows(means, parameters=SIZES[: len(means)], arm="control")
    with pytest.raises(ByroteError, match=words):
        effective_size(ladder, rows([2.0], parameters=1.6e4, arm="repeated"), **options)


def test_sizes_and_metrics_that_are_not_there_are_refused_by_name():
    ladder, arm = rows([4.0, 3.0, 2.0, 1.0], parameters=SIZES, arm="control"), rows([2.0], arm="repeated")
    with pytest.raises(
        ByroteError, match="parameters of repeated-0-s0 is not declared, and effective size needs it"
    ):
        effective_size(ladder, arm)
    with pytest.raises(
        ByroteError, match="effective size needs parameters of it or the tokens that it has seen"
    ):
        effective_size(ladder, arm, counted_by="compute")
    with pytest.raises(
        ByroteError, match="parameters of repeated-0-s0 is 0, and effective size needs a size"
    ):
        effective_size(ladder, arm.assign(parameters=0.0))
    with pytest.raises(ByroteError, match="other metrics"):
        effective_size(ladder, arm.assign(metric="later_blocks", parameters=1e3))
    with pytest.raises(ByroteError, match="no better direction"):
        effective_size(ladder.assign(better=None), arm.assign(better=None, parameters=1e3))


def test_seeds_and_sequences_widen_intervals():
    ladder = rows([4.0, 3.0, 2.0, 1.0], parameters=SIZES, arm="control")
    arm = rows([2.5], parameters=1.6e4, arm="repeated")
    plain = effective_size(ladder, arm, how="interpolate").rows.iloc[0]
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1.0, 40)

    def sampled(table):
        noisy = [
            v + noise * (1 if arm == "repeated" else 0)
            for v, arm in zip(table["value"], table["arm"], strict=True)
        ]
        return table.assign(samples=noisy)

    wide = effective_size(sampled(ladder), sampled(arm), how="interpolate").rows.iloc[0]
    assert wide["hi"] / wide["lo"] > 1.5 * plain["hi"] / plain["lo"] > 1
    one = simulated_rows(np.array([[4.0], [3.0], [2.0], [1.0]]), parameters=SIZES, arm="control")
    alone = effective_size(one, arm, how="interpolate").rows.iloc[0]
    assert np.isnan(alone["lo"]) and alone["multiplier"] == pytest.approx(plain["multiplier"])


def test_the_same_seeds_twice_in_a_cell_are_refused():
    twice = pd.concat([rows([1.0]), rows([1.0])], ignore_index=True)
    with pytest.raises(ByroteError, match="two runs at 0 have the same seeds"):
        cells_of(twice.drop(columns="arm", errors="ignore"), np.zeros(10))
    with pytest.raises(ByroteError, match="a and b have the same dose, 0, but differ in something else"):
        cells_of(twice.assign(arm=["a"] * 5 + ["b"] * 5), np.zeros(10))


def test_preferential_damage_is_a_difference_of_logarithms_with_fieller_beside_it():
    ladder = rows([4.0, 3.0, 2.0, 1.0], parameters=SIZES, arm="control")
    turned = simulated_rows(2.9 + SEEDS[None, ::-1], parameters=6.4e4, arm="repeated")
    copy = effective_size(ladder, turned, how="interpolate")
    test = effective_size(ladder, rows([1.4], parameters=6.4e4, arm="repeated"), how="interpolate")
    row = preferential_damage(copy, test).iloc[-1]
    assert row["difference"] == pytest.approx(np.log(row["multiplier"] / row["reference"]))
    assert row["ratio"] == pytest.approx(np.log(row["multiplier"]) / np.log(row["reference"]))
    assert row["hi"] < 0 and row["ratio_lo"] < row["ratio"] < row["ratio_hi"]
    whole = effective_size(
        ladder, simulated_rows(1.002 + SEEDS[None, ::-1], parameters=6.4e4, arm="repeated"), how="interpolate"
    )
    unbounded = preferential_damage(copy, whole).iloc[-1]
    assert (unbounded["ratio_lo"], unbounded["ratio_hi"]) == (-np.inf, np.inf)
    with pytest.raises(ByroteError, match="not measured on the same arms and sizes"):
        preferential_damage(
            copy, effective_size(ladder, rows([2.0], parameters=6.4e4, arm="other"), how="interpolate")
        )


def test_fieller_by_its_definition():
    """At either end r the ratio's numerator top - r bottom is just t standard errors from 0."""
    top, bottom, t = 3.0, 2.0, 2.1
    covariance = np.array([[0.2, 0.05], [0.05, 0.1]])
    for r in fieller(top, bottom, covariance, t):
        variance = covariance[0, 0] - 2 * r * covariance[0, 1] + r**2 * covariance[1, 1]
        assert abs(top - r * bottom) == pytest.approx(t * np.sqrt(variance))


# Doses.

EPOCHS = np.array([1.0, 10.0, 100.0, 1000.0, 1e4])


def test_the_band_is_where_damage_is_half_of_its_largest():
    found = dose_response(
        rows([2.0, 2.0, 4.0, 3.0, 2.0], epochs=EPOCHS), "epochs", baseline=rows([2.0], arm="control")
    )
    assert found.paired and found.rows["damage"].tolist() == pytest.approx([0, 0, 2, 1, 0], abs=1e-12)
    assert found.left.dose == pytest.approx(10**1.5) and found.right.dose == pytest.approx(1e3)
    assert found.peak is not None and found.peak.dose == 100 and found.peak.chosen[100] == pytest.approx(1)
    assert found.peak.interior and found.peak.over_smallest.value == pytest.approx(2)
    assert found.peak.p_umbrella < 0.01
    open_end = dose_response(
        rows([2.0, 2.0, 2.5, 4.0, 3.5], epochs=EPOCHS), "epochs", baseline=rows([2.0], arm="control")
    )
    assert np.isnan(open_end.right.dose) and open_end.left.dose > 100


def test_scores_that_are_better_higher_are_damaged_by_falling():
    score = rows([0.9, 0.2, 0.8], synthetic_share=np.array([0.0, 0.5, 1.0]), better="higher")
    found = dose_response(score, "synthetic_share")
    assert found.rows["damage"].tolist() == pytest.approx([0, 0.7, 0.1])
    assert found.rows["value"].tolist() == pytest.approx([0.9, 0.2, 0.8])


def test_a_dose_of_zero_stands_one_ratio_below_the_next():
    assert np.exp(log_doses([0.0, 0.1, 0.2])) == pytest.approx([0.05, 0.1, 0.2])
    assert np.isnan(band(np.arange(3.0), np.array([[0.0, -1.0, 0.0]]))).all()


def test_a_peak_on_few_seeds_or_on_a_plateau_is_none():
    three = [np.array([v, v + 0.01, v - 0.01]) for v in (0.0, 1.0, 0.0)]
    few = peak([1, 2, 3], three, paired=True, smallest=0.05, permutations=0)
    assert few is not None and not few.interior and few.over_largest.lo > 0.05
    flat_top = [
        v + SEEDS[order]
        for v, order in zip(
            (0, 1, 1, 1), ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2], [2, 0, 3, 4, 1], [4, 2, 0, 1, 3]), strict=True
        )
    ]
    plateau = peak([1, 2, 3, 4], flat_top, paired=True, smallest=0.0)
    assert plateau is not None and not plateau.interior
    assert plateau.p_umbrella < 0.05  # it is against no difference at all
    assert peak([1, 2], three[:2], paired=True, smallest=0.0) is None


def test_the_umbrella_statistic_on_two_doses_is_the_rank_sum(monkeypatch):
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 6), rng.normal(1.2, 1, 6)
    found = umbrella_p([a, b], paired=False, permutations=20_000)
    monkeypatch.setattr(sys.modules["byrote.probes.degrade.dose_response"], "_PAIRS_AT_ONCE", 36_000)
    assert umbrella_p([a, b], paired=False, permutations=20_000) == found  # in parts as at once
    assert found == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue, abs=0.01)


def test_boundaries_over_sizes_are_a_power_law():
    bands = {}
    for n in (1e2, 1e4):
        means = np.where(1e5 / n == EPOCHS, 4.0, 2.0)
        bands[n] = dose_response(
            rows(means, epochs=EPOCHS), "epochs", baseline=rows([2.0], arm="control"), permutations=0
        )
    left, right = boundary_fit(bands)
    assert left.a == right.a == pytest.approx(-1) and right.k == pytest.approx(1e5 * 10**0.5)
    assert left.lo < -1 < left.hi
    assert np.isnan(boundary_fit({1e2: bands[1e2]})[0].a)


@pytest.mark.parametrize(
    ("table", "over", "words"),
    [
        (
            rows([1.0, 2.0]),
            "epochs",
            "epochs of arm-0-s0 is not declared, and a dose-response over epochs needs it",
        ),
        (rows([1.0, 2.0]), "epoch", "runs declare no 'epoch'"),
        (rows([1.0], epochs=3.0), "epochs", "all runs have epochs 3: a dose-response needs two"),
        (rows([1.0, 2.0], epochs=np.array([1.0, 2.0]), better=None), "epochs", "damage is undefined"),
    ],
)
def test_doses_that_are_refused(table, over, words):
    with pytest.raises(ByroteError, match=words):
        dose_response(table, over)


def test_the_near_zero_diagnostic_counts_grid_steps_and_seeds():
    pool = np.array([256.0, 64.0, 16.0, 4.0])
    damage, share = (
        rows([2.0, 2.2, 4.0, 3.0], pool=pool),
        rows([0.9, 0.4, 0.05, 0.0], pool=pool, metric="loss_share"),
    )
    found = near_zero(damage, share, "pool")
    assert (found.onset, found.worst, found.distance) == (16, 16, 0)
    assert (found.holds, found.seeds) == (5, 5) and found.lo == pytest.approx(0.025**0.2)
    late = near_zero(damage.assign(value=damage["value"].to_numpy()[::-1]), share, "pool")
    assert (late.worst, late.distance, late.holds) == (64, 1, 5)
    never = near_zero(damage, share.assign(value=0.5), "pool")
    assert np.isnan(never.onset) and np.isnan(never.distance) and never.holds == 0
    with pytest.raises(ByroteError, match="from different runs"):
        near_zero(damage, share.iloc[:-1], "pool")


# Curves, constants, counts.

STEPS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
HUMP = np.array([5, 4, 3.2, 3.0, 3.4, 4.2, 4.0, 3.3, 3.0, 2.9])


def test_double_descent_over_seeds_is_found_where_it_was_planted():
    loss = HUMP + np.concatenate([SEEDS, SEEDS[::-1]])[:5, None]
    found = double_descent(STEPS, loss, bandwidth=0)
    assert found is not None and found.found and (found.dip.step, found.top.step) == pytest.approx((8, 32))
    assert (found.rise.value, found.second_fall.value, found.seeds_with) == pytest.approx((1.2, 1.3, 5))
    assert found.top.lo < 16.01 and found.top.hi > 63.99  # no narrower than the steps beside
    assert double_descent(STEPS, np.sort(loss, axis=1)[:, ::-1].copy()) is None
    three = double_descent(STEPS, loss[:3])
    assert three is not None and not three.found
    with pytest.raises(ByroteError, match="1 curves of 10 steps are too little"):
        double_descent(STEPS, loss[:1])


def test_smoothing_leaves_a_constant_alone_and_averages_neighbours():
    x = np.arange(5.0)
    assert smoothed(x, np.ones((1, 5)), 1.0) == pytest.approx(np.ones((1, 5)))
    spike = smoothed(x, np.array([[0, 0, 1.0, 0, 0]]), 1.0)[0]
    assert spike[2] == pytest.approx(1 / (1 + 2 * np.exp(-0.5) + 2 * np.exp(-2)))


def test_effective_data_of_the_paper():
    assert effective_data(1.0, 1.0) == 1.0
    assert effective_data(1.0, 1e6) == pytest.approx(16.387756)
    assert effective_data(44.0, 4.0) == pytest.approx(44 + 44 * 15.387756 * (1 - np.exp(-3 / 15.387756)))


def test_r_star_is_found_again_and_rising_losses_are_refused():
    unique, epochs = (x.ravel() for x in np.meshgrid([1e5, 4e5, 1.6e6], [1.0, 4.0, 16.0, 64.0]))
    loss = 1.5 + 40 * effective_data(unique, epochs, 6.0) ** -0.3
    table = simulated_rows(
        loss[:, None] + 0.01 * SEEDS, epochs=epochs, tokens=unique * epochs, repeat_frac=1.0
    )
    table = with_unique_tokens(table)
    assert sorted(set(table["unique_tokens"])) == [1e5, 4e5, 1.6e6]
    found = fit_r_star(table, n_draws=20)
    assert found.r_star == pytest.approx(6.0, rel=0.05) and found.floor == pytest.approx(1.5, abs=0.1)
    assert found.exponent == pytest.approx(0.3, abs=0.03) and not found.at_edge and found.error < 1e-3
    rises = table.assign(value=np.where(table["epochs"] == 64, 9.0, table["value"]))
    with pytest.raises(ByroteError, match="rises from 16 to 64 epochs by"):
        fit_r_star(rises)
    with pytest.raises(ByroteError, match="five pairs"):
        fit_r_star(table[table["epochs"] == 4])
    with pytest.raises(ByroteError, match=r"repeats a part of its data \(f = 0.5\)"):
        with_unique_tokens(table.assign(repeat_frac=0.5))
    with pytest.raises(ByroteError, match="declares 0 epochs, less than one pass"):
        with_unique_tokens(table.assign(epochs=0.0))


def test_capacity_is_the_plateau_and_says_when_it_is_none():
    pools = np.array([64.0, 256.0, 1024.0])
    found = capacity(rows([0.5, 1.98, 2.0], pool=pools))
    assert found.plateau == pytest.approx(2.0) and not found.rising and found.lo < 2.0 < found.hi
    assert capacity(rows([0.5, 1.5, 2.0], pool=pools)).rising
    with pytest.raises(ByroteError, match="the runs have one"):
        capacity(rows([0.5], pool=64.0))


def test_extraction_has_a_threshold_in_duplicates():
    duplicates = np.array([1.0, 2, 4, 8, 16, 32, 64])
    p = 1 / (1 + np.exp(-3 * (np.log(duplicates) - np.log(8))))
    counts = pd.concat(
        [
            pd.DataFrame(
                {"run": str(i), "duplicates": duplicates, "extracted": np.round(1000 * p), "members": 1000}
            )
            for i in range(3)
        ]
    )
    found = extraction_threshold(counts)
    assert found.threshold == pytest.approx(8, rel=0.01) and found.steepness.value == pytest.approx(
        3, rel=0.02
    )
    assert found.inside and found.log_linear > 100 and found.seeds == 3
    with pytest.raises(ByroteError, match="2 numbers of duplicates are too few for a curve"):
        extraction_threshold(counts[counts["duplicates"] < 3])
    with pytest.raises(ByroteError, match="needs run, duplicates above 0"):
        extraction_threshold(counts.assign(duplicates=np.inf))
    with pytest.raises(ByroteError, match="needs run, duplicates above 0"):
        extraction_threshold(counts.assign(duplicates=0.0))


def test_firth_is_finite_where_all_or_none_are_extracted():
    x, none, all_ = np.array([1.0, 2, 4, 8]), np.zeros(4), np.array([0.0, 0, 8, 8])
    n = np.full(4, 8.0)
    assert np.isfinite(firth_logistic(x, none, n)).all()
    a, b = firth_logistic(x, all_, n)
    assert 2 < np.exp(-a / b) < 4 and b < 30
    many = np.array([100.0, 300, 700, 900])
    plain = firth_logistic(x, many, np.full(4, 1000.0))  # the penalty hardly matters where n is large
    p = 1 / (1 + np.exp(-(plain[0] + plain[1] * np.log(x))))
    assert (many - 1000 * p).sum() == pytest.approx(0, abs=1) and (
        (many - 1000 * p) * np.log(x)
    ).sum() == pytest.approx(0, abs=2)


def test_the_noise_floor_is_the_chi_squared_interval():
    row = noise_floor(rows([2.0])).iloc[0]
    sd = SEEDS.std(ddof=1)
    assert row["sd"] == pytest.approx(sd) and row["visible"] == pytest.approx(
        1.96 * np.sqrt(2) * sd, rel=1e-3
    )
    assert row["lo"] == pytest.approx(sd * np.sqrt(4 / stats.chi2.ppf(0.975, 4)))
    assert row["hi"] == pytest.approx(sd * np.sqrt(4 / stats.chi2.ppf(0.025, 4)))
    assert np.isnan(noise_floor(simulated_rows(np.array([[1.0]]))).iloc[0]["sd"])


def test_churn_counts_disagreements():
    right = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=np.float64)
    found = churn(right)
    assert (
        found.churn.value == pytest.approx((1 + 1 + 2) / 3 / 4)
        and found.right == 0.5
        and found.expected == 0.5
    )
    assert churn(np.ones((3, 4))).churn.value == 0
    with pytest.raises(ByroteError, match="yes-or-no answers") as error:
        churn(right / 2)
    assert "-p predictions" in error.value.help


def test_churn_of_predicted_tokens_counts_other_tokens():
    tokens = np.array([[7, 7, 3, 9], [7, 5, 3, 9], [7, 5, 4, 9]], dtype=np.float64)
    found = prediction_churn(tokens)
    assert found.churn.value == pytest.approx((1 + 2 + 1) / 3 / 4) and np.isnan(found.right)
    shares = np.array([4, 2, 2, 1, 3]) / 12  # of 7, 5, 3, 4 and 9
    assert found.expected == pytest.approx(1 - (shares**2).sum())
    with pytest.raises(ByroteError, match="at the same places"):
        prediction_churn(tokens[:1])


# Calibrations: a few tries each here, thousands in `byrote selftest --long`.


@pytest.mark.parametrize(
    "calibration", [*size_calibrations(), *dose_calibrations(), *curve_calibrations()], ids=lambda c: c.name
)
def test_intervals_and_alarms_keep_their_level(calibration):
    found = calibration.check(20, seed=4)
    assert found.passed, found.found


def test_intervals_that_are_too_narrow_are_noticed(monkeypatch):
    module = sys.modules[
        "byrote.probes.degrade.effective_size"
    ]  # the package has the function under this name
    monkeypatch.setattr(module, "half_width", lambda draws, *_: 0.5 * draws.std())
    found = size_calibrations()[0].check(100, seed=0)
    assert not found.passed, found.found


def test_a_peak_chosen_and_read_on_the_same_seeds_is_noticed():
    """What `peak` is there against: the largest of 11 doses on a plateau is a peak more often than in 5% of cases."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        values = np.where(np.arange(11) < 4, 0.0, 1.0)[:, None] + 0.1 * rng.normal(size=(11, 5))
        best = values[1:-1].mean(1).argmax() + 1
        alarms += stats.ttest_1samp(values[best] - values[-1], 0, alternative="greater").pvalue < 0.05
    assert alarms / 200 > 0.1
