"""When something appeared: worked by hand, and in the order in which a circuit forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_series import SHAPE, head_metric, rising, write_results

from byrote.probes.results import Results
from byrote.probes.statistics import stretched
from byrote.probes.trajectory import events
from byrote.probes.trajectory.appearance import above_null, appeared, first_lasting
from byrote.probes.trajectory.verdict import milestones

STEPS = (0, 10, 20, 30, 40)


def planted(root, values, *, probe="prefix_matching", half=0.02, more=lambda step: ()):
    """A run whose heads have these values: {(layer, head): one per step}; the others stand at chance, 0.05."""
    units = {}
    for i, step in enumerate(STEPS):
        grid = np.full(SHAPE, 0.05)
        for head, found in values.items():
            grid[head] = found[i]
        units[step] = [head_metric(probe, grid, half=half), *more(step)]
    return Results.open(write_results(root, "run", units))


def test_a_head_appears_where_it_is_sure_and_stays_so(tmp_path):
    # Six heads: the half of 0.02 is stretched to 0.0269, and must clear 0.05 + 0.05 by that: 0.1269.
    assert 0.02 * stretched(6) == pytest.approx(0.0269, abs=1e-4)
    spike, sure = (0.05, 0.9, 0.05, 0.05, 0.05), (0.05, 0.126, 0.128, 0.5, 0.5)
    run = planted(tmp_path, {(0, 1): spike, (1, 2): sure})
    cube = run.cube("prefix_matching")
    there = above_null(cube, smallest=0.05, sampled=False)
    assert np.flatnonzero(there[:, 0, 1]).tolist() == [1]  # for one step only
    assert np.flatnonzero(there[:, 1, 2]).tolist() == [2, 3, 4]  # 0.126 does not clear 0.1269
    assert first_lasting(cube, there) == ((1, 2), (10, 20))
    info = run.info("prefix_matching")
    curves = {key: curve for key, curve in run.curves("prefix_matching").items() if key is not None}
    since = {key: appeared(replace(curve, among=6), info) for key, curve in curves.items()}
    assert {key: bracket for key, bracket in since.items() if bracket} == {(1, 2): (10, 20)}
    alone = appeared(replace(curves[1, 2], among=1), info)  # not chosen among others: 0.126 clears 0.12
    assert alone == (0, 10)


def test_what_is_there_from_the_start_and_what_comes_with_the_last_step(tmp_path):
    run = planted(tmp_path, {(0, 0): (0.5,) * 5, (0, 2): (0.05, 0.05, 0.05, 0.05, 0.5)})
    cube = run.cube("prefix_matching")
    there = above_null(cube, smallest=0.05, sampled=False)
    assert first_lasting(cube, there) == ((0, 0), (None, 0))
    there[:, 0, 0] = False
    assert first_lasting(cube, there) == ((0, 2), (30, 40))  # the last step has no next one
    there[:] = False
    assert first_lasting(cube, there) is None


def test_a_slow_head_that_began_first_is_said_to_have_come_first(tmp_path):
    """Half of its own rise comes at step 30, after the induction head of step 20 that needs it."""
    slow = np.array([0.05, 0.2, 0.3, 0.6, 0.95])
    induction = rising(at=20)

    def more(step):
        return [m for m in induction.get(step, induction[20]) if m.probe in ("prefix_matching", "induction")]

    run = planted(tmp_path, {(0, 1): slow}, probe="previous_token", more=more)
    found = [(one.what, one.head, one.bracket) for one in milestones(run)]
    assert found == [("previous token", "L0H1", (0, 10)), ("induction", "L1H2", (10, 20))]
    table = events(run)
    rows = table[
        (table["probe"] == "previous_token") & (table["head"] == 1) & (table["layer"] == 0)
    ].set_index("event")
    assert rows.loc["above_null", ["step_lo", "step_hi"]].tolist() == [0, 10]
    assert rows.loc["onset_50", "step_hi"] == 30
    assert (
        "is significantly above its null (0.05): first between steps 0 and 10"
        in rows.loc["above_null", "text"]
    )


def test_a_previous_token_head_that_never_becomes_one_is_not_reported(tmp_path):
    run = planted(tmp_path, {(0, 1): (0.05, 0.2, 0.3, 0.4, 0.41)}, probe="previous_token")
    assert milestones(run) == ()  # above its null from step 10 on, and at no step surely above 0.4
