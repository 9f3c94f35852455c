"""What a head is: its strongest verdict, from planted numbers, the same in every face."""

from __future__ import annotations

import numpy as np
from planted_series import SHAPE, head_metric, rising, write_results

from byrote.probes.head_roles import (
    INDUCTION,
    LOOKS_BACK,
    MATCHES,
    NONE,
    PREVIOUS,
    RESTS,
    UNKNOWN,
    introduce,
    role_codes,
    roles,
    score_and_rank,
)
from byrote.probes.results import Results


def grid(**values):
    found = np.full(SHAPE, 0.05)
    for head, value in values.items():
        found[int(head[1]), int(head[3])] = value
    return found


def planted(root):
    """At step 40: an induction head, a previous-token head that also matches prefixes, one that matches only, one at rest,
    one that looks back a little, one with nothing."""
    units = {}
    for step, measured in rising().items():
        kept = [m for m in measured if m.probe not in ("prefix_matching", "previous_token")]
        if step == 40:
            kept += [
                head_metric("prefix_matching", grid(L1H2=0.9, L0H1=0.3, L1H0=0.3)),
                head_metric("previous_token", grid(L0H1=0.8, L0H2=0.3)),
                head_metric("sink", grid(L0H0=0.95)),
            ]
        units[step] = kept
    return Results.open(write_results(root, "run", units))


def test_a_head_has_the_strongest_role_that_holds(tmp_path):
    run = planted(tmp_path)
    assert roles(run, 40) == {
        (1, 2): INDUCTION, (0, 1): PREVIOUS, (1, 0): MATCHES, (0, 0): RESTS, (0, 2): LOOKS_BACK, (1, 1): NONE,
    }  # fmt: skip
    said = {head: introduce(run, head, step=40) for head in roles(run, 40)}
    assert said == {
        (1, 2): "L1H2 is an induction head at step 40: prefix matching 0.90 [0.88, 0.92], chance 0.050",
        (0, 1): "L0H1 is a previous-token head at step 40: previous token 0.80 [0.78, 0.82], chance 0.050",
        (1, 0): "L1H0 matches prefixes at step 40: prefix matching 0.30 [0.28, 0.32], chance 0.050",
        (0, 0): "L0H0 attends to position 0 at step 40: sink 0.95 [0.93, 0.97], chance 0.050",
        (0, 2): "L0H2 attends to the previous token more than by chance at step 40: previous token 0.30 [0.28, 0.32], chance 0.050",
        (1, 1): "L1H1 has none of the roles tested for at step 40: prefix matching 0.05 [0.03, 0.07], chance 0.050",
    }  # fmt: skip


def test_roles_follow_the_steps_and_what_was_not_tested_has_none(tmp_path):
    run = planted(tmp_path)
    codes = role_codes(run)
    assert codes.shape == (4, *SHAPE)
    assert roles(run, 10) == dict.fromkeys(
        np.ndindex(*SHAPE), NONE
    )  # the verdict alone was given, and it says no
    assert roles(run, 20)[1, 2] == INDUCTION
    assert roles(run, 99) == {}
    bare = Results.open(
        write_results(tmp_path, "bare", {0: [m for m in rising()[0] if m.probe == "repeat_loss"]})
    )
    assert (role_codes(bare) == UNKNOWN).all()
    assert introduce(bare, (0, 1), step=0) == "No role of L0H1 was tested for at step 0"


def test_the_score_of_the_chosen_probe_stands_beside_it(tmp_path):
    run = planted(tmp_path)
    assert score_and_rank(run, (0, 1), "prefix_matching", step=40) == (
        "L0H1 scores 0.30 [0.28, 0.32] on prefix matching at step 40, rank 2 of 6"
    )
