"""The self-test passes on the instrument as it is, and notices when its statistics are broken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import pytest
from calibration_page import KEPT, PAGE, written_out

from byrote.probes.calibration import (
    Calibration,
    calibrations,
    comparison_calibrations,
    event_calibrations,
    interval_calibrations,
)
from byrote.probes.checks import Check, covers, exact, holds, low_share, seldom
from byrote.probes.degrade_calibration import degrade_calibrations
from byrote.probes.seed_calibration import seed_calibrations
from byrote.probes.selftest import run_selftest


def failed(checks: Iterable[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def failed_of(table: Iterable[Calibration], tries: int) -> list[str]:
    return failed(calibration.check(tries, 0) for calibration in table)


@pytest.mark.slow
def test_it_passes_on_few_models_without_simulations():
    found = run_selftest(n_random=1, n_seq=16, tries=0)
    assert len(found.checks) > 25 and failed(found.checks) == []
    assert any("load_bearing" in line for line in found.lines)


@pytest.mark.slow
def test_it_passes_whole_in_two_minutes_of_one_core():
    seen, began = [], time.process_time()
    found = run_selftest(seed=1, on_progress=lambda *at: seen.append(at))
    assert time.process_time() - began < 120
    assert failed(found.checks) == []
    groups = 9 + len(calibrations()) + len(seed_calibrations()) + len(degrade_calibrations())
    assert seen == [(i, groups) for i in range(1, groups + 1)]


def test_every_simulation_has_outcomes():
    table = calibrations()
    assert len(table) > 50 and len({c.name for c in table}) == len(table)
    for calibration in table:
        check = calibration.check(3, 1)
        assert check.name == calibration.name and check.n > 0, check


def test_the_page_says_what_a_long_run_found():
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert written_out(kept) in PAGE.read_text(encoding="utf-8"), "run: python tests/calibration_page.py"
    names = [check["check"] for check in kept["checks"]]
    simulated = [c.name for c in (*calibrations(), *seed_calibrations(), *degrade_calibrations())]
    assert [name for name in names if name in simulated] == simulated
    assert all(check["passed"] for check in kept["checks"])
    assert kept["date"] and kept["versions"]["torch"] and "--long" in kept["command"]


def test_intervals_that_are_too_narrow_are_noticed(monkeypatch):
    monkeypatch.setattr("byrote.probes.statistics.tail_frac", lambda n, **_: 0.06)
    resampled = [c for c in interval_calibrations() if " of few" not in c.name and " yes in" not in c.name]
    found = failed_of(resampled[:19], 30)
    assert "95% intervals, middling score, n = 32" in found
    assert "95% intervals, difference of two runs on the same 32 sequences" in found


def test_a_missing_correction_over_heads_is_noticed(monkeypatch):
    monkeypatch.setattr("byrote.probes.degradation.benjamini_hochberg", lambda p: p)
    found = failed_of(comparison_calibrations()[:3], 40)
    assert "compare, 16 changed heads among 64: share of those reported that are false" in found
    assert "compare, 16 heads of equal truth: any clear change" in found


def test_onsets_reported_without_a_test_are_noticed(monkeypatch):
    monkeypatch.setattr("byrote.probes.trajectory.crossing.ALPHA", 1e9)
    found = failed_of(event_calibrations()[:2], 40)
    assert "onset of any of the 4 strongest of 16 flat heads, 12 checkpoints" in found


def test_a_rate_is_judged_by_its_own_uncertainty():
    assert exact(0, 20) == (0.0, pytest.approx(1 - 0.005 ** (1 / 20)))
    assert exact(20, 20)[1] == 1.0
    assert (
        covers("", [True] * 95 + [False] * 5).passed and not covers("", [True] * 800 + [False] * 200).passed
    )
    assert not covers("", [True] * 1000).passed and holds("", [True] * 1000).passed
    assert not holds("", []).passed and not seldom("", []).passed
    assert (
        seldom("", [True] * 7 + [False] * 93).passed and not seldom("", [True] * 100 + [False] * 900).passed
    )
    assert low_share("", [0.0, 0.08] * 50).passed and not low_share("", [0.1, 0.12] * 50).passed
