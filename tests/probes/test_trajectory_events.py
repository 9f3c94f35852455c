"""Onsets, peaks, decays, windows, order and turnover on curves whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_trajectory_and_degradation import HIGH, LOW, _write

from byrote.checkpoints.errors import ByroteError
from byrote.probes.calibration import calibrations, event_calibrations
from byrote.probes.results.curve import Curve
from byrote.probes.simulated import flat, log_grid, rise_and_fall, sigmoid, simulated_curve, true_crossing
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.trajectory import (
    CANNOT_TELL,
    EVENT_COLUMNS,
    crossings,
    decay,
    events,
    lead_lag,
    log_step,
    peak,
    phase_window,
    rise,
    total_mass,
    turnover,
)
from byrote.probes.trajectory.turnover import turnover_of

GRID = log_grid(12)


def _sharp(values: list[float], steps: list[int], **changes):
    """A curve without noise worth the name: every sequence has these values."""
    base = simulated_curve(flat(0.5), np.array(steps), np.random.default_rng(0))
    value = np.array(values)
    samples = value + np.linspace(-1e-4, 1e-4, 32)[:, None] * np.ones(len(steps))
    return replace(base, value=value, lo=value - 1e-4, hi=value + 1e-4, samples=samples, **changes)


def test_crossing_worked_by_hand():
    """From 0 to 0.8: the half-way 0.4 lies in the middle between steps 9 and 99 on ln(1 + step): 10^1.5 - 1."""
    found = crossings(_sharp([0.0, 0.0, 0.8, 0.8], [0, 9, 99, 999]))
    assert [c.bracket for c in found] == [(9, 99)] * 3
    assert found[1].value == pytest.approx(0.4, abs=1e-3)
    assert found[1].step == pytest.approx(10**1.5 - 1, rel=1e-3)
    assert all(c.lo <= 9 and c.hi >= 99 for c in found)


def test_step_0_has_a_place():
    assert log_step(0) == 0
    found = crossings(_sharp([0.0, 0.8, 0.8], [0, 1, 8]), fracs=(0.5,))
    assert found[0].bracket == (0, 1) and 0 < found[0].step < 1


def test_a_spike_at_one_step_is_no_rise():
    assert not rise(_sharp([0.1, 0.9, 0.1, 0.1], [0, 10, 100, 1000])).found


def test_at_the_ceiling_from_the_start_is_said():
    there = _sharp([0.85, 0.85, 0.85], [0, 10, 100], chance=0.03)
    found = rise(there)
    assert found.found and found.from_chance and not found.within
    assert all(c.bracket == (None, 0) and c.step is None and c.lo is None for c in crossings(there))
    unknown = rise(replace(there, chance=np.nan))
    assert not unknown.found and unknown.why_not


def test_flat_above_chance_has_no_onset_within_the_series():
    """A head that is at 0.3 by its random weights, where chance is 0.15: nothing happened."""
    rng = np.random.default_rng(7)
    found = [rise(simulated_curve(flat(0.3), GRID, rng, chance=0.15)) for _ in range(50)]
    assert all(one.from_chance for one in found) and sum(one.within for one in found) <= 2
    assert "rises no further" in found[0].why_not


def noisy(values, *, sd: float, n: int = 32) -> Curve:
    """A curve whose sequences differ by `sd` from step to step, with these very means."""
    noise = np.random.default_rng(0).normal(size=(n, len(values)))
    noise = (noise - noise.mean(0)) / noise.std(0, ddof=1) * sd
    samples = np.asarray(values) + noise
    half = 1.96 * sd / np.sqrt(n)
    curve = _sharp(values, [10**i for i in range(len(values))], chance=0.0)
    return replace(curve, samples=samples, n=n, lo=curve.value - half, hi=curve.value + half)


def test_the_end_of_the_interval_must_pass_the_smallest_effect():
    """Rises, losses and stands above chance of 0.07, known to 0.03, or to 0.004."""
    for sd, surely in ((0.08, False), (0.01, True)):
        up = noisy([0.0, 0.0, 0.07, 0.07], sd=sd)
        assert up.p_above(0, 1.0)[-1] < 0.01  # surely above 0 in both
        found = rise(up)
        assert found.within == surely and bool(found.why_not) != surely
        assert ("significantly more than 0.05" in found.why_not) != surely
        falls = noisy([0.0, 0.9, 0.9, 0.83], sd=sd)
        assert (decay(falls) is not None) == surely
        assert rise(noisy([0.07, 0.07, 0.07], sd=sd)).from_chance == surely


def test_heads_that_trade_places_must_surely_stand_above_chance():
    for sd, surely in ((0.08, False), (0.01, True)):
        heads = {
            (0, h): replace(noisy(values, sd=sd), layer=0, head=h)
            for h, values in enumerate([[0.07, 0.0], [0.0, 0.07], [-0.1, -0.1], [-0.1, -0.1]])
        }
        (row,) = turnover_of(heads, k=1).itertuples(index=False)
        assert (row.left, row.entered, row.sure) == ("L0H0", "L0H1", surely)


def test_what_stands_above_chance_at_first_and_falls_has_a_decay_and_no_window():
    falls = _sharp([0.8, 0.8, 0.45, 0.1], [0, 10, 100, 1000], chance=0.1)
    assert decay(falls).share == pytest.approx(1.0, abs=0.01)
    assert phase_window(falls) is None and lead_lag(falls, falls).first == CANNOT_TELL


def test_a_level_that_is_surely_lost_again_before_the_top_does_not_count():
    """Up to 0.2 for two steps, back to 0, then up for good: a tenth of 0.9 is crossed between 100 and 1000."""
    (found,) = crossings(_sharp([0.0, 0.2, 0.2, 0.0, 0.9, 0.9], [0, 1, 10, 100, 1000, 10000]), fracs=(0.1,))
    assert found.bracket == (100, 1000) and found.lo == pytest.approx(100, abs=1)


def test_a_dip_after_the_top_changes_no_onset():
    (found,) = crossings(_sharp([0.0, 0.9, 0.9, 0.0, 0.8], [0, 1, 10, 100, 1000]), fracs=(0.5,))
    assert found.bracket == (0, 1)


def test_the_strongest_of_many_has_to_pass_a_harder_test():
    rng = np.random.default_rng(3)
    path = sigmoid(5.0, 0.2, low=0.3, high=0.5)
    curves = [simulated_curve(path, GRID, rng, concentration=2.0) for _ in range(60)]
    alone, among = ([rise(replace(c, among=n)).within for c in curves] for n in (1, 144))
    assert 0 < sum(among) < sum(alone)


def test_the_top_of_many_noisy_steps_is_not_taken_too_high():
    """Ninety per cent of a rise that ends early, on 100 steps: a top that is too high would come late."""
    grid, rng, off = log_grid(80), np.random.default_rng(5), []
    path = sigmoid(4.0, 0.3)
    truth = true_crossing(path, 0.9, float(log_step(grid[-1])))
    for _ in range(12):
        (found,) = crossings(simulated_curve(path, grid, rng, concentration=5.0), fracs=(0.9,))
        off.append(log_step(found.step) - truth)
    assert abs(np.mean(off)) < 0.12


def test_falling_metrics_cross_downwards():
    found = crossings(_sharp([5.0, 5.0, 1.0, 1.0], [0, 9, 99, 999], better="lower"), fracs=(0.5,))
    assert found[0].value == pytest.approx(3.0, abs=1e-3) and found[0].bracket == (9, 99)
    assert not rise(_sharp([5.0, 5.0, 1.0, 1.0], [0, 9, 99, 999], better="higher")).found


def test_flat_noise_has_no_onset():
    rng = np.random.default_rng(1)
    found = [rise(simulated_curve(flat(0.3), GRID, rng, concentration=20.0)).found for _ in range(100)]
    assert np.mean(found) <= 0.05


def test_intervals_hold_the_true_onset_at_12_checkpoints():
    rng, held, off = np.random.default_rng(2), [], []
    for _ in range(40):
        path = sigmoid(rng.uniform(4.5, 6.5), 0.2)
        truth = np.expm1(true_crossing(path, 0.5, float(log_step(GRID[-1]))))
        (found,) = crossings(simulated_curve(path, GRID, rng), fracs=(0.5,))
        held.append(found.lo <= truth <= found.hi)
        off.append(log_step(found.step) - log_step(truth))
    assert np.mean(held) >= 0.93
    assert abs(np.mean(off)) < 0.05


def test_peak_and_decay():
    path = rise_and_fall(4.0, lost=0.5)
    found = simulated_curve(path, GRID, np.random.default_rng(3), concentration=50.0)
    at = np.linspace(0, float(log_step(GRID[-1])), 2000)
    truth = np.expm1(at[path(at).argmax()])
    best, lost = peak(found), decay(found)
    assert best.steps[0] <= truth <= best.steps[1]
    assert lost.share == pytest.approx(0.5, abs=0.05) and lost.lo < 0.5 < lost.hi + 0.02
    assert decay(simulated_curve(sigmoid(4.0, 0.3), GRID, np.random.default_rng(4))) is None


def test_phase_window_is_the_steepest_stretch():
    window = phase_window(_sharp([0.0, 0.1, 0.7, 0.8], [0, 9, 99, 999]))
    assert window.bracket == (9, 99)
    assert window.slope == pytest.approx(0.6 / np.log(10), rel=1e-3)


def test_order_of_two_curves():
    early = _sharp([0.0, 0.8, 0.8, 0.8], [0, 10, 100, 1000], probe="early")
    late = _sharp([0.0, 0.0, 0.0, 0.8], [0, 10, 100, 1000], probe="late")
    assert lead_lag(early, late).first == "early L0H0"
    assert lead_lag(late, early).first == "early L0H0"
    assert lead_lag(early, replace(early, probe="same")).first == CANNOT_TELL
    flat_one = _sharp([0.1] * 4, [0, 10, 100, 1000])
    assert lead_lag(early, flat_one).first == CANNOT_TELL


def test_turnover_of_heads_that_swap(tmp_path):
    swapped = [[0.03, 0.03], [0.03, 0.8]]
    results = _write(tmp_path, "run", {0: LOW, 100: HIGH, 200: swapped, 300: swapped})
    table = turnover(results, k=1).set_index("step_a")
    assert table.loc[100, ["jaccard", "left", "entered", "sure"]].tolist() == [0, "L1H0", "L1H1", True]
    assert table.loc[200, "jaccard"] == 1 and not table.loc[200, "sure"]
    assert table.loc[100, "mass_a"] == pytest.approx(table.loc[100, "mass_b"])
    with pytest.raises(ByroteError):
        turnover(results, k=0)


def test_total_mass_is_the_sum_over_heads_resampled_together(tmp_path):
    results = _write(tmp_path, "run", {0: LOW, 100: HIGH})
    table = total_mass(results).set_index("step")
    per_head = [c for key, c in results.curves("prefix_matching").items() if key is not None]
    chance = sum(c.chance for c in per_head)
    for i, step in enumerate((0, 100)):
        summed = sum(c.samples[:, i] for c in per_head)
        own = bootstrap_mean(summed[:, None])
        expected = [summed.mean(), own.lo[0], own.hi[0]]
        assert table.loc[step, ["value", "lo", "hi"]].to_numpy() + chance == pytest.approx(np.array(expected))
        assert table.loc[step, ["heads", "n"]].tolist() == [4, 16]
    again = turnover(results, k=1).iloc[0]
    assert [again["mass_a"], again["mass_b"]] == pytest.approx(table["value"].tolist(), abs=1e-9)


def test_total_mass_without_stored_sequences_adds_the_intervals_of_the_heads(tmp_path):
    results = _write(tmp_path, "run", {0: LOW, 100: HIGH})
    assert len(results.frame)  # read before they go
    for unit in results.path.glob("units/*/*.parquet"):
        unit.unlink()
    table = total_mass(results).set_index("step")
    rows = results.select("prefix_matching", "score", step=100)
    half = np.sqrt((((rows["hi"] - rows["lo"]) / 2) ** 2).sum())
    assert table.loc[100, "hi"] - table.loc[100, "lo"] == pytest.approx(2 * half)
    with pytest.raises(ByroteError, match="no values per head"):
        total_mass(results, probe="repeat_loss", metric="difference")


def test_events_of_a_run(tmp_path):
    table = events(_write(tmp_path, "run", {0: LOW, 100: HIGH, 200: HIGH}))
    assert list(table.columns) == EVENT_COLUMNS
    (circuit,) = table[table["event"] == "induction_onset"].itertuples(index=False)
    assert (circuit.step_lo, circuit.step_hi, circuit.layer, circuit.head) == (0, 100, 1, 0)
    half = table[(table["event"] == "onset_50") & (table["probe"] == "prefix_matching")]
    assert half[["layer", "head", "step_lo", "step_hi"]].to_numpy().tolist() == [[1, 0, 0, 100]]
    assert half["step"].isna().all() and half["tokens"].iloc[0] == 10_000 and half["n"].iloc[0] == 16


def test_curve_of_what_was_not_measured(tmp_path):
    with pytest.raises(ByroteError, match="not measured"):
        _write(tmp_path, "run", {0: LOW}).curve("prefix_matching", head=(5, 5))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_statistics_hold_on_much_simulated_data(seed):
    checks = [calibration.check(300, seed) for calibration in calibrations()]
    assert len(checks) > 50 and [c.name for c in checks if not c.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("n_steps", [40, 154])
def test_events_hold_on_denser_grids(n_steps):
    checks = [calibration.check(100, 0) for calibration in event_calibrations(n_steps)]
    assert [c.name for c in checks if not c.passed] == []
