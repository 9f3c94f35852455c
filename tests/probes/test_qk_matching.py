"""QK matching: the small eigenproblems against the whole vocabulary, the null against real rotations, planted heads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import PlantedConfig, write_planted
from byrote.interp.loading import load_fresh
from byrote.interp.weights import HeadWeights
from byrote.probes.heads.qk_matching import _linearised, finish, qk_matching
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured, unit_table
from byrote.probes.spec import NotMeasuredError
from byrote.probes.spectra import haar_frames, positivity, turned_positivity
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.measure import measure_stimulus, of_this_and_earlier_layers

METRICS = ("score", "z", "trace", "trace_z")


def centring(weights: HeadWeights) -> Tensor:
    """What the norm does to a direction: takes out its mean, or nothing."""
    d = weights.W_E.shape[1]
    return torch.eye(d).double() - (1 / d if weights.centred else 0)


def read_in(weights: HeadWeights, layer: int) -> Tensor:
    """d_model x d_model: the linear part of a layer's norm."""
    return centring(weights) @ weights.attn_norm_gain[layer].double().diag()


def whole_circuit(
    weights: HeadWeights, p: Tensor, layer: int, head: int, *, keys: Tensor | None = None
) -> Tensor:
    """d_vocab x d_vocab, written out: row t is the query's token, column u the one before the key."""
    W = {name: getattr(weights, name).double() for name in ("W_E", "W_Q", "W_K", "W_V", "W_O")}
    moved = torch.zeros_like(W["W_E"])
    for l in range(layer):
        for h in range(p.shape[1]):
            moved += p[l, h] * (W["W_E"] @ read_in(weights, l) @ W["W_V"][l, h] @ W["W_O"][l, h])
    query = W["W_E"] @ read_in(weights, layer) @ W["W_Q"][layer, head]
    key = moved @ (read_in(weights, layer) @ W["W_K"][layer, head] if keys is None else keys)
    return query @ key.T


@pytest.fixture(params=["gpt2", "gpt_neox", "llama"])
def model(request, hf_series):
    """LayerNorm with learned positions, LayerNorm with rotary ones, RMS norm with grouped queries; three layers."""
    layers = {"gpt2": "n_layer"}.get(request.param, "num_hidden_layers")
    return load_fresh(open_series(hf_series(request.param, 1, **{layers: 3}))[0])


def measured_on(model, n_seq: int = 3, **options) -> dict[str, Measured]:
    stimulus = make("repeated_random", Vocabulary(np.arange(1, 61), 0), n_ctx=64, seed=4, n_seq=n_seq)
    names = ("qk_matching", "previous_token")
    found, report = measure_stimulus(model, stimulus, [REGISTRY[n] for n in names], seed=0)
    assert report.problems == {}
    return {m.metric if m.probe == "qk_matching" else f"p {m.metric}": m for m in found}


def test_scores_equal_the_eigenvalues_over_the_whole_vocabulary(model):
    found = measured_on(model)
    samples = torch.from_numpy(found["p score"].samples).double()
    scores = []
    for layer in (1, 2):
        for head in range(4):
            full = whole_circuit(model.weights, samples.mean(0), layer, head)
            eigenvalues = torch.linalg.eigvals(full)
            answer = eigenvalues.real.sum() / eigenvalues.abs().sum()
            assert found["score"].values[layer, head] == pytest.approx(answer.item(), abs=1e-4)
            traces = [whole_circuit(model.weights, p, layer, head).trace().item() for p in samples]
            np.testing.assert_allclose(
                found["trace"].samples[:, layer, head], traces, rtol=1e-4, atol=1e-4 * full.norm().item()
            )
            scores.append(answer.item())
    assert np.ptp(scores) > 0.1
    assert found["score"].axes == ("layer", "head")


def test_heads_of_layer_0_have_no_row(model):
    rows = unit_table(list(measured_on(model).values()), run="r", step=0, tokens_seen=None).to_pandas()
    rows = rows[rows["probe"] == "qk_matching"]
    assert set(rows["metric"]) == set(METRICS)
    assert sorted(set(rows["layer"])) == [1, 2]
    assert rows["valid"].all()
    assert len(rows) == len(METRICS) * 8
    assert (rows["n"] == 3).all()


