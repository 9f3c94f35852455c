"""docs/lab.md says what the runs beside it say of the newer arms."""

from __future__ import annotations

import pandas as pd
import pytest
from arms_page import MEMBERS, RUNS, difference, matrix_of, pairs, place, written

from byrote.probes.claims.runs_table import Runs, read_runs
from byrote.probes.degrade import judge
from byrote.probes.degrade.verdicts import Rule


def test_the_page_and_its_figures_are_those_of_the_runs():
    for path, text in written().items():
        assert path.read_text(encoding="utf-8") == text, "run: PYTHONPATH=tests python tests/arms_page.py"


def test_every_arm_stands_beside_its_control_with_the_interval_that_claims_are_judged_by():
    runs = Runs(read_runs(RUNS))
    assert {arm for arm, _ in pairs()} == {
        "repeated", "rephrased", "questions", "dropout", "reweighted", "rest-g1", "rest-g2", "rest-g3",
    }  # fmt: skip
    for arm, control in pairs():
        seeds = runs.seeds(place(control), place(arm))
        assert len(seeds) == 5
        sides = [runs.final(place(name), "copy_loss", seeds) for name in (control, arm)]
        by_claims, found = judge(*sides, Rule("rises", 0.0)), difference(runs, arm, control, "copy_loss")
        assert (found.value, found.lo, found.hi) == pytest.approx(
            (by_claims.value, by_claims.lo, by_claims.hi)
        )


def test_experiments_are_four_of_eight_documents_and_runs_have_them_together():
    found = matrix_of(pd.read_parquet(MEMBERS), "loss")
    assert [len(members) for members in found.members] == [8] * 4 and found.runs == 12 and not found.by_seed
