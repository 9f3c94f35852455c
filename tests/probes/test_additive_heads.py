"""Additive heads, on planted models with two induction heads and with one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, write_planted
from byrote.interp.loading import load_fresh
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_once

D_VOCAB, N_CTX = 48, 64
IDLE, INDUCTION = HeadSpec("uniform", strength_nats=0.0), HeadSpec("prefix", writes="output")
LAYER_0 = (HeadSpec("previous", writes="previous"), HeadSpec("duplicate"), IDLE, IDLE)


def measured(path, *heads: HeadSpec):
    """What the probe says of a planted model with these heads in layer 1."""
    config = PlantedConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, offset=14, heads=(LAYER_0, heads))
    model, info = (
        load_fresh(open_series(write_planted(path / "planted", config))[0]),
        REGISTRY["additive_heads"],
    )
    ids = Vocabulary(np.arange(1, D_VOCAB), 0)
    stimuli = {kind: make(kind, ids, n_ctx=N_CTX, seed=0, n_seq=16) for kind in info.stimuli}
    return {m.metric: m for m in measure_once(model, info, stimuli=stimuli, seed=0)}


def test_of_two_heads_that_do_the_same_one_alone_saves_all_that_both_do(tmp_path):
    found = {metric: m.values for metric, m in measured(tmp_path, INDUCTION, INDUCTION, IDLE, IDLE).items()}
    assert found["n_heads"] == 2
    assert found["without_all"] == pytest.approx(found["first_gain"] + found["rest_gain"])
    assert found["without_all"] > math.log(D_VOCAB) and abs(found["rest_gain"]) < 0.05


def test_one_head_has_nothing_beside_it(tmp_path):
    found = measured(tmp_path, IDLE, INDUCTION, IDLE, IDLE)
    assert found["n_heads"].values == 1 and np.isnan(found["first_gain"].values)
    assert found["first_gain"].undefined == "fewer than two heads match prefixes and raise what followed"
