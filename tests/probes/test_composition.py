"""Composition: against TransformerLens, against matrices written out, against real rotations, and on planted heads."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import PlantedConfig, write_planted
from byrote.checkpoints.lab.planted_circuits import write_circuit
from byrote.interp.loading import load_fresh
from byrote.interp.weights import HeadWeights
from byrote.probes.circuits import composition as module
from byrote.probes.circuits.composition import MODES, composition, median_of_others, nulls, ratios, z_among
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import unit_table
from byrote.probes.spec import NotMeasuredError
from byrote.probes.spectra import haar_frames
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.measure import measure_once
from byrote.probes.sweep.run import sweep

IDS = torch.arange(1, 20)
PAIRS = [(0, 1), (0, 2), (1, 2)]  # of layers
CONFIG = PlantedConfig()
INDUCTION_PAIRS = {("L0H0", "L1H0"), ("L0H0", "L1H1"), ("L0H0", "L1H2")}


@pytest.fixture(params=["gpt2", "gpt_neox", "llama"])
def model(request, hf_series):
    layers = {"gpt2": "n_layer"}.get(request.param, "num_hidden_layers")
    return load_fresh(open_series(hf_series(request.param, 1, **{layers: 3}))[0])


@pytest.fixture(scope="module")
def planted_model(tmp_path_factory):
    return load_fresh(open_series(write_planted(tmp_path_factory.mktemp("planted") / "planted", CONFIG))[0])


@pytest.fixture(scope="module")
def planted(planted_model) -> HeadWeights:
    return planted_model.weights


def scores_of(weights: HeadWeights, *, seed: int = 0):
    found = composition(weights, seed)
    return {
        name: SimpleNamespace(
            n=s.exact_n, values=torch.tensor(s.samples[0]), exists=torch.tensor(s.exists is None or s.exists)
        )
        for name, s in found.items()
    }


# The ratio.


@pytest.mark.parametrize("mode", MODES)
def test_raw_ratios_equal_those_of_transformer_lens(model, mode):
    theirs = model.bridge.all_composition_scores(mode.upper()).scores.detach()
    raw = replace(model.weights, attn_norm_gain=torch.ones_like(model.weights.attn_norm_gain), centred=False)
    ours = ratios(raw)[0][mode]
    torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-6)
    assert ours[0, :, 1].std() > 1e-3


def written_out(weights: HeadWeights, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """OV and QK circuit of a head, d_model x d_model, norms folded in float64."""
    d = weights.W_E.shape[1]
    centre = torch.eye(d).double() - (1 / d if weights.centred else 0)
    read = centre @ weights.attn_norm_gain[layer].double().diag()
    W_Q, W_K, W_V, W_O = (getattr(weights, n)[layer, head].double() for n in ("W_Q", "W_K", "W_V", "W_O"))
    return read @ W_V @ W_O @ centre, read @ W_Q @ W_K.T @ read.T


def reader(weights: HeadWeights, layer: int, head: int, mode: str) -> Tensor:
    ov, qk = written_out(weights, layer, head)
    return {"q": qk, "k": qk.T, "v": ov}[mode]


def test_folded_ratios_equal_the_matrices_written_out(model):
    found, _ = ratios(model.weights)
    for src, layer in PAIRS:
        for h in range(4):
            A = written_out(model.weights, src, h)[0]
            for g in range(4):
                for mode in MODES:
                    B = reader(model.weights, layer, g, mode)
                    answer = ((A @ B).norm() / (A.norm() * B.norm())).item()
                    assert found[mode][src, h, layer, g].item() == pytest.approx(answer, abs=2e-6)


def test_spectra_are_the_singular_values(model):
    _, spectra = ratios(model.weights)
    for head in range(4):
        for name, circuit in zip(("OV", "QK"), written_out(model.weights, 1, head), strict=True):
            answer = torch.linalg.svdvals(circuit)[:8].float()
            torch.testing.assert_close(spectra[name][4 + head], answer, rtol=1e-4, atol=1e-5)


# The null.


def test_the_null_is_that_of_real_rotations(model):
    """Mean and standard deviation from turning the whole residual stream between two heads written out."""
    weights = model.weights
    d = weights.W_E.shape[1]
    readable = d - weights.centred
    _, spectra = ratios(weights)
    found = nulls(spectra, readable, 0)
    basis = torch.linalg.svd(torch.eye(d).double() - 1 / d).U[:, : d - 1] if weights.centred else torch.eye(d)
    frames = haar_frames(400, readable, readable, torch.Generator().manual_seed(5)).double()
    rotations = basis.double() @ frames @ basis.double().T
    for mode in ("k", "v"):
        A, B = written_out(weights, 0, 1)[0], reader(weights, 2, 3, mode)
        turned = (A @ rotations @ B).norm(dim=(1, 2)) / (A.norm() * B.norm())
        mean, sd = (part[1, 2 * 4 + 3].item() for part in found[mode])
        assert mean == pytest.approx(turned.mean().item(), abs=5 * turned.std().item() / math.sqrt(256))
        assert sd == pytest.approx(turned.std().item(), rel=0.35)
        assert turned.square().mean().item() == pytest.approx(1 / readable, rel=0.05)


def test_the_null_mean_is_near_one_over_the_root_of_d_model():
    """Known for random matrices: 0.125 at d_model 64, 0.0884 at 128, whatever d_head is."""
    for d_model, d_head in ((64, 16), (128, 16), (128, 32), (768, 64)):
        spectrum = torch.linalg.svdvals(
            torch.randn(d_head, d_head, generator=torch.Generator().manual_seed(1))
        )
        mean, sd = nulls({"OV": spectrum[None], "QK": spectrum[None]}, d_model, 0)["k"]
        assert mean.item() == pytest.approx(1 / math.sqrt(d_model), rel=0.03)
        assert 0 < sd.item() < 0.1 * mean.item()


def test_random_weights_look_like_their_null(tmp_path):
    """Weights without direction stand out neither from each other nor from their rotations."""
    config = PlantedConfig(d_vocab=16, n_ctx=32, offset=3)
    z: dict[str, list[Tensor]] = {mode: [] for mode in MODES}
    for seed in range(8):
        path = write_planted(tmp_path / str(seed), config, kind="random", seed=seed)
        scores = scores_of(load_fresh(open_series(path)[0]).weights, seed=seed)
        for mode in MODES:
            z[mode].append(scores[f"{mode}_z"].values[0, :, 1].flatten())
    for values in map(torch.cat, z.values()):  # 128 pairs
        assert abs(values.mean().item()) < 0.5
        assert 0.7 < values.std().item() < 1.4


def test_the_null_is_the_same_for_the_same_seed_and_has_256_draws(planted):
    first, again, other = (scores_of(planted, seed=seed)["k_z"] for seed in (3, 3, 4))
    torch.testing.assert_close(first.values, again.values, rtol=0, atol=0, equal_nan=True)
    assert not torch.allclose(first.values, other.values, equal_nan=True)
    assert first.n == 256


# The null of z: the other pairs of the same two layers.


def test_z_is_the_median_and_its_deviation_of_all_other_pairs_worked_out_one_by_one():
    rng = np.random.default_rng(3)
    excess = torch.full((3, 4, 3, 4), torch.nan)
    for src, layer in PAIRS:
        excess[src, :, layer] = torch.tensor(rng.normal(size=(4, 4)) ** 3, dtype=torch.float32)
    excess[0, 2, 1, 3] = torch.nan  # a dead head
    floor = torch.full_like(excess, 0.3)
    found = z_among(excess, floor)
    assert torch.equal(found.isfinite(), excess.isfinite())
    for src, layer in PAIRS:
        own = excess[src, :, layer].flatten().double().numpy()
        for i in np.flatnonzero(np.isfinite(own)):
            others = np.delete(own, i)
            others = others[np.isfinite(others)]
            location = np.median(others)
            scale = max(1.4826 * np.median(np.abs(others - location)), 0.3)
            answer = (own[i] - location) / scale
            assert found[src, i // 4, layer, i % 4].item() == pytest.approx(answer, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_the_median_of_the_others(n):
    values = torch.tensor(np.random.default_rng(n).integers(0, 5, n), dtype=torch.float64)  # with ties
    answer = [np.median(np.delete(values.numpy(), i)) for i in range(n)]
    np.testing.assert_array_equal(median_of_others(values).numpy(), answer)


def test_a_subspace_that_all_heads_share_makes_no_pair_stand_out(tmp_path):
    """Against rotations every pair does, by more than 10 standard deviations: so it was until version 3."""
    weights = load_fresh(
        open_series(write_circuit(tmp_path / "shared", "shared_subspace", seed=2))[0]
    ).weights
    found, spectra = ratios(weights)
    scores = scores_of(weights)
    for mode, (mean, sd) in nulls(spectra, weights.W_E.shape[1], 0).items():
        against_rotations = ((found[mode] - mean.view_as(found[mode])) / sd.view_as(found[mode]))[0, :, 1]
        assert (against_rotations > 10).all()
        z = scores[f"{mode}_z"].values[0, :, 1]
        assert (z > 1.64).float().mean() < 0.2 and z.max() < 5
        assert z.median().abs() < 0.2


def test_two_layers_of_two_heads_have_excesses_and_no_z():
    rng = torch.Generator().manual_seed(1)
    W_Q, W_K, W_V, W_O = (
        torch.randn(2, 2, *shape, generator=rng) for shape in ((8, 3), (8, 3), (8, 3), (3, 8))
    )
    weights = HeadWeights(
        W_E=torch.eye(8), W_U=torch.eye(8), W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O, attn_norm_gain=torch.ones(2, 8),
        final_norm_gain=torch.ones(8), centred=False, final_centred=False, linear_readout=True,
    )  # fmt: skip
    scores = scores_of(weights)
    assert scores["k_excess"].values[0, :, 1].isfinite().all()
    assert scores["k_z"].values.isnan().all()


# Planted heads.


def rows_of(model):
    """What a sweep stores of a model's composition."""
    measured = measure_once(model, REGISTRY["composition"], ids=IDS.numpy(), seed=0)
    return unit_table(measured, run="r", step=0, tokens_seen=None).to_pandas()


