"""The hand-made model does what its closed form says, and the closed form is what pencil and paper give."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction as F

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.lab.planted import (
    PLANTED_HEADS,
    HeadSpec,
    PlantedConfig,
    expected,
    planted_model,
    random_model,
    write_planted,
)

BLOCK = 25
COPIES = 4
HAND_CONFIG = PlantedConfig(d_vocab=64, n_ctx=16, offset=2)
HAND_TOKENS = np.array([[0, 3, 5, 8, 3, 5, 8]])
"""BOS and a block of three, twice: queries 4, 5 and 6 have one earlier copy, their targets are 2, 3 and 4."""


def bridge_of(fields: dict, state: dict):
    config = TransformerBridgeConfig(
        **{k: v for k, v in fields.items() if k not in ("model_type", "bos_token_id")}
    )
    model = NativeModel(config)
    model.load_state_dict(state, strict=True)
    return build_bridge_from_module(model, "TransformerLensNative", tl_config=config)


def run_on(bridge, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patterns [n_layers n_heads batch query_pos key_pos] and logits of one forward pass."""
    seen: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        return lambda pattern, hook: seen.__setitem__(layer, pattern.clone())

    hooks = [(f"blocks.{layer}.attn.hook_pattern", keep(layer)) for layer in range(2)]
    with torch.inference_mode():
        logits = bridge.run_with_hooks(torch.as_tensor(tokens), fwd_hooks=hooks)
    return torch.stack([seen[0], seen[1]]).permute(0, 2, 1, 3, 4).numpy(), logits.numpy()


@pytest.fixture(scope="module")
def planted():
    torch.set_num_threads(1)
    return bridge_of(*planted_model())


