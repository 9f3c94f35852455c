"""`make torture`: seconds are shared out among the checks, and every case can be run again by its seed and number.

make torture                                  two minutes, another seed every time
make torture seconds=3600 seed=7              an hour, of a seed that was printed before
make torture seed=7 only=test_bit_flips case=31
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torture_cases import DEFAULT_S, SECONDS, Cases, seed

from byrote.checkpoints import atomic

sys.path.insert(0, str(Path(__file__).parents[1] / "safety"))  # its hostile folders


_SHARES: pytest.StashKey[dict[str, float]] = pytest.StashKey()
_FIXED_S = 3.0  # what a check without cases takes, where its mark says nothing


def pytest_collection_finish(session: pytest.Session) -> None:
    """Share the seconds out: by the weight at a check's mark, after what checks without cases take."""
    weights: dict[str, float] = {}
    left = float(os.environ.get(SECONDS) or DEFAULT_S) * int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for item in session.items:
        marker = item.get_closest_marker("torture")
        if marker and "cases" in getattr(item, "fixturenames", ()):
            weights[item.nodeid] = float(marker.kwargs.get("weight", 1))
        elif marker:
            left -= float(marker.kwargs.get("seconds", _FIXED_S))
    of_one = max(left, 0) / max(sum(weights.values()), 1)
    session.config.stash[_SHARES] = {name: weight * of_one for name, weight in weights.items()}


@pytest.fixture
def cases(request: pytest.FixtureRequest, record_property: Any) -> Iterator[Cases]:
    """The cases of this check."""
    name = request.node.name
    found = Cases(name, request.config.stash[_SHARES].get(request.node.nodeid, 1.0))
    yield found
    record_property("cases", f"{', '.join(found.done)}")


@pytest.fixture(autouse=True)
def _layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is synced, and the real layer comes back after each check."""
    monkeypatch.delenv(atomic.SYNC_VARIABLE, raising=False)
    monkeypatch.setattr(atomic, "layer", atomic.FileLayer())


def pytest_report_header() -> str:
    """How to have the very same again."""
    seconds = os.environ.get(SECONDS) or f"{DEFAULT_S:g}"
    return f"torture: seed={seed()} seconds={seconds}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was tried."""
    lines = [
        f"  {report.nodeid.split('::')[-1]}: {dict(report.user_properties)['cases']} ({report.duration:.0f} s)"
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, ())
        if dict(report.user_properties).get("cases")
    ]
    if lines:
        terminalreporter.write_line(f"torture: seed={seed()}; cases:")
        for line in sorted(lines):
            terminalreporter.write_line(line)