def labelled(rows) -> set[tuple[str, str]]:
    return {
        (f"L{r.src_layer:.0f}H{r.src_head:.0f}", f"L{r.layer:.0f}H{r.head:.0f}") for r in rows.itertuples()
    }


def test_the_only_composition_is_that_of_the_previous_token_head_with_the_prefix_heads(planted_model):
    """L0H0 writes 64 orthogonal directions and each prefix head's keys read exactly those: a ratio of 1/8."""
    found, _ = ratios(planted_model.weights)
    for mode in MODES:
        answer = torch.zeros(4, 4)
        if mode == "k":
            answer[0, :3] = 1 / 8
        torch.testing.assert_close(found[mode][0, :3, 1], answer[:3], rtol=0, atol=1e-6)
    rows = rows_of(planted_model)
    for mode in MODES:
        z = rows[rows["metric"] == f"{mode}_z"]
        assert labelled(z[z["value"] > 5]) == (INDUCTION_PAIRS if mode == "k" else set())
        others = z[z["valid"] & ~(z["value"] > 5)]
        assert (others["value"].abs() < 0.1).all()  # orthogonal writes and reads, as most pairs of this model
        excess = rows[rows["metric"] == f"{mode}_excess"]
        assert excess.loc[excess["valid"], "value"].max() == pytest.approx(
            1 / 8 - 1 / math.sqrt(384) if mode == "k" else -1 / math.sqrt(384), abs=1e-3
        )


