"""Progress measures: counters of tokens and pairs worked by hand, planted heads, and what is left with a few heads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lookup_models import write_series

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, planted_model, random_model
from byrote.interp import HookedSeries
from byrote.probes.model.in_context_markov import Chains, counters, divergences, draw_chains
from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_once

NOTHING = HeadSpec("uniform", strength_nats=0.0, writes="nothing")
NOISE = HeadSpec("uniform", strength_nats=0.0, writes="unread")


def planted(*later: HeadSpec, gain: float = 10.0) -> PlantedConfig:
    first = (HeadSpec("previous", writes="previous"), *[NOTHING] * (len(later) - 1))
    return PlantedConfig(n_ctx=64, unembed_gain=gain, heads=(first, later))


def measured(tmp_path, state, name: str) -> dict:
    walker = HookedSeries(open_series(write_series(tmp_path / name, {0: state})))
    shown = {
        "repeated_random": make(
            "repeated_random", Vocabulary(np.arange(1, 64), 0), n_ctx=64, seed=0, n_seq=16
        )
    }
    found = measure_once(walker.load(walker.series[0]), REGISTRY[name], seed=0, stimuli=shown)
    assert {one.metric for one in found} == set(REGISTRY[name].metrics)
    return {one.metric: one for one in found}


def test_counters_by_hand():
    states = np.array([[0, 1, 0, 1, 1]])
    found = counters(Chains(np.zeros((1, 6)), states, np.arange(4)[None], np.full((1, 4, 4), 0.25)))
    np.testing.assert_allclose(found["unigram"][0, 0], np.array([2, 1, 1, 1]) / 5)
    np.testing.assert_allclose(found["unigram"][0, 4], np.array([3, 4, 1, 1]) / 9)
    np.testing.assert_allclose(found["bigram"][0, 0], 0.25)  # nothing followed 0 yet
    np.testing.assert_allclose(found["bigram"][0, 3], np.array([2, 1, 1, 1]) / 5)  # 1 was followed by 0 once
    np.testing.assert_allclose(found["bigram"][0, 4], np.array([2, 2, 1, 1]) / 6)  # and by 1


def test_chains_follow_their_own_rows():
    chains = draw_chains(np.arange(5, 60), n=64, length=127, bos=0, seed=0)
    assert (chains.tokens[:, 0] == 0).all() and chains.tokens.shape == (64, 128)
    assert (np.take_along_axis(chains.ids, chains.states, 1) == chains.tokens[:, 1:]).all()
    pairs = np.zeros((64, 4, 4))
    np.add.at(pairs, (np.arange(64)[:, None], chains.states[:, :-1], chains.states[:, 1:]), 1)
    drawn = pairs.sum(-1)
    z = (pairs - drawn[..., None] * chains.rows) / np.sqrt(
        drawn[..., None] * chains.rows * (1 - chains.rows) + 1e-9
    )
    assert abs(z[drawn.min(-1) > 5].std() - 1) < 0.1


def test_a_model_that_is_a_counter_is_found_to_be_that_counter():
    chains = draw_chains(np.arange(1, 60), n=16, length=63, bos=0, seed=1)
    said = counters(chains)
    for name in ("bigram", "unigram", "even"):
        found = {key: own.mean() for key, own in divergences(np.log(said[name]), chains).items()}
        assert found[f"kl_{name}"] == pytest.approx(0, abs=1e-12)
        assert min(found["kl_bigram"], found["kl_unigram"], found["kl_even"]) == found[f"kl_{name}"]
    pairs = divergences(np.log(said["bigram"]), chains)
    np.testing.assert_allclose(pairs["kl_unigram"], pairs["apart"])
    assert pairs["kl_true"].mean() < divergences(np.log(said["unigram"]), chains)["kl_true"].mean()


def test_planted_heads_lie_where_they_should(tmp_path):
    induces = measured(
        tmp_path / "a",
        planted_model(planted(HeadSpec("prefix", writes="output"), NOTHING, gain=2.0)),
        "in_context_markov",
    )
    sees = measured(
        tmp_path / "b",
        planted_model(planted(HeadSpec("uniform", strength_nats=0.0, writes="output"), NOTHING, gain=2.0)),
        "in_context_markov",
    )
    assert float(induces["kl_bigram"].hi) < float(induces["kl_unigram"].lo)
    assert float(sees["kl_unigram"].hi) < float(sees["kl_bigram"].lo)
    assert float(sees["kl_even"].values) < float(induces["kl_even"].values)
    assert induces["kl_even"].chance == 0 and 0 < float(induces["outside"].values) < 1


def test_two_heads_are_the_whole_of_a_planted_circuit(tmp_path):
    found = measured(
        tmp_path, planted_model(planted(NOISE, HeadSpec("prefix", writes="output"), NOISE)), "heads_only"
    )
    assert found["returned"].position_start == 1 and found["returned"].values.shape == (4,)
    np.testing.assert_allclose(found["returned"].values, 1, atol=0.02)
    assert found["heads"].values[0] == 2
    np.testing.assert_allclose(found["loss"].values, float(found["clean"].values), atol=0.05)
    assert float(found["none"].values) > 3 > 1 > float(found["clean"].values)
    assert found["random"].values[0] > 3  # another head of the layer copies nothing
    np.testing.assert_allclose(found["returned"].samples.mean(0), found["returned"].values, atol=1e-6)


def test_copying_by_two_heads_returns_by_halves(tmp_path):
    """Both heads write half of the logits that are needed; one alone falls short, both together do not."""
    state = planted_model(
        planted(HeadSpec("prefix", writes="output"), HeadSpec("prefix", writes="output"), NOTHING, gain=4.0)
    )
    found = measured(tmp_path, state, "heads_only")
    assert 0.2 < found["returned"].values[0] < 0.9 < found["returned"].values[1]
    assert found["returned"].lo[0] < found["returned"].values[0] < found["returned"].hi[0]


def test_a_model_that_learned_nothing_has_nothing_to_return(tmp_path):
    found = measured(tmp_path, random_model(planted(NOTHING, NOTHING), seed=0), "heads_only")
    assert np.isnan(found["returned"].values).all() and math.isfinite(float(found["clean"].values))
