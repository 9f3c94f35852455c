"""Every threshold, on either side of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from byrote.probes import rules
from byrote.probes.registry import lookup

Q = {"q_prefix": 0.01, "q_copying": 0.01}
LO = {"prefix_excess": 0.2, "copying_excess": 0.2, "jitter_excess": 0.2}


@pytest.mark.parametrize(
    ("q", "lo", "measured", "verdict"),
    [
        ({}, {}, True, 1.0),
        ({"q_prefix": 0.05}, {}, True, 0.0),
        ({"q_copying": 0.05}, {}, True, 0.0),
        ({}, {"prefix_excess": 0.05}, True, 0.0),
        ({}, {"copying_excess": 0.05}, True, 0.0),
        ({}, {"jitter_excess": np.nan}, True, 0.0),
        ({"q_copying": np.nan}, {"copying_excess": np.nan}, False, np.nan),
        ({"q_prefix": 0.5}, {"copying_excess": np.nan}, False, 0.0),
    ],
)
def test_an_induction_head_passes_every_test(q, lo, measured, verdict):
    arrays = (
        {name: np.array([value]) for name, value in (known | own).items()}
        for known, own in ((Q, q), (LO, lo))
    )
    found = rules.induction_verdict(*arrays, copying_measured=np.array([measured]))
    np.testing.assert_equal(found, [verdict])
    assert rules.is_called(found).tolist() == [verdict == 1.0]


def test_a_previous_token_head_has_its_whole_interval_above_the_threshold():
    assert rules.is_previous_token_head(np.array([0.4, 0.41, np.nan])).tolist() == [False, True, False]


def test_what_lasts_is_there_at_the_next_step_too():
    there = np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)
    assert rules.is_lasting(there).tolist() == [[True, False], [False, False], [False, True]]
    assert rules.is_lasting(there[:1]).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("row", "better", "judged", "words"),
    [
        ({}, "higher", "better", "better"),
        ({}, "lower", "worse", "worse"),
        ({}, None, "higher", "higher"),
        ({"difference": -0.2, "lo": -0.3, "hi": -0.1}, None, "lower", "lower"),
        ({"q": 0.05}, "higher", rules.UNCLEAR, rules.UNCLEAR),
        ({"lo": 0.0}, "higher", rules.UNCLEAR, rules.UNCLEAR),
        ({"difference": 0.06, "lo": 0.04, "hi": 0.08}, "higher", rules.UNCLEAR, rules.UNCLEAR),
        ({"n": 0, "lo": 0.2, "hi": 0.2}, "higher", "exact", "higher"),
        ({"n": 0, "difference": 0.0, "lo": 0.0, "hi": 0.0}, "higher", "no change", rules.UNCLEAR),
    ],
)
def test_a_change_is_clear_when_it_is_sure_and_large(row, better, judged, words):
    own = {"difference": 0.2, "lo": 0.1, "hi": 0.3, "n": 32, "q": 0.01, "smallest": rules.SMALLEST} | row
    assert rules.judge_change(own, better, seeds=rules.MIN_SEEDS) == judged
    assert rules.change(SimpleNamespace(**own, change=judged)) == words


def test_the_smallest_effect_is_in_the_metrics_own_unit():
    for probe, metric, size in (
        ("prefix_matching", "score", 0.05),
        ("repeat_loss", "later_blocks", 0.05),
        ("copy_curve", "slope", 0.005),
        ("loss_by_position", "slope_late", 0.01),
        ("composition", "k_z", 1.0),
        ("composition", "n_pairs", 1.0),
        ("unintended_bits", "bits@twins", 1.0),
        ("unintended_bits", "share@twins", 0.05),
    ):
        assert rules.smallest_effect(lookup(probe), metric) == size
        assert rules.smallest_reason(lookup(probe), metric)
    strange = replace(lookup("repeat_loss"), unit="furlongs", units={})
    assert rules.smallest_effect(strange, "later_blocks") == 0.0 and not rules.smallest_reason(
        strange, "score"
    )


def test_the_end_of_an_interval_passes_the_smallest_effect_or_nothing_is_said():
    row = {"difference": 0.2, "lo": 0.049, "hi": 0.4, "n": 32, "q": 1e-9, "smallest": 0.05}
    assert rules.judge_change(row, None) == rules.UNCLEAR
    assert rules.judge_change(row | {"lo": 0.051}, None) == "higher"
    ends = {"chance": 0.1, "smallest": 0.05}
    assert rules.against_chance(0.3, 0.149, 0.5, **ends) == "at"
    assert rules.against_chance(0.3, 0.151, 0.5, **ends) == "above"
    assert rules.against_chance(0.0, -0.1, 0.049, **ends) == "below"


@pytest.mark.parametrize(("seeds", "judged"), [(1, "higher"), (4, "higher"), (5, "worse")])
def test_below_five_seeds_a_side_no_change_is_worse(seeds, judged):
    row = {"difference": 0.2, "lo": 0.1, "hi": 0.3, "n": 32, "q": 0.01, "smallest": 0.05}
    assert rules.judge_change(row, "lower", seeds=seeds) == judged