def test_dead_heads_are_not_measured_with_a_reason(planted_model):
    rows = rows_of(planted_model)
    invalid = rows[~rows["valid"]]
    assert labelled(invalid) == {("L0H3", f"L1H{h}") for h in range(4)}  # L0H3 writes nothing
    assert set(invalid["reason"]) == {REGISTRY["composition"].undefined}
    assert len(invalid) == 6 * 4


def test_rows_are_the_possible_pairs_and_two_counts(model):
    rows = rows_of(model)
    pairs = rows[rows["src_layer"].notna()]
    assert len(pairs) == 6 * 3 * 16  # six metrics, three pairs of layers, four heads each
    assert (pairs["src_layer"] < pairs["layer"]).all()
    assert (pairs["lo"] == pairs["value"]).all() and (pairs["hi"] == pairs["value"]).all()
    counts = rows[rows["src_layer"].isna()].set_index("metric")["value"]
    assert counts.to_dict() == {"n_pairs": 48, "n_kept": 48}


def test_of_many_pairs_those_far_from_their_null_are_kept_and_the_rest_counted(model, monkeypatch):
    everything = scores_of(model.weights)
    monkeypatch.setattr(module, "MANY_PAIRS", 47)
    rows = rows_of(model)
    far = torch.stack([everything[f"{mode}_z"].values.abs() >= 2 for mode in MODES]).any(0)
    far &= everything["k_z"].exists
    n_far = int(far.sum())
    assert 0 < n_far < 48
    assert (rows["src_layer"].notna()).sum() == 6 * n_far
    counts = rows[rows["src_layer"].isna()].set_index("metric")["value"]
    assert counts.to_dict() == {"n_pairs": 48, "n_kept": n_far}
    kept = rows[rows["metric"] == "k_z"]
    index = torch.tensor(kept[["src_layer", "src_head", "layer", "head"]].to_numpy(dtype=int))
    torch.testing.assert_close(
        everything["k_z"].values[tuple(index.T)].double(), torch.tensor(kept["value"].to_numpy())
    )


