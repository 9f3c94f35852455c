"""Pruning: exactly the smallest weights, put back bit for bit; heads and memories that go in the order of their weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lookup_models import CONFIG, D_VOCAB, N_CTX, lookup_state, members, twins, write_series

from byrote.checkpoints import ByroteError, open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, planted_model
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp import HookedSeries
from byrote.interp.pruning import block_matrices, pruned
from byrote.probes.circuits.pruned_heads import TENTHS, survived
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_once

VOCABULARY = Vocabulary(np.arange(1, D_VOCAB), 0)


def load(folder, state):
    walker = HookedSeries(open_series(write_series(folder / "one", {0: state})))
    return walker.load(walker.series[0])


@pytest.fixture
def random_model(tmp_path):
    """The planted shape with noise in every matrix."""
    fields, state = planted_model(CONFIG)
    generator = torch.Generator().manual_seed(0)
    return load(
        tmp_path, (fields, {name: torch.randn(t.shape, generator=generator) for name, t in state.items()})
    )


def test_the_smallest_are_gone_and_everything_is_put_back(random_model):
    before = {name: p.detach().clone() for name, p in random_model.parameters.items()}
    matrices = block_matrices(random_model)
    inside = {name for name, p in random_model.parameters.items() if any(p is m for m in matrices)}
    assert inside and not any("embed" in name or "head" in name for name in inside)
    with pytest.raises(KeyError), pruned(random_model, 0.5):
        for name, p in random_model.parameters.items():
            assert (p == 0).float().mean().item() == pytest.approx(0.5 if name in inside else 0, abs=1e-3)
            left = before[name][p != 0].abs()
            if name in inside:
                assert left.min() >= before[name][p == 0].abs().max()
        assert torch.equal(random_model.weights.W_Q == 0, random_model.weights.W_Q.abs() < 1e-9)
        raise KeyError
    assert all(torch.equal(before[name], p) for name, p in random_model.parameters.items())
    assert (random_model.weights.W_Q != 0).all()  # what was derived from pruned weights is forgotten


def test_a_share_that_is_none_is_refused(random_model):
    with pytest.raises(ByroteError, match=r"share of 1\.5"), pruned(random_model, 1.5):
        pass


def test_survival_is_the_last_share_before_the_first_loss():
    left = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]], dtype=bool)
    assert survived(left).tolist() == [0.9, 0.4, 0.0]


def test_a_head_of_small_weights_goes_before_one_of_large_ones(tmp_path):
    """Two heads match prefixes; the queries of the second are smaller than the first's noise, its keys make up for it."""
    heads = (
        (HeadSpec("previous", writes="previous"), HeadSpec("uniform", strength_nats=0.0, writes="nothing")),
        (HeadSpec("prefix", writes="output"), HeadSpec("prefix", writes="output")),
    )
    fields, state = planted_model(PlantedConfig(n_ctx=64, unembed_gain=10.0, heads=heads))
    first, second = slice(0, fields["d_head"]), slice(fields["d_head"], 2 * fields["d_head"])
    rng = np.random.default_rng(0)
    for name, factor in (("q", 1e-7), ("k", 1e7)):
        weight = state[f"layers.1.attn.{name}.weight"]
        weight[second] *= factor
        noise = rng.normal(0, 1e-5 * float(weight[first].abs().max()), size=tuple(weight[first].shape))
        weight[first] += torch.from_numpy(noise).float()
    model = load(tmp_path, (fields, state))
    shown = {"repeated_random": make("repeated_random", VOCABULARY, n_ctx=64, seed=0, n_seq=16)}
    found = {one.metric: one for one in measure_once(model, REGISTRY["pruned_heads"], seed=0, stimuli=shown)}
    assert set(found) == set(REGISTRY["pruned_heads"].metrics)
    survives = found["survives"].values
    assert (found["unpruned"].values[1] > 0.9).all()
    assert np.isnan(survives[0]).all()  # these match no prefixes
    assert survives[1, 0] == pytest.approx(0.9)
    assert 0.4 <= survives[1, 1] <= 0.6  # its half of the queries is the smaller half
    assert found["prefix"].values[1, 1, -1] < 0.2 and found["prefix"].position_start == TENTHS[0]
    assert found["later"].values[-1] < 3  # one of the two heads still copies


def test_members_that_rest_on_small_weights_are_forgotten_first(tmp_path):
    """The table lies in the unembedding, which is not pruned; the block that hands tokens on to it is."""
    model = load(tmp_path, lookup_state())
    sets = TokenSets(members=members(), repeat_count=np.array([1, 4] * 8), twins=twins())
    shown = {k: make(k, VOCABULARY, n_ctx=N_CTX, seed=0, token_sets=sets) for k in ("members", "twins")}
    measured = measure_once(model, REGISTRY["pruned_memory"], seed=0, stimuli=shown)
    found = {one.metric: one for one in measured}
    assert set(found) == set(REGISTRY["pruned_memory"].metrics)
    assert float(found["survives"].values) == pytest.approx(0.9)  # nothing of the table is in a block
    assert (found["completed"].values == 1).all()
    assert found["by_repeats"].values[::2] == pytest.approx(0.9) and found["by_repeats"].n.tolist() == [
        8,
        0,
        8,
    ]
    assert (found["loss@twins"].values > found["loss"].values + 3).all()
    assert found["loss"].chance[0] == pytest.approx(math.log(63))
