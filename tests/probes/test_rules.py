"""Every threshold, on either side of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from byrote.probes import rules
from byrote.probes.heads.induction import induction
from byrote.probes.memory.mem_gap import mem_gap
from byrote.probes.registry import lookup

FORMER_Q = {"q_prefix": 0.01, "q_copying": 0.01}
FORMER_LO = {"prefix_excess": 0.2, "copying_excess": 0.2, "jitter_excess": 0.2}
Q = FORMER_Q | {"q_dla": 0.01}
LO = FORMER_LO | {"dla": 0.2, "dla_excess": 0.2, "dla_share": 0.2, "copied": 0.3}


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
        ({"q_dla": 0.05}, {}, True, 0.0),
        ({}, {"dla": 0.1}, True, 0.0),
        ({}, {"dla_excess": 0.1}, True, 0.0),
        ({}, {"dla_share": 0.05}, True, 0.0),
        ({}, {"copied": 0.25}, True, 0.0),
        ({}, {"dla_excess": np.nan}, False, np.nan),
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


def test_results_of_earlier_versions_are_judged_without_what_they_lack():
    found = rules.induction_verdict(
        {name: np.array([q]) for name, q in FORMER_Q.items()},
        {name: np.array([lo]) for name, lo in FORMER_LO.items()},
        copying_measured=np.array([True]),
    )
    assert found.tolist() == [1.0]


def test_the_first_condition_that_is_not_met_is_named():
    heads = [
        {},
        {"copied": 0.1},
        {"dla": 0.05, "copied": 0.0},
        {"prefix_excess": 0.0, "dla": 0.0},
        {"dla_share": 0.01},
    ]
    lo = {name: np.array([head.get(name, value) for head in heads]) for name, value in LO.items()}
    q = {name: np.full(len(heads), value) for name, value in Q.items()}
    found = [int(place) for place in rules.unmet_condition(q, lo)]
    names = ["", *rules.FLOORS]
    assert [names[place] for place in found] == ["", "copied", "dla", "prefix_excess", "dla_share"]
    words = lookup("induction").words["unmet"]
    assert len(words) == len(names) and words[found[1]] == "copies few ids"


LOAD = {
    "signature": 0.5, "top_change": 1.0, "over_tenth": 0.5, "excess": 0.9,
    "joint_signature": np.nan, "joint_change": np.nan, "over_half": np.nan, "joint_excess": np.nan,
}  # fmt: skip
JOINT = {"joint_signature": 0.1, "joint_change": 2.0, "over_half": 0.5, "joint_excess": np.nan}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "load-bearing"),
        (
            {"top_change": 0.04},
            "signature only",
        ),  # the neighbours help when they are removed: excess says nothing
        ({"over_tenth": -0.1}, "signature only"),
        ({"excess": 0.04}, "signature only"),
        ({"signature": 0.04}, "load without signature"),
        ({"signature": np.nan}, "load without signature"),
        ({"signature": 0.04, "top_change": 0.04}, "neither"),
        ({"signature": 0.04, "excess": np.nan}, ""),
        ({"excess": np.nan}, ""),
        ({"excess": np.nan, "top_change": 0.04}, "signature only"),
        ({"excess": 0.04} | JOINT, "distributed induction"),
        ({"signature": 0.02, "excess": 0.0} | JOINT, "distributed induction"),
        ({"signature": 0.02, "excess": 0.0} | JOINT | {"joint_signature": 0.04}, "neither"),
        ({"excess": 0.04} | JOINT | {"over_half": -0.1}, "signature only"),
        ({"excess": 0.04} | JOINT | {"joint_excess": 0.01}, "signature only"),
        (JOINT, "load-bearing"),
    ],
)
def test_what_load_bearing_says(changes, word):
    assert lookup("load_bearing").word_of("verdict", rules.load_verdict(LOAD | changes)) == word


@pytest.mark.parametrize(
    ("probe", "metric", "remedy"),
    [
        ("induction", "verdict", "--sequences 16 or more"),
        ("load_bearing", "verdict", "--sequences 16 or more"),
        ("mem_gap", "near_zero", "give more members"),
    ],
)
def test_a_verdict_needs_16_sequences_and_numbers_do_not(probe, metric, remedy):
    info = lookup(probe)
    reason = rules.too_few(info, metric, 15)
    assert reason.startswith("no verdict on fewer than 16 sequences, and there were 15") and remedy in reason
    assert rules.too_few(info, metric, 16) == rules.too_few(info, metric, 0) == ""
    numbers = [m for m in info.metrics if m not in ("verdict", "unmet", "on_sink_free", "near_zero")]
    assert numbers and not any(rules.too_few(info, m, 2) for m in numbers)


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


# Lower precision.


def judged(matching: float, dtype: str, copying: float = 0.5) -> tuple[float, float]:
    """Verdict and unmet condition of a head that matches so much more than its null."""
    noise = np.random.default_rng(0).normal(0, 1e-4, size=(32, 1))
    found = induction(
        prefix=matching + noise,
        prefix_shuffled=0 * noise,
        prefix_jittered=0.5 + noise,
        jitter_chance=np.zeros(1),
        copying=copying + noise,
        copying_chance=np.zeros(1),
        dtype=dtype,
    )
    return float(found.verdict[0]), float(found.unmet[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_rounding_may_decide_has_no_verdict(dtype):
    margin = rules.ROUNDING[dtype]["prefix_excess"]
    for off, exact in ((margin / 2, (1.0, 0.0)), (-margin / 2, (0.0, 1.0))):
        assert judged(rules.SMALLEST + off, "float32") == exact
        assert np.isnan(judged(rules.SMALLEST + off, dtype)).all()
    for off in (2 * margin, -2 * margin):
        assert judged(rules.SMALLEST + off, dtype) == judged(rules.SMALLEST + off, "float32")
    # Where another condition fails by far, the matching near its floor decides nothing.
    assert judged(rules.SMALLEST + margin / 2, dtype, copying=0.01)[0] == 0.0
    assert rules.undecided("float32") == "" and "--dtype float32" in rules.undecided(dtype)


def test_every_number_of_a_verdict_has_a_margin_of_rounding():
    """A number without one would be taken for exact."""
    assert set(rules.FLOORS) <= set(rules.ROUNDING["bfloat16"])
    assert set(LOAD) <= set(rules.ROUNDING["bfloat16"])
    by = rules.ROUNDING["bfloat16"]
    lo = LOAD | {"top_change": rules.SMALLEST + by["top_change"] / 2}
    assert [rules.load_verdict(rules.moved(lo, "bfloat16", sign)) for sign in (-1, 1)] == [1.0, 3.0]
    np.testing.assert_equal(rules.moved(lo, "float32", -1), lo)


def test_near_zero_is_not_said_where_rounding_decides():
    by = rules.ROUNDING["bfloat16"]["loss_share"]
    rows = {}
    for share, said in ((0.1 - by / 2, np.nan), (0.1 - 3 * by, 1.0)):
        for name, values in {"members": np.full(64, 10 * share), "twins": np.full(64, 10.0),
                             "repeats": np.ones(64), "in_all": np.full(64, 64.0)}.items():  # fmt: skip
            rows[name] = pd.DataFrame({"valid": [True], "reason": [""], "samples": [values]})
        (flag,) = [m for m in mem_gap.finisher(rows, dtype="bfloat16") if m.metric == "near_zero"]
        assert float(flag.values) == said or (np.isnan(said) and np.isnan(flag.values))
        assert "rounding to bfloat16" in flag.undefined
        (exact,) = [m for m in mem_gap.finisher(rows) if m.metric == "near_zero"]
        assert float(exact.values) == 1.0 and "rounding" not in exact.undefined