def test_what_was_not_measured_is_kept_among_many_pairs(planted_model, monkeypatch):
    monkeypatch.setattr(module, "MANY_PAIRS", 1)
    rows = rows_of(planted_model)
    assert (rows["metric"].eq("v_z") & ~rows["valid"]).sum() == 4


# What cannot be measured.


def test_models_it_cannot_read_say_why(planted):
    with pytest.raises(NotMeasuredError, match="norm after attention"):
        scores_of(replace(planted, linear_readout=False))
    names = ("W_Q", "W_K", "W_V", "W_O", "attn_norm_gain")
    with pytest.raises(NotMeasuredError, match="one layer"):
        scores_of(replace(planted, **{name: getattr(planted, name)[:1] for name in names}))


def test_weights_that_are_not_finite_take_only_their_own_pairs(planted):
    broken = planted.W_K.clone()
    broken[1, 2, 0, 0] = torch.inf
    z = scores_of(replace(planted, W_K=broken))["k_z"].values[0, :, 1]
    assert z[:, 2].isnan().all()
    assert z[:3, [0, 1, 3]].isfinite().all()


def test_a_null_without_spread_gives_no_z():
    """Full, flat spectra are the same after every rotation."""
    eye = torch.eye(4)[None, None].expand(2, 1, -1, -1)
    weights = HeadWeights(
        W_E=torch.eye(4), W_U=torch.eye(4), W_Q=eye, W_K=eye, W_V=eye, W_O=eye,
        attn_norm_gain=torch.ones(2, 4), final_norm_gain=torch.ones(4), centred=False, final_centred=False,
        linear_readout=True,
    )  # fmt: skip
    scores = scores_of(weights)
    assert scores["k_excess"].values[0, 0, 1, 0].item() == pytest.approx(0, abs=1e-6)  # 1/2 against 1/2
    assert scores["k_z"].values[0, 0, 1, 0].isnan()


def test_the_sweep_writes_pairs(tmp_path):
    path = write_planted(tmp_path / "planted", CONFIG)
    outcome = sweep(open_series(path), SweepConfig(probes=("composition",)), out=tmp_path / "results")
    rows = outcome.results.select("composition", "k_z", step=0)
    assert labelled(rows[rows["value"] > 5]) == INDUCTION_PAIRS
    assert outcome.results.select("composition", "n_pairs")["value"].tolist() == [16]
    np.testing.assert_array_equal(rows["chance"][rows["valid"]], 0)
