"""Ablation, load, clamps and circuits on planted models, where every answer can be worked out."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, expected, planted_model, write_planted
from byrote.checkpoints.lab.planted_answers import expected_logits
from byrote.interp.bridge import HookedSeries
from byrote.interp.intervene import ABLATIONS, clean_run, derangement, editing
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.interp.observe import observe
from byrote.probes.circuits.ablation_text import late_minus_early
from byrote.probes.circuits.clamp import perfect_induction, perfect_previous
from byrote.probes.circuits.effects import Draws, later_blocks, matched_draws, strongest
from byrote.probes.circuits.graft import graft
from byrote.probes.circuits.induction_circuit import _Scores as Scores
from byrote.probes.circuits.load_bearing import _Load
from byrote.probes.heads.matching import earlier_copies, shifted_keys, uniform_attention
from byrote.probes.model.icl_score import positions
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured, unit_table
from byrote.probes.spec import NotMeasuredError
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.measure import measure_once
from byrote.probes.sweep.run import sweep

D_VOCAB, N_CTX = 48, 64  # blocks of 15 tokens, four times
IDS = Vocabulary(np.arange(1, D_VOCAB), 0)
FEEDER, IDLE = HeadSpec("previous", writes="previous"), HeadSpec("uniform", strength_nats=0.0)
DUPLICATE, SOFT_PREVIOUS = HeadSpec("duplicate"), HeadSpec("previous", strength_nats=math.log(32))
INDUCTION = HeadSpec("prefix", writes="output")
LAYER_0 = (FEEDER, DUPLICATE, SOFT_PREVIOUS, IDLE)
CIRCUITS = {
    # One head does it all; two do the same; one looks the part while another copies from a fixed distance; none.
    "load-bearing": (IDLE, INDUCTION, IDLE, IDLE),
    "distributed induction": (INDUCTION, INDUCTION, IDLE, IDLE),
    "signature only": (HeadSpec("prefix"), HeadSpec("offset", writes="output"), IDLE, IDLE),
    "neither": (HeadSpec("offset", writes="output"), IDLE, IDLE, IDLE),
}
PLANTED = PlantedConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, offset=14)
CONFIGS = {name: replace(PLANTED, heads=(LAYER_0, layer_1)) for name, layer_1 in CIRCUITS.items()}
LN_IDS = math.log(D_VOCAB)


@pytest.fixture(scope="module")
def stimuli() -> dict[str, Stimulus]:
    return drawn(6)


@pytest.fixture(scope="module")
def sixteen() -> dict[str, Stimulus]:
    """As many as a verdict takes."""
    return drawn(16)


def drawn(n_seq: int) -> dict[str, Stimulus]:
    kinds = ("repeated_random", "shuffled_repeat", "jittered_repeat")
    return {kind: make(kind, IDS, n_ctx=N_CTX, seed=0, n_seq=n_seq) for kind in kinds}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load(config)`: the planted model."""
    made: dict[PlantedConfig, HookedModel] = {}

    def load_one(config: PlantedConfig) -> HookedModel:
        if config not in made:
            path = write_planted(tmp_path_factory.mktemp("planted") / "planted", config)
            made[config] = load_fresh(open_series(path)[0])
        return made[config]

    return load_one


def direct(model: HookedModel, name: str, stimuli: dict[str, Stimulus], seed: int = 0) -> dict[str, Measured]:
    info = REGISTRY[name]
    shown = {kind: stimuli[kind] for kind in info.stimuli}
    return {m.metric: m for m in measure_once(model, info, stimuli=shown, seed=seed)}


def later_loss(logits: np.ndarray, stimulus: Stimulus, *, first: bool = False) -> np.ndarray:
    """Mean loss per sequence on the tokens of later blocks but their first (or of the first block), in numpy."""
    logits, targets = logits[:, :-1].astype(np.float64), stimulus.tokens[:, 1:]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    before, copy = stimulus.copy_index[:, :-1], stimulus.copy_index[:, 1:]
    later = copy == 1 if first else (copy > 1) & (copy == before)
    return (nll * later).sum(1) / later.sum(1)


def silenced(config: PlantedConfig, head: int) -> PlantedConfig:
    """The same model with a head of layer 1 writing where nothing reads."""
    layer = list(config.heads[1])
    layer[head] = replace(layer[head], writes="unread")
    return replace(config, heads=(config.heads[0], tuple(layer)))


# Ablation.


