"""Prefix matching as one number per model: worked by hand, and not raised by its own choice of heads."""

from __future__ import annotations

import numpy as np
import pandas as pd
from planted_series import head_metric, write_results

from byrote.probes.heads.prefix_aggregates import finish, prefix_aggregates
from byrote.probes.results import Results
from byrote.probes.statistics import cross_fitted_top, held_out_best
from byrote.probes.trajectory import total_mass

SCORES = np.array([[0.9, 0.5, 0.03], [0.41, 0.03, 0.1]])


def test_each_aggregate_by_hand():
    found = {name: own.mean() for name, own in prefix_aggregates(np.tile(SCORES.ravel(), (8, 1))).items()}
    answers = {"max": 0.9, "mean": 1.97 / 6, "top_k": (0.9 + 0.5 + 0.41 + 0.1) / 4, "sum": 1.97}
    assert set(found) == set(answers)
    for name, answer in answers.items():
        np.testing.assert_allclose(found[name], answer)


def test_they_stand_in_the_results_of_a_run(tmp_path):
    write_results(tmp_path, "r", {5: [head_metric("prefix_matching", SCORES, chance=0.03, half=0.005)]})
    results = Results.open(tmp_path / "r")
    rows = results.frame[results.frame["probe"] == "prefix_aggregates"].set_index("metric")
    assert rows["valid"].all() and rows["head"].isna().all()
    assert rows.loc["count", "value"] == 3 and (rows.loc["count", "lo"], rows.loc["count", "hi"]) == (3, 3)
    assert rows.loc["heads", "value"] == 6 and rows.loc["max", "n"] == 32
    np.testing.assert_allclose(rows.loc["max", "value"], 0.9, atol=0.01)
    assert rows.loc["max", "lo"] < 0.9 < rows.loc["max", "hi"]
    np.testing.assert_allclose(rows.loc["sum", "chance"], 6 * 0.03)
    mass = total_mass(results)["value"].iloc[0]
    np.testing.assert_allclose(
        rows.loc["sum", "value"] - rows.loc["sum", "chance"], mass, atol=0.01
    )  # of rows, and of sequences


def test_a_head_at_the_threshold_is_counted_surely_nowhere():
    samples = np.random.default_rng(0).normal([0.9, 0.4, 0.1], 0.1, size=(32, 3))
    rows = pd.DataFrame(
        {
            "layer": [0, 0, 0],
            "head": [0, 1, 2],
            "samples": list(samples.T),
            "chance": 0.03,
            "valid": True,
            "reason": "",
        }
    )
    count = next(one for one in finish({"prefix": rows}) if one.metric == "count")
    assert (float(count.lo), float(count.hi)) == (1.0, 2.0)


def test_a_layer_that_was_not_measured_is_no_zero(tmp_path):
    gap = SCORES.copy()
    gap[1] = np.nan
    write_results(tmp_path, "r", {5: [head_metric("prefix_matching", gap)]})
    rows = Results.open(tmp_path / "r").frame.query("probe == 'prefix_aggregates'")
    assert not rows["valid"].any() and rows["reason"].str.contains("every head: planted gap").all()


def test_the_highest_of_many_noisy_heads_is_not_above_them():
    rng = np.random.default_rng(1)
    draws = [rng.normal(0.1, 0.05, size=(32, 64)) for _ in range(200)]
    plain = np.mean([d.mean(0).max() for d in draws])
    fair = np.mean([prefix_aggregates(d)["max"].mean() for d in draws])
    assert plain > 0.115 and abs(fair - 0.1) < 0.002
    best, own = held_out_best(draws[0])
    assert best == draws[0].mean(0).argmax() and np.array_equal(own, cross_fitted_top(draws[0], 1))
