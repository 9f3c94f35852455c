"""Path ablation on planted circuits: induction by queries, and two sources of which one does the work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted_circuits import write_circuit
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.probes.heads.matching import earlier_copies, shifted_keys
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_once


@pytest.fixture(scope="module")
def stimulus() -> Stimulus:
    return make("jittered_repeat", Vocabulary(np.arange(1, 48), 0), n_ctx=64, seed=0, n_seq=6)


def measured(model: HookedModel, stimulus: Stimulus) -> dict[str, Measured]:
    found = measure_once(model, REGISTRY["induction_circuit"], stimuli={stimulus.kind: stimulus}, seed=0)
    return {m.metric: m for m in found}


def test_induction_by_queries_is_found_as_a_path_into_queries(tmp_path, stimulus):
    """L0H0 moves where the earlier copy is: no previous-token head, nothing in the keys. Version 1 measured 0 in all rows.

    Its queries written out: the mean over the other sequences of where their earlier copies stand.
    """
    model = load_fresh(open_series(write_circuit(tmp_path / "q", "q_pointer"))[0])
    found, tokens = measured(model, stimulus), stimulus.tokens
    copies = earlier_copies(torch.from_numpy(tokens)).numpy()
    n_pos = tokens.shape[1]
    visible, here = np.tril(np.ones((n_pos, n_pos))), np.eye(n_pos, dtype=bool)
    weight = np.exp(np.where(copies, 32.0, 0.0) + np.where(here, 32.0 - 48.0, 0.0)) * visible
    moved = weight / weight.sum(-1, keepdims=True)
    pointer = (moved.sum(0, keepdims=True) - moved) / (len(tokens) - 1)
    logits = 64.0 * np.concatenate([np.zeros((len(tokens), n_pos, 1)), pointer[:, :, :-1]], axis=2)
    weight = np.exp(logits) * visible
    pattern = weight / weight.sum(-1, keepdims=True)
    targets = shifted_keys(torch.from_numpy(copies), 1).numpy()
    queries = targets.any(-1)
    without = ((pattern * targets).sum(-1) * queries).sum(1) / queries.sum(1)
    change = found["q_change"]
    np.testing.assert_allclose(change.samples[:, 0, 0, 1, 0], without - 1, atol=1e-3)
    assert change.values[0, 0, 1, 0] < -0.8
    assert np.abs(change.values[0, 1:, 1]).max() < 1e-5
    assert np.nanmax(np.abs(found["change"].values)) < 1e-5
    assert found["q_z"].values[0, 0, 1, 0] == np.nanmax(found["q_z"].values)


def test_of_two_sources_the_one_that_does_the_work_is_found_and_not_the_one_with_the_higher_z(
    tmp_path, stimulus
):
    model = load_fresh(open_series(write_circuit(tmp_path / "two", "two_sources"))[0])
    found = measured(model, stimulus)
    z, change = found["k_z"].values[0, :2, 1, 0], found["change"].values[0, :2, 1, 0]
    assert z[1] > z[0] > 5
    assert change[0] < -0.8 and abs(change[1]) < 0.01
