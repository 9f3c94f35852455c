"""Every threshold, on either side of it."""

from __future__ import annotations

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
        ({"difference": 0.04, "lo": 0.03, "hi": 0.05}, "higher", rules.UNCLEAR, rules.UNCLEAR),
        ({"n": 0, "lo": 0.2, "hi": 0.2}, "higher", "exact", "higher"),
        ({"n": 0, "difference": 0.0, "lo": 0.0, "hi": 0.0}, "higher", "no change", rules.UNCLEAR),
    ],
)
def test_a_change_is_clear_when_it_is_sure_and_large(row, better, judged, words):
    own = {"difference": 0.2, "lo": 0.1, "hi": 0.3, "n": 32, "q": 0.01, "smallest": rules.SMALLEST} | row
    assert rules.judge_change(own, better) == judged
    assert rules.change(SimpleNamespace(**own, change=judged)) == words


def test_the_smallest_effect_goes_by_the_unit():
    assert rules.smallest_effect(lookup("prefix_matching"), "score") == rules.SMALLEST
    assert rules.smallest_effect(lookup("repeat_loss"), "later_blocks") == rules.SMALLEST
    assert rules.smallest_effect(lookup("composition"), "k_z") == rules.SMALLEST_Z
    assert rules.smallest_effect(lookup("composition"), "n_pairs") == 0.0
