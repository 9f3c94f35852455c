"""The pool that a control run is measured on: that of its repeated run, drawn again and never trained on."""

from __future__ import annotations

import numpy as np
import pytest

from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.counterpart import MAX_POOL, pool_of_counterpart
from byrote.checkpoints.lab.source import ArmStream
from byrote.checkpoints.lab.sources import source_of

DATA = {
    "source": "names", "d_vocab": 32, "n_ctx": 32, "successors": 4, "zipf": 1.0, "background_frac": 0.1, "start_frac": 0.2,
    "phrase_min": 3, "phrase_max": 6, "table": 0, "bos_token_id": 0, "n_held_out": 64,
}  # fmt: skip
CONTROL = {
    "data": DATA,
    "seed": 3,
    "arm": {"kind": "control", "repeat_frac": 0.5, "pool_size": 16, "repeats_per_sequence": 0},
}


def test_it_is_what_the_repeated_run_goes_through_token_by_token():
    source = source_of(CONTROL)
    trained = ArmStream(source, Arm.named("repeated", 0.5, 16), seed=3, batch=16)
    found = pool_of_counterpart(CONTROL, width=32)
    assert np.array_equal(found["tokens"], trained.pool.tokens)
    assert found["repeat_count"].tolist() == [0] * 16  # the other run's are not
    assert trained.repeat_counts(100).min() > 0
    other = pool_of_counterpart(CONTROL | {"seed": 4}, width=32)
    assert not np.array_equal(other["tokens"], found["tokens"])


def test_the_control_itself_never_sees_one_of_them():
    found = pool_of_counterpart(CONTROL, width=32)["tokens"]
    seen = ArmStream(source_of(CONTROL), Arm.named("control", 0.5, 16), seed=3, batch=16).batches(0, 200)
    rows = {row.tobytes() for row in seen[:, :, :-1].reshape(-1, 32).astype(found.dtype)}
    assert len(rows) > 1000 and not any(row.tobytes() in rows for row in found)


@pytest.mark.parametrize(
    "change",
    [
        {"arm": {"kind": "unique", "pool_size": 0}},
        {"arm": {"kind": "repeated", "pool_size": 16}},
        {"arm": {"kind": "control", "pool_size": 0}},
        {"arm": {"kind": "control", "pool_size": MAX_POOL + 1}},
        {"arm": {"kind": "control", "pool_size": True}},
        {"arm": ["control"]},
        {"seed": -1},
        {"seed": "3"},
        {"data": {"source": "nowhere"}},
    ],
)
def test_a_manifest_that_says_nothing_of_the_kind_gives_none(change):
    assert pool_of_counterpart(CONTROL | change, width=32) == {}
    assert pool_of_counterpart(CONTROL, width=16) == {}
