"""Logit arithmetic: what a planted step adds, worked out from the tables and gains that were planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lookup_models import (
    BLOCK,
    D_VOCAB,
    N_IDS,
    RIGHT_NATS,
    TABLE_NATS,
    lookup_state,
    members,
    twins,
    write_series,
)  # fmt: skip

from byrote.checkpoints import ByroteError, open_series
from byrote.probes.circuits.logit_arithmetic import COLUMNS, SCALES, TEXTS, logit_arithmetic


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Nothing is known at step 0, the members' table at 1, copying too at 2."""
    steps = {0: lookup_state([]), 1: lookup_state(), 2: lookup_state(copies=True)}
    data = {
        "members": {"tokens": members(), "repeat_count": np.full(16, 3)},
        "twins": {"tokens": twins()},
    }
    return open_series(write_series(tmp_path_factory.mktemp("runs") / "one", steps, data=data))


def by_key(frame) -> dict:
    return {(r.text, r.metric, None if np.isnan(r.scale) else r.scale): r for r in frame.itertuples()}


def test_a_table_is_added_to_members_alone(series):
    frame = logit_arithmetic(series, from_step=0, to_step=1, n_seq=8)
    assert list(frame.columns) == list(COLUMNS) and set(frame["text"]) == set(TEXTS)
    found = by_key(frame)
    # The table gives TABLE_NATS to one id of 64 after every token but BOS; the mean over the vocabulary is taken off.
    right, wrong = TABLE_NATS * (1 - 1 / D_VOCAB), -TABLE_NATS / D_VOCAB
    known = (BLOCK - 1) / BLOCK
    assert found["members", "raised", None].value == pytest.approx(known * right, rel=1e-4)
    assert found["fresh", "raised", None].value == pytest.approx(known * wrong, rel=1e-4)
    spread = TABLE_NATS * math.sqrt(1 / D_VOCAB * (1 - 1 / D_VOCAB))
    for text in ("members", "fresh"):
        assert found[text, "size", None].value == pytest.approx(known * spread, rel=1e-4)
    assert found["members", "raised_excess", None].value == pytest.approx(known * TABLE_NATS, rel=1e-4)
    assert ("fresh", "raised_excess", None) not in found
    for scale in SCALES:
        nats = math.log1p(N_IDS * math.exp(-scale * TABLE_NATS))
        expected = (math.log(D_VOCAB) + (BLOCK - 1) * nats) / BLOCK
        assert found["members", "loss", scale].value == pytest.approx(expected, rel=1e-4)
        expected = (math.log(D_VOCAB) + (BLOCK - 1) * (nats + scale * TABLE_NATS)) / BLOCK
        assert found["fresh", "loss", scale].value == pytest.approx(expected, rel=1e-4)
    assert found["members", "loss", 1.0].value < (math.log(D_VOCAB) + 12 * RIGHT_NATS) / BLOCK
    natural = found["natural", "loss", 1.0]
    assert not natural.valid and "no natural text" in natural.reason


def test_copying_is_added_to_repeats_and_not_to_fresh_text(series):
    found = by_key(logit_arithmetic(series, from_step=1, to_step=2, n_seq=8))
    repeats, fresh = found["repeats", "raised", None], found["fresh", "raised", None]
    assert repeats.lo > 5 > 1 > fresh.hi
    assert found["repeats", "raised_excess", None].lo > 4
    assert (
        found["repeats", "loss", 2.0].value
        < found["repeats", "loss", 1.0].value
        < found["repeats", "loss", 0.0].value
    )


def test_a_step_adds_nothing_to_itself(series):
    found = by_key(logit_arithmetic(series, from_step=2, to_step=2, n_seq=8))
    for text in ("members", "fresh", "repeats"):
        assert found[text, "size", None].value == found[text, "raised", None].value == 0
        assert len({found[text, "loss", scale].value for scale in SCALES}) == 1


def test_a_step_that_is_not_there_is_refused(series):
    with pytest.raises(ByroteError, match="step 7"):
        logit_arithmetic(series, from_step=0, to_step=7)