def test_intervals_come_from_previous_token_attention(model):
    """Each sequence's score is what the whole circuit would give were its previous-token attention the mean."""
    found = measured_on(model)
    samples = torch.from_numpy(found["p score"].samples).double()
    mean = samples.mean(0)
    for layer, head in ((1, 0), (2, 3)):
        step = 1e-3  # of the way from the mean to each sequence
        exact = [
            positivity(whole_circuit(model.weights, mean + step * (p - mean), layer, head)) for p in samples
        ]
        at_mean = positivity(whole_circuit(model.weights, mean, layer, head))
        slope = torch.stack(exact).sub(at_mean) / step
        linear = torch.from_numpy(found["score"].samples[:, layer, head]) - at_mean
        scale = linear.abs().max().item()
        assert scale > 1e-5
        np.testing.assert_allclose(linear, slope, rtol=0, atol=0.05 * scale + 2e-4)
    m = found["score"]
    assert (m.lo[1:] <= m.values[1:]).all() and (m.values[1:] <= m.hi[1:]).all()
    assert (m.hi[1:] > m.lo[1:]).all()


def test_the_linear_form_of_positivity():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(6, 7, 7, generator=generator, dtype=torch.float64) + 2 * torch.eye(7)
    change = torch.randn(6, 7, 7, generator=generator, dtype=torch.float64)
    score, gamma = _linearised(matrix)

    def at(step: float) -> Tensor:
        values = torch.linalg.eigvals(matrix + step * change)
        return values.real.sum(-1) / values.abs().sum(-1)

    torch.testing.assert_close(score, at(0.0))
    slope = (at(1e-6) - at(-1e-6)) / 2e-6
    torch.testing.assert_close(torch.einsum("nij,nji->n", gamma, change), slope, rtol=1e-5, atol=1e-7)


def test_where_eigenvectors_do_not_span_the_score_stands_and_has_no_slope():
    shear = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    score, gamma = _linearised(shear)
    assert score[0].item() == pytest.approx(1)
    assert gamma.isfinite().all()
    assert score[2].isnan()
    score, gamma = _linearised(torch.full((1, 3, 3), torch.inf))
    assert score.isnan() and not gamma.any()


# The null.


def turned_keys(keys: Tensor, frame: Tensor) -> Tensor:
    """The same spectrum, other directions."""
    _, spectrum, right = torch.linalg.svd(keys, full_matrices=False)
    return frame.double() * spectrum @ right


def test_the_null_of_the_trace_is_that_of_rotated_keys(model):
    """Mean 0 and the standard deviation that trace_z divides by, from rotations over the whole vocabulary."""
    weights, found = model.weights, measured_on(model)
    p = torch.from_numpy(found["p score"].samples).double().mean(0)
    d_model, d_head = weights.W_K.shape[2:]
    generator = torch.Generator().manual_seed(7)
    frames = haar_frames(1500, d_model, d_head, generator, centred=weights.centred)
    if weights.centred:
        assert frames.mean(1).abs().max() < 1e-6
    keys = read_in(weights, 2) @ weights.W_K[2, 1].double()
    traces = torch.stack([whole_circuit(weights, p, 2, 1, keys=turned_keys(keys, f)).trace() for f in frames])
    sd = found["trace"].values[2, 1] / found["trace_z"].values[2, 1]
    assert traces.std().item() == pytest.approx(abs(sd), rel=0.08)  # standard error 2%
    assert traces.mean().abs().item() < 4 * traces.std().item() / math.sqrt(len(traces))


def test_turning_keeps_the_spectrum_and_scatters_the_score():
    generator = torch.Generator().manual_seed(3)
    factor, right = torch.randn(5, 20, generator=generator), torch.randn(20, 5, generator=generator)
    frames = haar_frames(300, 20, 5, generator)
    found = turned_positivity(factor, right, frames)
    by_hand = torch.stack(
        [positivity(turned_keys(factor.T.double(), f).T @ right.double()) for f in frames[:5]]
    )
    torch.testing.assert_close(found[:5], by_hand, rtol=0, atol=1e-4)
    assert found.mean().abs() < 0.1
    assert found.std() > 0.1


