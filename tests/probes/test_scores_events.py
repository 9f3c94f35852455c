"""Onsets and peaks of one metric, as a notebook asks for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from paper_runs import planted_run
from test_trajectory_and_degradation import LOW, _write

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results.curve import curves_of
from byrote.probes.simulated import flat, log_grid, simulated_curve
from byrote.probes.trajectory import threshold_crossing

ONE, BOTH = [[0.03, 0.03], [0.8, 0.03]], [[0.03, 0.03], [0.8, 0.7]]


def test_onset_at_a_level_lies_between_the_measured_steps_around_it(tmp_path):
    """From 0.03 to 0.8 between steps 99 and 999: nothing was seen in between, and no step there is named."""
    results = _write(tmp_path, "run", {0: LOW, 99: LOW, 999: ONE, 9999: BOTH})
    found = results["prefix_matching"].onset(threshold=0.415)
    assert found.table[["head", "between_step_lo", "between_step_hi"]].to_numpy().tolist() == [
        ["L1H0", 99, 999],
        ["L1H1", 999, 9999],
    ]
    first = found.table.iloc[0]
    assert "step" not in first and first["n"] == 16
    assert first["lo"] <= 99 and first["hi"] >= 999
    assert "L1H0: between steps 99 and 999\n" in found.text
    assert "L0H0: none: never significantly above 0.415" in found.text and found.found


def test_a_level_nobody_reaches_has_no_onset(tmp_path):
    found = _write(tmp_path, "run", {0: LOW, 100: ONE, 200: LOW})["prefix_matching"].onset(0.4)
    assert not found.found and "none: never significantly above 0.4; at most 0.8" in repr(found)
    assert list(found.table.columns)[:3] == ["head", "between_step_lo", "between_step_hi"]


def test_losses_are_reached_from_above(tmp_path):
    results = _write(tmp_path, "run", {0: LOW, 100: ONE}, loss=1.0)
    assert results["repeat_loss"].onset(2.0).text == "whole model: by the first measured step (0)"
    assert "none: never significantly below 0.5; at least 1" in results["repeat_loss"].onset(0.5).text


def test_onset_of_its_own_rise_and_of_chosen_heads():
    run = planted_run()
    halves = run["prefix_matching"].onset()
    assert set(halves.table["head"]) == {"L1H0", "L1H2"}
    assert all(halves.table["between_step_lo"] == 384) and all(halves.table["between_step_hi"] == 448)
    one = run["prefix_matching"].head("L1H0").onset(0.4)
    assert one.table["head"].tolist() == ["L1H0"] and one.text.count("\n") == 0
    with pytest.raises(ByroteError, match="1 usable steps"):
        run["prefix_matching"].at(448).onset(0.4)
    with pytest.raises(ByroteError):
        run["offset_profile", "profile"].onset(0.4)


def test_peak_says_what_was_lost(tmp_path):
    lost = [[0.03, 0.03], [0.415, 0.03]]
    found = _write(tmp_path, "run", {0: LOW, 100: ONE, 200: ONE, 300: lost})["prefix_matching"].peak()
    row = found.table.set_index("head").loc["L1H0"]
    assert row["value"] == pytest.approx(0.8) and row["lost"] == pytest.approx(0.5)
    assert row["step_lo"] <= 100 <= row["step_hi"]
    assert "50% [50%, 50%] of its rise lost by the last step" in found.text


def test_hostile_names_are_escaped(tmp_path):
    results = _write(tmp_path, "<b>run", {0: LOW, 100: ONE, 200: ONE})
    shown = results["prefix_matching"].onset(0.4)._repr_html_()
    assert "<b>run" not in shown and "&lt;b&gt;run" in shown and "L1H0" in shown


def test_a_curve_just_below_a_level_is_not_said_to_reach_it():
    rng = np.random.default_rng(0)
    found = [
        threshold_crossing(simulated_curve(flat(0.39), log_grid(12), rng, concentration=5.0), 0.4).crossing
        for _ in range(40)
    ]
    assert sum(one is not None for one in found) <= 4


def test_a_head_with_several_values_at_one_step_is_a_refusal(tmp_path):
    """A small unit can hold a hundred thousand rows of one head; their curve would be resampled for minutes."""
    results = _write(tmp_path, "run", {0: LOW, 100: ONE})
    rows = results.rows("prefix_matching", "score", valid=True)
    info = results.info("prefix_matching")
    assert len(curves_of("run", rows, {}, info)) == 4
    with pytest.raises(ByroteError, match="run holds several values of prefix_matching score for one head"):
        curves_of("run", pd.concat([rows, rows[:1]]), {}, info)
