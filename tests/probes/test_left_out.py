"""Steps that lint leaves out: drawn in grey, counted for nothing, and said."""

from __future__ import annotations

import pytest
from paper_runs import planted_run, rebuilt

from byrote.probes import figures
from byrote.probes.comparable import matched_steps
from byrote.probes.results import Results
from byrote.probes.trajectory import onset
from byrote.report.content import report_content

WHY = "equals final"


@pytest.fixture(scope="module")
def clean() -> Results:
    return planted_run()


@pytest.fixture(scope="module")
def doubted(clean: Results) -> Results:
    """The planted run, with lint's word that step 320, where its head first shows, is not what it claims to be."""
    return rebuilt(clean, lint={"facts": [], "left_out": {"320": WHY}})


def test_marked_rows_keep_their_value_and_carry_the_reason(clean: Results, doubted: Results) -> None:
    assert doubted.left_out == {320: WHY} and clean.left_out == {}
    assert 320 in doubted.steps and 320 not in doubted.usable_steps
    marked = doubted.usable_frame[doubted.usable_frame["step"] == 320]
    measured = doubted.frame[doubted.frame["step"] == 320]
    assert measured["valid"].any() and not marked["valid"].any()
    assert marked["value"].equals(measured["value"])
    was_valid = marked.loc[measured["valid"], "reason"]
    assert set(was_valid) == {f"left out by lint: {WHY}"}
    others = doubted.usable_frame[doubted.usable_frame["step"] != 320]
    assert not others["left_out"].any()


def test_curves_show_them_as_grey_rings_off_the_line(clean: Results, doubted: Results) -> None:
    before = figures.trajectory(clean, probe="prefix_matching")
    after = figures.trajectory(doubted, probe="prefix_matching")
    assert all(t.name != "left out by lint" for t in before.data)
    line = next(t for t in after.data if t.name == "unique L1H0")
    assert line.y[list(line.x).index(320)] is None
    ring = next(t for t in after.data if t.name == "left out by lint")
    assert list(ring.x) == [320] and ring.marker.symbol == "circle-open"
    assert ring.y[0] == clean.select("prefix_matching", "score", step=320)["value"].max()
    assert ring.hovertext[0].endswith(f"left out by lint: {WHY}") and "not measured" not in ring.hovertext[0]
    losses = figures.loss_curves(doubted)
    assert sum(t.name == "left out by lint" for t in losses.data) == 2


def test_grids_say_so_in_their_titles(doubted: Results) -> None:
    one = figures.head_grid(doubted, probe="prefix_matching", step=320)
    assert "320 (left out by lint)" in one.layout.title.text
    many = figures.grid_steps(doubted, probe="prefix_matching", steps=[256, 320])
    titles = [note.text for note in many.layout.annotations]
    assert "step 320 (left out by lint)" in titles and "step 256" in titles


def test_onsets_and_comparisons_do_not_read_them(clean: Results, doubted: Results) -> None:
    assert onset(clean).bracket == (256, 320)
    lo, hi = onset(doubted).bracket
    assert lo == 256 and hi > 320
    assert (320, 320) in matched_steps(clean, clean, "step")
    for axis in ("step", "tokens"):
        assert all(320 not in pair for pair in matched_steps(clean, doubted, axis))


def test_the_report_says_so_first(doubted: Results) -> None:
    alerts = [alert.text for alert in report_content([doubted], date="2026-01-01").alerts]
    assert any("lint leaves out step 320" in text.lower() and WHY in text for text in alerts)