def draw(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.permutation(np.arange(1, 64))[:size]


def stimulus(kind: str, *, n_sequences: int = 4) -> np.ndarray:
    """BOS and four blocks: equal, redrawn after the first, or equal with a length of its own per sequence."""
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(n_sequences):
        size = int(rng.choice([17, 20, 22, 29, 31])) if kind == "jittered" else BLOCK
        block = draw(rng, size)
        blocks = [draw(rng, size) if kind == "shuffled" else block for _ in range(6)]
        rows.append(np.concatenate([[0], *blocks])[: 1 + BLOCK * COPIES])
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["repeated", "shuffled", "jittered"])
def test_model_output_is_the_closed_form(planted, kind):
    tokens = stimulus(kind)
    pattern, logits = run_on(planted, tokens)
    answers = expected(PlantedConfig(), tokens)
    np.testing.assert_allclose(pattern, answers["pattern"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits, answers["logits"], rtol=0, atol=1e-5)


def test_hard_heads_are_exact_in_float32(planted):
    pattern, _ = run_on(planted, stimulus("repeated"))
    later = np.arange(1, 1 + BLOCK * COPIES)
    assert (pattern[0, 0][:, later, later - 1] == 1).all()
    second_block = np.arange(1 + BLOCK, 1 + 2 * BLOCK)
    assert (pattern[1, 0][:, second_block, second_block - BLOCK + 1] == 1).all()


def test_soft_heads_have_their_formula_on_the_standard_stimulus():
    answers = expected(PlantedConfig(), stimulus("repeated", n_sequences=2))
    q = np.arange(1, 1 + BLOCK * COPIES)
    np.testing.assert_allclose(answers["previous_token"][:, 0, 1], np.mean(32 / (32 + q)), rtol=1e-12)
    q = q[BLOCK:]
    n_targets = (q - 1) // BLOCK
    induction = n_targets * 32 / (n_targets * 32 + q + 1 - n_targets)
    np.testing.assert_allclose(answers["prefix_matching"][:, 1, 1], np.mean(induction), rtol=1e-12)
    duplicate = n_targets * 16 / ((n_targets + 1) * 16 + q - n_targets)
    np.testing.assert_allclose(answers["duplicate_token"][:, 0, 2], np.mean(duplicate), rtol=1e-12)
    np.testing.assert_allclose(answers["prefix_matching"][:, 0, 3], np.mean(n_targets / (q + 1)), rtol=1e-12)
    np.testing.assert_allclose(
        answers["prefix_matching"][:, 0, 3], 0.0307, atol=5e-5
    )  # published chance level


def test_offset_head_passes_on_equal_blocks_and_fails_on_jittered_ones():
    equal = expected(PlantedConfig(), stimulus("repeated"))["prefix_matching"]
    jittered = expected(PlantedConfig(), stimulus("jittered"))["prefix_matching"]
    np.testing.assert_allclose(equal[:, 1, [0, 2, 3]], 1, atol=1e-12)
    np.testing.assert_allclose(jittered[:, 1, [0, 2]], 1, atol=1e-12)
    assert jittered[:, 1, 3].max() < 0.05
    assert jittered[:, 1, 1].min() > 0.3


HAND_SCORES = {
    # name: {(layer, head): answer}, worked on paper for HAND_TOKENS; e^c is 32, 16 and 32 in the soft heads
    "prefix_matching": {
        (0, 0): 0,
        (0, 1): (F(1, 36) + F(1, 37) + F(1, 38)) / 3,
        (0, 2): (F(1, 35) + F(1, 36) + F(1, 37)) / 3,
        (0, 3): (F(1, 5) + F(1, 6) + F(1, 7)) / 3,
        (1, 0): 1,
        (1, 1): (F(32, 36) + F(32, 37) + F(32, 38)) / 3,
        (1, 2): 1,
        (1, 3): 1,
    },
    "prefix_matching_sink_free": {
        (0, 0): 0,
        (0, 3): (F(1, 4) + F(1, 5) + F(1, 6)) / 3,
        (1, 0): 1,
        (1, 1): (F(32, 35) + F(32, 36) + F(32, 37)) / 3,
        (1, 3): 1,
    },
    "previous_token": {
        (0, 0): 1,
        (0, 1): sum(F(32, 32 + q) for q in range(1, 7)) / 6,
        (0, 2): (F(1, 17) + F(1, 18) + F(1, 19) + F(1, 35) + F(1, 36) + F(1, 37)) / 6,
        (0, 3): (F(1, 2) + F(1, 3) + F(1, 4) + F(1, 5) + F(1, 6) + F(1, 7)) / 6,
        (1, 0): (F(1, 2) + F(1, 3) + F(1, 4)) / 6,
        (1, 1): (F(1, 2) + F(1, 3) + F(1, 4) + F(1, 36) + F(1, 37) + F(1, 38)) / 6,
        (1, 3): (F(1, 2) + F(1, 3)) / 6,
    },
    "duplicate_token": {(0, 0): 0, (0, 2): (F(16, 35) + F(16, 36) + F(16, 37)) / 3, (1, 0): 0},
    "anti_induction": {
        (0, 2): (F(1, 35) + F(1, 36) + F(1, 37)) / 3,
        (0, 3): (F(1, 5) + F(1, 6) + F(1, 7)) / 3,
        (1, 0): 0,
        (1, 1): (F(1, 36) + F(1, 37) + F(1, 38)) / 3,
    },
    "sink": {(0, 0): F(1, 6), (1, 0): (F(1, 2) + F(1, 3) + F(1, 4)) / 6},
    "entropy": {(0, 0): 0, (0, 3): 1, (1, 0): F(1, 2), (1, 3): F(1, 3)},
    "copying_logit": {
        (1, 0): F(1182, 1882),
        (1, 1): 4
        / (1 + F(1089, 192) / (F(199, 192) + F(1030, 1296) + F(1033, 1369) + F(1098, 1444) - F(3, 64)))
        - 1,
        (1, 2): -1,
        (1, 3): F(1605, 2035),
    },
    "copying_logit_sink_free": {(1, 0): F(1381, 1683), (1, 2): -1},
}


@pytest.mark.parametrize("name", HAND_SCORES)
def test_scores_worked_by_hand(name):
    scores = expected(HAND_CONFIG, HAND_TOKENS)[name][0]
    for (layer, head), answer in HAND_SCORES[name].items():
        assert scores[layer, head] == pytest.approx(float(answer), abs=1e-12), f"L{layer}H{head}"


def test_patterns_and_logits_worked_by_hand():
    pattern, logits = run_on(bridge_of(*planted_model(HAND_CONFIG)), HAND_TOKENS)
    np.testing.assert_allclose(pattern[0, 1, 0, 2, :3], [1 / 34, 32 / 34, 1 / 34], atol=1e-6)
    np.testing.assert_allclose(pattern[0, 2, 0, 4, :5], np.array([1, 16, 1, 1, 16]) / 35, atol=1e-6)
    np.testing.assert_allclose(pattern[1, 0, 0, 3, :4], [0.25] * 4, atol=1e-6)  # nothing to match yet
    np.testing.assert_allclose(pattern[1, 1, 0, 6], np.array([1, 1, 1, 1, 32, 1, 1]) / 38, atol=1e-6)
    np.testing.assert_allclose(pattern[1, 3, 0, 6], [0, 0, 0, 0, 1, 0, 0], atol=1e-6)
    last = np.zeros(64)
    last[[0, 5, 8]] = [10 / 38, 20 / 38, 20 / 38]
    last[3] = 10 - 5 + 10 + 330 / 38  # hard copy, anti-copy at half gain, offset copy, soft copy
    np.testing.assert_allclose(logits[0, 6], last, atol=1e-5)


def test_offset_profile_peaks_where_it_was_planted():
    profile = expected(HAND_CONFIG, HAND_TOKENS)["offset_profile"][0, 1, 3]
    assert profile.argmax() == 2
    assert profile[2] == pytest.approx((1 / 3 + 4) / 5)  # query 2 is uniform: its target would be position 0


def test_copying_is_undefined_for_heads_that_never_reach_the_logits():
    answers = expected(HAND_CONFIG, HAND_TOKENS)
    for name in ("copying_logit", "copying_logit_sink_free"):
        assert np.isnan(answers[name][:, 0]).all()
        assert np.isfinite(answers[name][:, 1]).all()
    fresh = expected(HAND_CONFIG, HAND_TOKENS[:, :4])
    assert np.isnan(fresh["prefix_matching"]).all()


def test_ov_eigenvalues_of_the_weights(planted):
    scores = np.full((2, 4), np.nan)
    with torch.inference_mode():
        unembed_embed = planted.W_U @ planted.W_E
        for layer, head in np.ndindex(2, 4):
            inner = planted.W_O[layer, head] @ unembed_embed @ planted.W_V[layer, head]
            eigenvalues = torch.linalg.eigvals(inner.double())
            if eigenvalues.abs().sum() > 0:
                scores[layer, head] = (eigenvalues.real.sum() / eigenvalues.abs().sum()).item()
    np.testing.assert_allclose(scores, expected(PlantedConfig(), HAND_TOKENS)["ov_copying"], atol=1e-6)
    np.testing.assert_array_equal(scores[1], [1, 1, -1, 1])


def test_random_model_has_the_shapes_and_nothing_else():
    fields, state = planted_model()
    random_fields, random_state = random_model(PlantedConfig(), seed=3)
    assert random_fields == fields
    assert {k: v.shape for k, v in random_state.items()} == {k: v.shape for k, v in state.items()}
    again = random_model(PlantedConfig(), seed=3)[1]
    assert all(torch.equal(random_state[k], again[k]) for k in state)
    other = random_model(PlantedConfig(), seed=4)[1]
    assert not torch.equal(random_state["head.weight"], other["head.weight"])
    tokens = stimulus("repeated")
    pattern, _ = run_on(bridge_of(random_fields, random_state), tokens)
    queries = np.arange(1 + BLOCK, 1 + 2 * BLOCK)
    targets = pattern[:, :, :, queries, queries - BLOCK + 1].mean(axis=(2, 3))
    assert targets == pytest.approx(np.full((2, 4), np.mean(1 / (queries + 1))), rel=0.25)


@pytest.mark.parametrize("kind", ["planted", "random"])
def test_written_series_opens_and_holds_the_model(tmp_path, kind):
    series = open_series(write_planted(tmp_path / "made", kind=kind, seed=5))
    assert (series.name, series.steps, series.tokens_seen, series.gaps) == ("made", (0,), (0,), ())
    assert series.manifest["arm"]["kind"] == kind
    assert series.manifest["status"] == "complete"
    fields, state = planted_model() if kind == "planted" else random_model(PlantedConfig(), seed=5)
    assert json.loads(series[0].config_path.read_text()) == fields
    saved = load_file(series[0].files[0])
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[k], state[k]) for k in state)
    assert not [p for p in series.path.rglob("*") if p.name.startswith(".tmp")]


def test_writing_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(CheckpointError, match="did you mean 'random'"):
        write_planted(tmp_path / "a", kind="randm")
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match="is not empty"):
        write_planted(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.txt"]


def test_configs_without_a_closed_form_are_refused():
    first, second = PLANTED_HEADS
    with pytest.raises(CheckpointError, match="did you mean 'prefix'"):
        HeadSpec("prefixes")
    with pytest.raises(CheckpointError, match="2 heads write the previous subspace"):
        PlantedConfig(heads=((first[0], first[0], *first[2:]), second))
    with pytest.raises(CheckpointError, match="layer-0 head cannot match prefixes"):
        PlantedConfig(heads=(second, second))
    with pytest.raises(CheckpointError, match="1 <= offset < n_ctx"):
        PlantedConfig(n_ctx=16)
    with pytest.raises(CheckpointError, match="do not fit"):
        expected(HAND_CONFIG, np.array([[0, 64]]))


def test_answers_need_no_torch():
    code = (
        "import sys; from byrote.checkpoints.lab.planted_answers import PlantedConfig; "
        "PlantedConfig(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
