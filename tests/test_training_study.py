"""docs/case-studies/training.md says what the table beside it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "real"))

from training_page import FOLDER, written
from training_table import GAP, HELD_OUT, MEMBERS, TWINS, Runs


def test_the_page_and_its_figures_are_those_of_the_table():
    for path, text in written().items():
        assert path.read_text(encoding="utf-8") == text, "run: python tests/real/training_page.py"


def test_differences_are_taken_pair_by_pair():
    runs = Runs.read(FOLDER)
    now, start = ("repeated", runs.turn), ("repeated", 0)
    values = [runs.row(*place, HELD_OUT, 0)["value"] for place in (now, start)]
    value, lo, hi = runs.difference(HELD_OUT, now, start, 0)
    assert value == pytest.approx(values[0] - values[1], abs=1e-5) and lo < value < hi
    apart = [np.std(runs.samples(*place, HELD_OUT, 0)) for place in (now, start)]
    assert hi - lo < 4 * np.hypot(*apart) / np.sqrt(16)  # what two samples that are no pairs would give
    gap = runs.difference(GAP, now, start, 0)[0]
    each = [runs.difference(one, now, start, 0)[0] for one in (TWINS, MEMBERS)]
    assert gap == pytest.approx(each[0] - each[1], abs=1e-6)
