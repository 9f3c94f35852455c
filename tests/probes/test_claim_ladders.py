"""Claims that compare metrics as sizes: planted multipliers are given back, and ladders that say nothing are no verdict."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.probes import figures
from byrote.probes.claims.catalogue import CLAIMS
from byrote.probes.claims.judging import UNTESTABLE, judge_claims
from byrote.probes.claims.ladders import HIGH, LOW, NONE, Scale, against_test_loss, worst_of_others
from byrote.probes.claims.null_runs import by_size, simulated_runs
from byrote.probes.claims.runs_table import Runs
from byrote.probes.rules import NOT_REPRODUCED, REPRODUCED
from byrote.report.claims import Made, claims_report

COPYING, RECALL = (CLAIMS[f"hernandez-{name}"] for name in ("copying-in-sizes", "icl"))
MATCHING = Scale("prefix_matching", "linear", "prefix matching", better="higher")
MADE = Made("byrote reproduce hernandez", "2026-01-01", "a machine", 1.0, {})
WORST = {LOW[1].arm, HIGH[0].arm}


def table(multipliers, *, ladder=by_size, seeds=5):
    """Runs whose worst arms are worth these sizes of their own, by metric; all other arms are worth their own."""

    def curves(place, metric, rng):
        if place in NONE or metric == "test_floor":
            return ladder(place, metric, rng)
        m = multipliers.get(metric, 1.0) if place.arm in WORST else 1.0
        if metric == "prefix_matching":
            return ladder(place, metric, rng) + 0.1 * np.log(m)
        above = 6 * 16**-0.7
        return ladder(place, metric, rng) + above * (
            m**-0.35 - 1
        )  # the law of widths, at a width of 16 sqrt(m)

    return simulated_runs([*NONE, *LOW, *HIGH], curves, seeds=seeds)


def test_the_worst_dose_is_chosen_on_the_other_seeds():
    assert worst_of_others(np.array([[1.0, 5.0, 3.0], [4.0, 2.0, 3.0], [4.0, 2.0, 3.5]])) == [0, 1, 1]
    assert worst_of_others(np.array([[1.0, 5.0, 3.0]])) == [1]


def test_copying_that_is_hit_harder_is_reproduced_with_the_sizes_that_were_planted():
    (found,) = judge_claims([COPYING], table({"test_loss": 0.9, "copy_loss": 0.6}))
    assert found.word == REPRODUCED and found.verdict is not None
    assert found.verdict.value == pytest.approx(np.log(0.6 / 0.9), abs=0.08)
    assert (
        "worst at a pool of 4 in " in found.words
        and "At a share of one half: worst at a pool of 128" in found.words
    )
    (found,) = judge_claims([COPYING], table({"test_loss": 0.6, "copy_loss": 0.8}))
    assert found.word == NOT_REPRODUCED


def test_a_score_is_read_off_a_line():
    found = against_test_loss(Runs(table({"test_loss": 0.9, "prefix_matching": 0.6})), MATCHING, LOW)
    assert found.values.mean() == pytest.approx(np.log(0.6 / 0.9), abs=0.15)
    assert "prefix matching 0." in found.words and "test loss 0." in found.words


@pytest.mark.parametrize(
    ("recall", "copying", "word"),
    [(0.8, 0.6, REPRODUCED), (0.7, 0.85, NOT_REPRODUCED), (1.0, 0.7, NOT_REPRODUCED)],
)
def test_recall_has_to_be_harmed_and_copying_more(recall, copying, word):
    planted = {"test_loss": 0.7, "copy_start_part_loss": recall, "copy_loss": copying}
    assert judge_claims([RECALL], table(planted))[0].word == word


def rising(place, metric, rng):
    """As `by_size`, but larger models copy worse."""
    found = by_size(place, metric, rng)
    return 9.0 - found if metric == "copy_loss" else found


def test_a_ladder_that_is_not_monotone_is_no_verdict_and_is_drawn_and_said_with_its_numbers():
    runs = table({"test_loss": 0.7}, ladder=rising)
    (found,) = judge_claims([COPYING], runs)
    assert found.word == UNTESTABLE and found.verdict is None
    assert "copying gives no sizes: the control's ladder is not monotone" in found.words
    assert " at d32" in found.words
    report = claims_report([found], runs, MADE)
    (paper,) = (section for section in report.sections if section.name == "hernandez")
    said = [getattr(block, "text", "") for block in paper.blocks]
    assert f"Not testable here: {found.words}." in said
    assert "claim-hernandez-copying-in-sizes" in [getattr(block, "name", "") for block in paper.blocks]


@pytest.mark.parametrize(
    ("test", "copy", "word"),
    [
        (0.2, 0.8, NOT_REPRODUCED),  # test loss is worth at most 0.56: copying surely more
        (0.2, 0.2, UNTESTABLE),  # both are at most 0.56
        (0.8, 0.2, REPRODUCED),  # copying is worth at most 0.56: surely less
        (0.59, 0.2, UNTESTABLE),  # at most 0.56 against 0.59
    ],
)
def test_a_bound_counts_where_it_says_which_is_hit_harder(test, copy, word):
    (found,) = judge_claims([COPYING], table({"test_loss": test, "copy_loss": copy}))
    assert found.word == word
    assert ("beyond the ladder" if word == UNTESTABLE else "at most") in found.words


def test_the_figure_has_the_ladder_as_a_line_and_every_arm_at_its_size():
    runs = table({"test_loss": 0.9, "copy_loss": 0.6})
    fig = figures.claim(runs, judge_claims([COPYING], runs)[0])
    lines = {t.name: (list(t.x), list(t.y)) for t in fig.data if t.mode == "lines+markers"}
    assert lines["none"][0] == [20.0 * width**2 for width in (12, 16, 20, 24, 32)]
    assert lines["none"][1] == sorted(lines["none"][1], reverse=True)
    assert all(lines[place.arm][0] == [5120.0] for place in (*LOW, *HIGH))
    dots = [t for t in fig.data if t.name == "seeds of low-P16 d16"]
    assert len(dots) == 1 and len(dots[0].y) == 5
    assert fig.table["value"].tolist() == pytest.approx([y for _, ys in lines.values() for y in ys])
