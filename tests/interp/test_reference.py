"""HookedTransformer state dicts compute what HookedTransformer computed, by two oracles, behind working hooks.

The first oracle is TransformerLens 3.9 itself (stored tensors); the second is a forward pass written here from the
definitions, in numpy and float64, on other weights and sizes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tl_legacy_golden
import torch
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.checkpoints.formats.tl_config import differences_from_native, expected_shapes, read_legacy_config
from byrote.interp.bridge import HookedSeries
from byrote.interp.model import HookedModel
from byrote.interp.observe import EndView, LayerView, observe
from byrote.interp.reference import ReferenceModel

NATIVE = {
    "attn_only_ln", "attn_only_lnpre", "attn_only_no_norm", "mlp_gelu", "mlp_gelu_new", "mlp_relu", "mlp_silu",
    "mlp_solu_ln", "mlp_solu_ln_lnpre", "grouped_query", "wide_heads", "folded", "rotary_adjacent",
    "rotary_adjacent_partial", "custom_scale", "rms", "rmspre", "final_rms",
}  # fmt: skip
REFERENCE = {
    "shortformer", "shortformer_mlp", "rotary_half", "rotary_half_partial", "parallel", "local", "unscaled",
    "scale_of_one", "scale_by_layer", "gated_mlp", "all_at_once",
}  # fmt: skip


class Seen:
    """Keeps all it is shown."""

    needs = frozenset({"pattern", "z", "v", "token_nll"})

    def __init__(self) -> None:
        self.layers: dict[int, LayerView] = {}
        self.end: EndView | None = None

    def see_layer(self, view: LayerView) -> None:
        self.layers[view.layer] = view

    def see_end(self, view: EndView) -> None:
        self.end = view


def load(folder: Path) -> HookedModel:
    series = open_series(folder)
    return HookedSeries(series).load(series[0])


def test_every_variant_is_assigned_a_route() -> None:
    assert set(tl_legacy_golden.VARIANTS) == NATIVE | REFERENCE


@pytest.mark.parametrize("variant", tl_legacy_golden.VARIANTS)
def test_all_that_is_seen_is_that_of_hooked_transformer(variant: str, tmp_path: Path) -> None:
    model = load(tl_legacy_golden.write_series(tmp_path, variant))
    tokens, logits, patterns = tl_legacy_golden.golden(variant)

    assert isinstance(model.bridge.original_model, ReferenceModel) == (variant in REFERENCE)
    torch.testing.assert_close(model.logits(tokens), logits, atol=1e-5, rtol=1e-6)
    seen = Seen()
    report = observe(model, tokens, [seen])
    assert report.problems == {}
    for layer, pattern in enumerate(patterns):
        torch.testing.assert_close(seen.layers[layer].pattern, pattern, atol=1e-5, rtol=0)
    for view in seen.layers.values():
        expected = torch.einsum("bhqk,bkhd->bqhd", view.pattern, view.v)
        torch.testing.assert_close(view.z, expected, atol=1e-5, rtol=1e-5)
    nll = -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(seen.end.token_nll, nll, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", sorted(REFERENCE))
def test_the_native_model_would_have_been_wrong(variant: str) -> None:
    """The variants share their weights, so a fixture without its peculiarity would equal the plain one's."""
    plain = {"shortformer": "attn_only_ln", "all_at_once": "rms"}.get(variant, "mlp_gelu")
    _, logits, _ = tl_legacy_golden.golden(variant)
    assert differences_from_native(read_legacy_config(tl_legacy_golden.config(variant)))
    assert (logits - tl_legacy_golden.golden(plain)[1]).abs().max() > 0.1