def test_ablated_heads_cost_what_the_closed_form_says(load, stimuli):
    """A head's logits are known, and there is no norm: every kind of ablation of layer 1 is a sum of them."""
    config, stimulus = PLANTED, stimuli["repeated_random"]
    found = direct(load(config), "ablation", stimuli, seed=3)
    with_all = expected_logits(config, stimulus.tokens)
    clean = later_loss(with_all, stimulus)
    np.testing.assert_allclose(found["clean"].samples, clean, atol=1e-5)
    for head in (0, 3):
        without = expected_logits(silenced(config, head), stimulus.tokens)
        own = with_all - without
        stand_in = {
            "zero": 0.0,
            "mean": (own.sum(0, keepdims=True) - own) / (len(own) - 1),
            "resample": own[derangement(len(own), 3).numpy()],
            "pattern_preserving": 0.0,
        }
        for kind in ABLATIONS:
            answer = later_loss(without + stand_in[kind], stimulus) - clean
            np.testing.assert_allclose(found[kind].samples[:, 1, head], answer, atol=2e-5)
    assert found["resample"].values[1].max() > 0.25
    assert all(found[kind].chance.max() == 0 for kind in ABLATIONS)


def test_without_the_previous_token_head_the_induction_head_matches_nothing(load, stimuli):
    """Zero keys make its attention even; the loss is that of even attention; with patterns kept nothing happens."""
    config, stimulus = CONFIGS["load-bearing"], stimuli["repeated_random"]
    model, tokens = load(config), torch.from_numpy(stimulus.tokens)
    found = direct(model, "ablation", stimuli)
    clean = later_loss(expected_logits(config, stimulus.tokens), stimulus)
    even = uniform_attention(tokens.shape[1])[0, 0].double().numpy() @ np.eye(D_VOCAB)[stimulus.tokens] * 10.0
    answer = later_loss(even, stimulus) - clean
    np.testing.assert_allclose(found["zero"].samples[:, 0, 0], answer, atol=2e-5)
    assert answer.min() > 3
    np.testing.assert_allclose(found["pattern_preserving"].samples[:, 0, 0], 0, atol=1e-5)
    scores = Scores({"prefix": shifted_keys(earlier_copies(tokens), 1)})
    with editing(model, [clean_run(model, tokens).ablation("zero", [(0, 0)])]):
        observe(model, tokens, [scores], batch=len(tokens))
    prefix = scores.values("prefix")[:, 1, 1]
    q = np.arange(16, 61)  # even attention has one target of q + 1 keys for every earlier copy
    np.testing.assert_allclose(prefix, np.mean((q - 1) // 15 / (q + 1)), atol=1e-5)


def test_without_its_one_induction_head_a_model_guesses(load, stimuli):
    found = direct(load(CONFIGS["load-bearing"]), "ablation", stimuli)
    after = found["clean"].values + found["zero"].values[1, 1]
    assert after == pytest.approx(LN_IDS, abs=1e-4)
    rest = np.delete(found["zero"].values.ravel(), [0, 5])
    np.testing.assert_allclose(rest, 0, atol=1e-5)  # a head that copying does not need costs nothing


def test_patterns_that_cannot_be_kept_are_not_measured_and_the_rest_is(load, stimuli, hf_series):
    model = load_fresh(open_series(hf_series("gpt_neox", 1))[0])
    dict(model.bridge.hook_dict)["blocks.1.attn.o.hook_in"].add_hook(
        lambda z, hook: z * 1.5, is_permanent=True
    )
    shown = {
        "repeated_random": make("repeated_random", Vocabulary(np.arange(1, 61), 0), n_ctx=64, seed=0, n_seq=4)
    }
    table = unit_table(
        list(direct(model, "ablation", shown).values()), run="r", step=0, tokens_seen=None
    ).to_pandas()
    kept = table["metric"] == "pattern_preserving"
    assert not table["valid"][kept].any()
    assert table["reason"][kept].str.contains("head outputs are not attention times values").all()
    assert table["valid"][~kept].all()
    clamped = direct(model, "clamp", shown)
    assert {m.undefined for m in clamped.values()} == set(table["reason"][kept])


@pytest.mark.parametrize("arch", ["gemma2", "llama", "bloom"])
def test_causal_probes_run_on_architectures_of_all_kinds(hf_series, arch):
    model = load_fresh(open_series(hf_series(arch, 1))[0])
    kinds = ("repeated_random", "shuffled_repeat", "jittered_repeat")
    shown = {k: make(k, Vocabulary(np.arange(1, 61), 0), n_ctx=64, seed=0, n_seq=4) for k in kinds}
    for name in ("ablation", "clamp", "load_bearing", "induction_circuit"):
        found = direct(model, name, shown)
        main = found[REGISTRY[name].main_metric]
        if (name, arch) == ("induction_circuit", "gemma2"):
            assert "a norm after attention" in main.undefined
            continue
        values = main.values if main.exists is None else main.values[main.exists]
        assert np.isfinite(values).all()
        assert (values != 0).any()


def test_one_sequence_is_not_enough(load):
    kinds = ("repeated_random", "jittered_repeat")
    one = {kind: make(kind, IDS, n_ctx=N_CTX, seed=0, n_seq=1) for kind in kinds}
    for name in ("ablation", "clamp", "induction_circuit"):
        (reason,) = {m.undefined for m in direct(load(CONFIGS["neither"]), name, one).values()}
        assert "needs two sequences" in reason


# On text.


def test_late_minus_early_reads_the_positions_of_the_icl_score():
    for width in (16, 48, 100, 512, 1024):
        nll = torch.arange(1.0, width)[None]  # the loss of token t is t
        early, late, _ = positions(width)
        assert late_minus_early(width)(nll).item() == late - early


def test_ablation_on_text_is_of_the_loss_and_of_its_late_minus_early(load, stimuli):
    config = CONFIGS["load-bearing"]
    text = replace(stimuli["repeated_random"], kind="natural")
    found = direct(load(config), "ablation_text", {"natural": text})

    def nll(of: PlantedConfig) -> np.ndarray:
        logits = expected_logits(of, text.tokens)[:, :-1]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -np.take_along_axis(log_p, text.tokens[:, 1:, None], axis=-1)[..., 0]

    change = nll(silenced(config, 1)) - nll(config)
    np.testing.assert_allclose(found["loss_zero"].samples[:, 1, 1], change.mean(1), atol=2e-5)
    early, late, _ = positions(text.tokens.shape[1])
    answer = change[:, late - 1] - change[:, early - 1]
    np.testing.assert_allclose(found["icl_zero"].samples[:, 1, 1], answer, atol=2e-5)
    assert answer.mean() > 3


# Load.


@pytest.mark.parametrize("name", CIRCUITS)
def test_verdicts_on_circuits_of_which_it_is_known(load, sixteen, name):
    found = {
        metric: m.values.item() for metric, m in direct(load(CONFIGS[name]), "load_bearing", sixteen).items()
    }
    assert REGISTRY["load_bearing"].word_of("verdict", float(found["verdict"])) == name
    assert (found["n_top"], found["n_draws"], found["n_possible"]) == (1, 3, 3)
    joint = {"load-bearing": 1, "distributed induction": 2, "signature only": 0, "neither": 0}[name]
    assert (found["n_joint"], found["layers_away"]) == (joint, 0)
    logits = expected_logits(CONFIGS[name], sixteen["repeated_random"].tokens)
    gain = [later_loss(logits, sixteen["repeated_random"], first=first) for first in (True, False)]
    assert found["gain"] == pytest.approx((gain[0] - gain[1]).mean(), abs=1e-4)
    if name == "load-bearing":
        assert found["top_change"] == pytest.approx(LN_IDS, abs=0.9)  # the mean stand-in is noise
        assert (found["random_change"], found["random_most"]) == pytest.approx((0, 0), abs=1e-5)
        assert found["called_excess"] == found["excess"] == found["joint_excess"]
        assert found["beaten_frac"] == 1
    if name == "distributed induction":
        assert found["excess"] < 0.05
        assert found["joint_change"] > LN_IDS
        assert found["joint_signature"] == pytest.approx(2 * found["signature"])
        assert found["n_called"] == 2
    if name == "signature only":
        assert found["signature"] > 0.9
        assert found["top_change"] == pytest.approx(0, abs=1e-5)
        assert np.isnan(found["called_excess"])
    if name == "neither":
        assert abs(found["signature"]) < 0.05
        assert np.isnan(found["joint_change"])


def test_one_head_per_layer_leaves_nothing_to_compare_with(lab_series):
    model = load_fresh(open_series(lab_series(1, n_heads=1, d_head=16))[0])
    vocabulary, kinds = Vocabulary(np.arange(1, 24), 0), REGISTRY["load_bearing"].stimuli
    found = direct(model, "load_bearing", {k: make(k, vocabulary, n_ctx=32, seed=0, n_seq=16) for k in kinds})
    assert np.isfinite(found["top_change"].values)
    assert np.isnan(found["excess"].values)
    assert "has 0 other heads for the 1 chosen from it: nothing to compare with" in found["excess"].undefined
    assert found["called_excess"].undefined == "there are no such heads"
    assert (found["n_draws"].values, found["verdict"].values) == (0, 0)  # a random head looks like nothing


def test_draws_match_layers_are_distinct_and_leave_the_chosen_out():
    chosen = [(0, 1), (2, 0), (2, 3)]
    few = matched_draws(chosen, n_layers=3, n_heads=4, seed=0)
    assert few.n_possible == len(few.sets) == 3 * 1
    assert {s[1:] for s in few.sets} == {((2, 1), (2, 2))}
    many = matched_draws(chosen, n_layers=3, n_heads=12, seed=0)
    assert many.n_possible == 11 * math.comb(10, 2)
    assert len(set(many.sets)) == len(many.sets) == 20
    for drawn in many.sets:
        assert [layer for layer, _ in drawn] == [0, 2, 2]
        assert not set(drawn) & set(chosen)
    assert (
        matched_draws(chosen, n_layers=3, n_heads=12, seed=0)
        == many
        != matched_draws(chosen, n_layers=3, n_heads=12, seed=1)
    )
    for impossible in ([(0, 0), (0, 1), (0, 2)], []):
        none = matched_draws(impossible, n_layers=2, n_heads=4, seed=0)
        assert (none.n_possible, none.sets) == (0, ()) and none.lacking


def test_a_layer_with_too_few_other_heads_draws_from_the_layers_around_it():
    chosen = [(2, head) for head in range(4)] + [(5, 0)]
    found = matched_draws(chosen, n_layers=9, n_heads=6, seed=0)
    assert (found.layers_away, len(set(found.sets)), found.lacking) == (1, 20, "")
    for drawn in found.sets:
        layers = [layer for layer, _ in drawn]
        assert layers.count(5) == 1 and set(layers) <= {1, 2, 3, 5}  # layer 5 has enough of its own
        assert len(set(drawn)) == 5 and not set(drawn) & set(chosen)
    assert {layer for drawn in found.sets for layer, _ in drawn} == {1, 2, 3, 5}
    whole = [(layer, head) for layer in (3, 4, 5) for head in range(6)]
    assert matched_draws(whole, n_layers=12, n_heads=6, seed=0).layers_away == 2
    lacking = matched_draws(whole, n_layers=6, n_heads=6, seed=0).lacking
    assert lacking.startswith(
        "layer 3 has 0 other heads for the 6 chosen from it, nor have the 2 layers on either side"
    )


def test_as_many_top_heads_as_requested_and_harmful_draws_count_as_nothing(load, sixteen):
    shown = {kind: sixteen[kind] for kind in REGISTRY["load_bearing"].stimuli}
    model, info = load(CONFIGS["distributed induction"]), REGISTRY["load_bearing"]
    found = {
        m.metric: m.values for m in measure_once(model, info, stimuli=shown, seed=0, options={"top_heads": 2})
    }
    assert (found["n_top"], found["verdict"], found["n_draws"]) == (2, 3, 1)
    assert found["top_change"] > LN_IDS
    idle = Draws((((1, 2),), ((1, 3),)), 2)
    changes = {
        ((1, 0),): np.full(4, 0.01),
        ((1, 2),): np.full(4, -0.7),
        ((1, 3),): np.array([-0.1, 0.3, 0.0, 0.0]),
    }
    one = _Load.of(((1, 0),), idle, changes)
    np.testing.assert_allclose(one.excess, 0.01 - np.array([-0.1, 0.3, 0.0, 0.0]) / 2)
    assert one.beaten == 0.5


def test_strongest_heads():
    scores = np.array([[0.1, 0.9, np.nan], [0.9, 0.2, 0.95]])
    assert strongest(scores, 1) == ((1, 2),)
    assert strongest(scores, 2) == ((0, 1), (1, 2))  # of equals the earlier
    assert strongest(scores[1:], 2, first_layer=1) == ((1, 0), (1, 2))
    assert strongest(scores, 6)[2] == (0, 2)


# Clamps.


def test_ideal_patterns_worked_by_hand():
    tokens = torch.tensor([[0, 5, 7, 5, 5]])
    ideal = perfect_induction(earlier_copies(tokens))[0]
    assert ideal.nonzero().tolist() == [[3, 2], [4, 2], [4, 4]]  # after 5 came 7; at the end also 5 itself
    assert ideal[4].tolist() == [0, 0, 0.5, 0, 0.5]
    assert perfect_previous(3).tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_a_soft_head_clamped_is_the_hard_head(load, stimuli):
    soft = replace(PLANTED, heads=(LAYER_0, (replace(INDUCTION, strength_nats=1.0), IDLE, IDLE, IDLE)))
    hard = replace(PLANTED, heads=(LAYER_0, (INDUCTION, IDLE, IDLE, IDLE)))
    stimulus = stimuli["repeated_random"]
    found = direct(load(soft), "clamp", stimuli)
    loss = {c: later_loss(expected_logits(c, stimulus.tokens), stimulus) for c in (soft, hard)}
    np.testing.assert_allclose(found["induction"].samples[:, 1, 0], loss[hard] - loss[soft], atol=1e-5)
    assert (loss[hard] - loss[soft]).max() < -2
    np.testing.assert_allclose(found["induction"].values[1, 1:], 0, atol=1e-5)
    np.testing.assert_allclose(found["previous_token"].values[0, 0], 0, atol=1e-5)  # it does so already
    previous = expected_logits(soft, stimulus.tokens) * 0
    previous[:, 1:] = 10 * np.eye(D_VOCAB)[stimulus.tokens[:, :-1]]
    previous[:, 0] = 10 * np.eye(D_VOCAB)[0]
    answer = later_loss(previous, stimulus) - loss[soft]
    np.testing.assert_allclose(found["previous_token"].samples[:, 1, 0], answer, atol=2e-5)


# The circuit.


def test_the_path_from_the_previous_token_head_carries_prefix_matching(load, stimuli):
    """Its keys written out: the mean over the other sequences of the one-hot of the token before, times c."""
    stimulus = stimuli["jittered_repeat"]
    found = direct(load(PLANTED), "induction_circuit", stimuli)
    tokens, n_seq = stimulus.tokens, stimulus.n
    before = np.eye(D_VOCAB)[np.concatenate([tokens[:, :1], tokens[:, :-1]], axis=1)]
    keys = (before.sum(0, keepdims=True) - before) / (n_seq - 1)
    targets = shifted_keys(earlier_copies(torch.from_numpy(tokens)), 1).numpy()
    clean = expected(PLANTED, tokens)["prefix_matching"]
    for head, strength in ((0, 64.0), (1, math.log(32)), (2, 64.0)):
        logits = strength * np.einsum("bqv,bkv->bqk", np.eye(D_VOCAB)[tokens], keys)
        weight = np.exp(logits) * np.tril(np.ones(logits.shape[1:]))
        pattern = weight / weight.sum(-1, keepdims=True)
        queries = targets.any(-1)
        answer = ((pattern * targets).sum(-1) * queries).sum(1) / queries.sum(1) - clean[:, 1, head]
        np.testing.assert_allclose(found["change"].samples[:, 0, 0, 1, head], answer, atol=1e-4)
    assert found["change"].values[0, 0, 1, 0] < -0.9
    others = found["change"].values[0, 1:, 1]
    np.testing.assert_allclose(others, 0, atol=1e-5)
    np.testing.assert_allclose(
        found["change"].values[0, 0, 1, 3], 0, atol=1e-5
    )  # looks back a fixed distance
    np.testing.assert_allclose(found["q_change"].values[found["q_change"].exists], 0, atol=1e-5)
    assert found["k_z"].values[0, 0, 1, 0] > 100 > found["q_z"].values[0, 0, 1, 0]
    assert found["n_pairs"].values == found["n_possible"].values == 16


def test_only_pairs_that_were_measured_have_rows(hf_series):
    model = load_fresh(open_series(hf_series("llama", 1, num_hidden_layers=3))[0])
    shown = {
        "jittered_repeat": make("jittered_repeat", Vocabulary(np.arange(1, 61), 0), n_ctx=64, seed=0, n_seq=4)
    }
    found = direct(model, "induction_circuit", shown)
    table = unit_table(list(found.values()), run="r", step=0, tokens_seen=None).to_pandas()
    pairs = table[table["metric"] == "change"]
    assert len(pairs) == found["n_pairs"].values <= 28 < found["n_possible"].values == 48
    assert (pairs["src_layer"] < pairs["layer"]).all()
    assert pairs["valid"].all()
    assert (pairs["lo"] <= pairs["value"]).all() and (pairs["value"] <= pairs["hi"]).all()
    first = pairs.iloc[0]
    samples = found["change"].samples[
        :, int(first["src_layer"]), int(first["src_head"]), int(first["layer"]), int(first["head"])
    ]
    np.testing.assert_allclose(first["samples"], samples, rtol=1e-6)
    assert first["value"] == pytest.approx(samples.mean(), abs=1e-7)


def test_a_model_of_one_layer_has_no_circuit(lab_series):
    model = load_fresh(open_series(lab_series(1, n_layers=1))[0])
    shown = {
        "jittered_repeat": make("jittered_repeat", Vocabulary(np.arange(1, 24), 0), n_ctx=32, seed=0, n_seq=4)
    }
    assert "one layer" in direct(model, "induction_circuit", shown)["change"].undefined


# Grafts.


@pytest.fixture
def two_steps(tmp_path):
    """Step 0 lacks the induction head that step 1 has; all else is equal, a head that hardly does anything with it."""
    faint = HeadSpec("duplicate", writes="output", gain=0.001)
    config = replace(PLANTED, heads=(LAYER_0, (IDLE, INDUCTION, faint, IDLE)))
    path = write_planted(tmp_path / "two", silenced(config, 1))
    (path / "step_00000001").mkdir()
    save_file(planted_model(config)[1], path / "step_00000001" / "model.safetensors")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["checkpoints"].append({**manifest["checkpoints"][0], "step": 1, "folder": "step_00000001"})
    manifest["schedule"] = [0, 1]
    (path / "manifest.json").write_text(json.dumps(manifest))
    return HookedSeries(open_series(path))


def test_a_grafted_induction_head_brings_copying_back(two_steps, stimuli):
    stimulus = stimuli["repeated_random"]
    rows = graft(two_steps, stimulus, from_step=1, into_step=0, heads=[(1, 1)])
    found = rows.set_index(["way", "metric"])["value"]
    assert set(rows["heads"]) == {"L1H1"}
    assert found["", "into"] == pytest.approx(LN_IDS, abs=0.01)
    assert found["weights", "loss"] == pytest.approx(found["", "from"], abs=1e-5)
    assert found["weights", "returned"] == pytest.approx(1, abs=1e-5)
    assert found["weights", "control"] == pytest.approx(0, abs=1e-5)
    assert found["weights", "n_draws"] == 3
    # The other step's z and pattern are there, but step 0 still writes them where nothing reads.
    assert found["z", "returned"] == pytest.approx(0, abs=1e-5)
    assert found["pattern", "returned"] == pytest.approx(0, abs=1e-5)
    assert rows["valid"].all()
    assert (rows["lo"] <= rows["hi"]).all()
    at_rest = two_steps.load(two_steps.series.at(0)).logits(torch.from_numpy(stimulus.tokens))
    assert 0 < at_rest.abs().max() <= 0.0101  # step 0 is as it was


def test_a_graft_says_what_it_cannot_tell(two_steps, stimuli):
    rows = graft(
        two_steps, stimuli["repeated_random"], from_step=0, into_step=0, heads=[(1, h) for h in range(4)]
    )
    bad = rows[~rows["valid"]].set_index(["way", "metric"])["reason"]
    assert bad["weights", "returned"] == "the two steps do not clearly differ"
    assert bad["weights", "control"] == "no other heads of these layers can be grafted instead"


# Through the sweep.


def test_a_sweep_stores_and_reuses_them(tmp_path, lab_series):
    series = open_series(lab_series(2))
    config = SweepConfig(probes=("ablation", "load_bearing", "clamp", "induction_circuit"), n_seq=4)
    done = sweep(series, config, out=tmp_path / "results")
    assert not done.gaps
    frame = done.results.frame
    heads = frame[(frame["probe"] == "ablation") & (frame["metric"] == "mean")]
    assert len(heads) == 2 * 8 and heads["valid"].all() and (heads["chance"] == 0).all()
    pairs = frame[(frame["probe"] == "induction_circuit") & (frame["metric"] == "change")]
    assert len(pairs) == 2 * 16
    again = sweep(series, config, out=tmp_path / "results")
    assert again.measured == 0


def test_measures_refuse_nothing_silently(load, stimuli):
    from byrote.probes.circuits.effects import refuse_if

    refuse_if("")
    with pytest.raises(NotMeasuredError, match="because"):
        refuse_if("because")
    measure = later_blocks(stimuli["repeated_random"])
    ones = torch.ones(2, 6, 60)
    assert torch.equal(measure(ones), torch.ones(2, 6))