def test_random_weights_look_like_their_null(tmp_path):
    """Weights drawn without direction are their own rotations, so z has mean 0 and standard deviation 1."""
    config = PlantedConfig(d_vocab=16, n_ctx=32, offset=3)
    found: dict[str, list[np.ndarray]] = {"z": [], "trace_z": []}
    for seed in range(12):
        path = write_planted(tmp_path / str(seed), config, kind="random", seed=seed)
        weights = load_fresh(open_series(path)[0]).weights
        p = torch.rand(2, 1, 4, generator=torch.Generator().manual_seed(seed))
        scores = finish({"p": p}, weights, seed=0)
        for name, values in found.items():
            values.append(scores[name][0, 1].numpy())
    for values in map(np.concatenate, found.values()):  # 48 heads
        assert abs(values.mean()) < 0.6
        assert 0.6 < values.std() < 1.5


# Planted heads.

CONFIG = PlantedConfig()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    path = write_planted(tmp_path_factory.mktemp("planted") / "planted", CONFIG)
    return load_fresh(open_series(path)[0])


def test_planted_answers(planted):
    """A prefix head asks e^T e with weight c sqrt(d_head) for what L0H0 moves with p = 1: that many on the diagonal."""
    stimulus = make("repeated_random", Vocabulary(np.arange(1, 64), 0), n_ctx=128, seed=0, n_seq=4)
    measured, _ = measure_stimulus(planted, stimulus, [REGISTRY["qk_matching"]], seed=0)
    found = {m.metric: m for m in measured}
    strength = np.array([head.strength_nats for head in CONFIG.heads[1][:3]])
    np.testing.assert_allclose(found["score"].values[1, :3], 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        found["trace"].values[1, :3], strength * math.sqrt(128) * CONFIG.d_vocab, rtol=1e-5
    )
    assert (found["z"].values[1, :3] > 10).all() and (found["trace_z"].values[1, :3] > 10).all()
    np.testing.assert_allclose(
        found["score"].hi, found["score"].lo, rtol=0, atol=1e-6
    )  # p is 1 on every sequence
    rows = unit_table(measured, run="r", step=0, tokens_seen=None).to_pandas()
    offset = rows[rows["head"] == 3]  # looks at positions: nothing it reads was moved as a token
    assert not offset["valid"].any()
    assert set(offset["reason"]) == {REGISTRY["qk_matching"].undefined}
    assert rows.loc[rows["head"] < 3, "valid"].all()


def test_trace_follows_previous_token_attention_and_the_score_does_not(planted):
    p = torch.zeros(2, 3, 4)
    p[0, :, 0] = torch.tensor([1.0, 0.5, 0.25])  # L0H0, in three sequences
    p[0, :, 1] = 0.9  # writes where nothing reads
    found = finish({"p": p}, planted.weights, seed=0)
    np.testing.assert_allclose(found["trace"][:, 1, 0] / found["trace"][0, 1, 0], [1, 0.5, 0.25], rtol=1e-5)
    np.testing.assert_allclose(found["score"][:, 1, :3], np.ones((3, 3)), rtol=0, atol=1e-6)


def test_without_any_previous_token_attention_nothing_is_measured(planted):
    found = finish({"p": torch.zeros(2, 3, 4)}, planted.weights, seed=0)
    for name in METRICS:
        assert found[name].isnan().all()


# What cannot be measured.


def test_models_it_cannot_read_say_why(planted):
    pattern = torch.eye(4)[None, None]
    with pytest.raises(NotMeasuredError, match="norm after attention"):
        qk_matching(pattern, replace(planted.weights, linear_readout=False))
    names = ("W_Q", "W_K", "W_V", "W_O", "attn_norm_gain")
    one_layer = {name: getattr(planted.weights, name)[:1] for name in names}
    with pytest.raises(NotMeasuredError, match="one layer"):
        qk_matching(pattern, replace(planted.weights, **one_layer))


def test_a_diverged_layer_is_undefined_and_does_not_stop_the_rest(planted):
    broken = planted.weights.W_K.clone()
    broken[1, 0] = torch.nan
    p = torch.ones(2, 3, 4)
    found = finish({"p": p}, replace(planted.weights, W_K=broken), seed=0)["score"]
    assert found[:, 1, 0].isnan().all()
    np.testing.assert_allclose(found[:, 1, 1:3], np.ones((3, 2)), rtol=0, atol=1e-6)


def test_a_layer_whose_patterns_fail_takes_the_later_ones_with_it():
    assert of_this_and_earlier_layers({2: "bad", 3: "worse"}, 5) == {2: "bad", 3: "bad", 4: "bad"}
    assert of_this_and_earlier_layers({}, 5) == {}