@pytest.mark.parametrize("variant", ["mlp_gelu", "shortformer", "all_at_once"])
def test_edits_of_patterns_and_of_z_reach_the_logits(variant: str, tmp_path: Path) -> None:
    model = load(tl_legacy_golden.write_series(tmp_path, variant))
    tokens, logits, _ = tl_legacy_golden.golden(variant)

    def zero(tensor: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(tensor)

    with torch.no_grad():
        without_pattern = model.bridge.run_with_hooks(
            tokens, fwd_hooks=[("blocks.1.attn.hook_pattern", zero)]
        )
        without_z = model.bridge.run_with_hooks(tokens, fwd_hooks=[("blocks.1.attn.o.hook_in", zero)])
        untouched = model.bridge(tokens)
    # A pattern of zeros makes z zero: two hooks, one result.
    torch.testing.assert_close(without_pattern, without_z)
    assert (without_z - logits).abs().max() > 0.1
    torch.testing.assert_close(untouched, logits, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    "variant",
    ["attn_only_no_norm", "mlp_solu_ln_lnpre", "grouped_query", "rotary_adjacent", *sorted(REFERENCE)],
)
def test_swapped_in_place_equals_fresh(variant: str, tmp_path: Path) -> None:
    names = ("step_0.pth", "step_10.safetensors", "step_20.pth")
    series = open_series(tl_legacy_golden.write_series(tmp_path, variant, names=names))
    tokens = tl_legacy_golden.golden(variant)[0]
    walked, fresh = HookedSeries(series), HookedSeries(series, swap="fresh")
    outputs = [(walked.load(c).logits(tokens).clone(), fresh.load(c).logits(tokens)) for c in series]

    assert series.steps == (0, 10, 20)
    assert walked.swap_used == "in place"
    assert fresh.swap_used == "fresh"
    for swapped, expected in outputs:
        assert torch.equal(swapped, expected)
    assert not torch.equal(outputs[0][0], outputs[1][0])


def test_weights_are_those_of_the_state_dict(tmp_path: Path) -> None:
    model = load(tl_legacy_golden.write_series(tmp_path, "all_at_once"))
    state = {key: tensor.float() for key, tensor in tl_legacy_golden.state("all_at_once").items()}
    weights = model.weights
    for layer in range(2):
        torch.testing.assert_close(weights.W_Q[layer], state[f"blocks.{layer}.attn.W_Q"])
        torch.testing.assert_close(weights.W_O[layer], state[f"blocks.{layer}.attn.W_O"])
        shared = state[f"blocks.{layer}.attn._W_V"].repeat_interleave(2, dim=0)
        torch.testing.assert_close(weights.W_V[layer], shared)
        torch.testing.assert_close(weights.attn_norm_gain[layer], state[f"blocks.{layer}.ln1.w"])
    torch.testing.assert_close(weights.W_E, state["embed.W_E"])
    torch.testing.assert_close(weights.W_U, state["unembed.W_U"])


# --- the second oracle ------------------------------------------------------------------------------------------------

BASE = {"n_layers": 3, "d_model": 12, "n_heads": 3, "d_head": 6, "n_ctx": 9, "d_vocab": 15}
MLP = {"d_mlp": 10, "act_fn": "relu"}
HALVES = {"positional_embedding_type": "rotary", "rotary_adjacent_pairs": False}
WRITTEN_HERE: dict[str, dict[str, Any]] = {
    "plain": MLP,
    "unscaled": MLP | {"use_attn_scale": False},
    "parallel": MLP | {"parallel_attn_mlp": True},
    "local": MLP | {"use_local_attn": True, "window_size": 2, "attn_types": ["local", "global", "local"]},
    "rotary of halves": MLP | HALVES,
    "rotary of part of the halves": MLP | HALVES | {"rotary_dim": 4, "rotary_base": 31.5},
    "shortformer, attention only": {"attn_only": True, "positional_embedding_type": "shortformer"},
    "shortformer": MLP | {"positional_embedding_type": "shortformer"},
    "gated": MLP | {"gated_mlp": True},
    "scaled by layer": MLP | {"scale_attn_by_inverse_layer_idx": True, "attn_scale": 1.3},
    "shared heads": MLP | HALVES | {"n_heads": 4, "n_key_value_heads": 2},
}


@pytest.mark.parametrize("name", WRITTEN_HERE)
def test_equals_a_forward_pass_written_from_the_definitions(name: str, tmp_path: Path) -> None:
    config = BASE | WRITTEN_HERE[name]
    shapes = dict(expected_shapes(read_legacy_config(config)))
    rng = np.random.default_rng(7)
    state = {key: rng.normal(0, 0.5, shape).astype(np.float32) for key, shape in shapes.items()}
    (tmp_path / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    tl_legacy_golden.save({k: torch.from_numpy(v) for k, v in state.items()}, tmp_path / "step_7.pt")
    tokens = rng.integers(0, config["d_vocab"], (2, config["n_ctx"]))

    model = load(tmp_path)
    expected = forward(config, {k: v.astype(np.float64) for k, v in state.items()}, tokens)
    np.testing.assert_allclose(model.logits(torch.from_numpy(tokens)).numpy(), expected, atol=2e-5, rtol=1e-5)


def forward(config: dict[str, Any], p: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits of a LayerNorm HookedTransformer with relu: one token sequence, one head, one position at a time."""
    return np.stack([_sequence(config, p, sequence) for sequence in tokens])


def _sequence(config: dict[str, Any], p: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    kind = config.get("positional_embedding_type", "standard")
    x = p["embed.W_E"][tokens]
    positions = p["pos_embed.W_pos"][: len(tokens)] if kind != "rotary" else np.zeros_like(x)
    if kind == "standard":
        x = x + positions
    for layer in range(config["n_layers"]):
        block = {
            k.removeprefix(f"blocks.{layer}."): v for k, v in p.items() if k.startswith(f"blocks.{layer}.")
        }
        read = _layer_norm(x, block["ln1.w"], block["ln1.b"])
        to_match = read + positions if kind == "shortformer" else read
        attended = _attention(config, block, layer, to_match=to_match, to_move=read)
        if config.get("attn_only"):
            x = x + attended
        elif config.get("parallel_attn_mlp"):
            x = x + attended + _mlp(config, block, _layer_norm(x, block["ln2.w"], block["ln2.b"]))
        else:
            x = x + attended
            x = x + _mlp(config, block, _layer_norm(x, block["ln2.w"], block["ln2.b"]))
    x = _layer_norm(x, p["ln_final.w"], p["ln_final.b"])
    return x @ p["unembed.W_U"] + p["unembed.b_U"]


def _attention(
    config: dict[str, Any],
    block: dict[str, np.ndarray],
    layer: int,
    *,
    to_match: np.ndarray,
    to_move: np.ndarray,
) -> np.ndarray:
    n, out = len(to_match), np.zeros_like(to_move) + block["attn.b_O"]
    shared = config.get("n_key_value_heads")
    mark, repeat = ("_", config["n_heads"] // shared) if shared else ("", 1)
    scale = (
        config.get("attn_scale", math.sqrt(config["d_head"])) if config.get("use_attn_scale", True) else 1.0
    )
    if config.get("scale_attn_by_inverse_layer_idx"):
        scale *= layer + 1
    window = config["window_size"] if config.get("attn_types", ["global"] * 9)[layer] == "local" else n
    for head in range(config["n_heads"]):
        kv = head // repeat
        q = to_match @ block["attn.W_Q"][head] + block["attn.b_Q"][head]
        k = to_match @ block[f"attn.{mark}W_K"][kv] + block[f"attn.{mark}b_K"][kv]
        v = to_move @ block[f"attn.{mark}W_V"][kv] + block[f"attn.{mark}b_V"][kv]
        for i in range(n):
            seen = range(max(0, i - window + 1), i + 1)
            scores = np.array([_turned(config, q[i], i) @ _turned(config, k[j], j) / scale for j in seen])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            out[i] += (weights @ v[list(seen)]) @ block["attn.W_O"][head]
    return out


def _turned(config: dict[str, Any], x: np.ndarray, position: int) -> np.ndarray:
    """Entry i and entry i + half turn together by position / base^(i / half): one rotation matrix a pair."""
    if config.get("positional_embedding_type") != "rotary":
        return x
    x, half = x.copy(), config.get("rotary_dim", config["d_head"]) // 2
    for i in range(half):
        angle = position / config.get("rotary_base", 10_000) ** (i / half)
        a, b = x[i], x[i + half]
        x[i], x[i + half] = (
            a * math.cos(angle) - b * math.sin(angle),
            a * math.sin(angle) + b * math.cos(angle),
        )
    return x


def _mlp(config: dict[str, Any], block: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if config.get("gated_mlp"):
        inner = np.maximum(x @ block["mlp.W_gate"], 0) * (x @ block["mlp.W_in"]) + block["mlp.b_in"]
    else:
        inner = np.maximum(x @ block["mlp.W_in"] + block["mlp.b_in"], 0)
    return inner @ block["mlp.W_out"] + block["mlp.b_out"]


def _layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + bias
