"""One path changed and nothing else: against arithmetic written out, and against another way through the hooks."""

from __future__ import annotations

import pytest
import torch
from test_intervene import assert_as_found, state, tokens_for
from test_observe import Keep
from tiny_models import lab_state
from torch import Tensor

from byrote.checkpoints import open_series
from byrote.interp.intervene import clean_run, derangement, patterns_of
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel
from byrote.interp.observe import observe
from byrote.interp.path_patching import path_problem, scores_without_paths

SENDERS = [(0, 1), (0, 3)]


@pytest.fixture
def load(hf_series, lab_series):
    """`load(arch)`: a tiny random model with two layers of four heads; "lab" has attention only."""

    def load_one(arch: str) -> HookedModel:
        return load_fresh(open_series(lab_series(1) if arch == "lab" else hf_series(arch, 1))[0])

    return load_one


def patterns_without(model: HookedModel, tokens: Tensor, side: str) -> Tensor:
    """[sender, sequence, head, query, key] of layer 1, through the code under test."""
    clean = clean_run(model, tokens)
    stand_ins = [(head, clean.stand_in("mean", 0)[:, :, head[1]]) for head in SENDERS]
    places = [(h, q, k) for h in range(4) for q in range(16) for k in range(q + 1)]
    out = torch.zeros(len(SENDERS), len(tokens), 4, 16, 16)
    for h, q, k in places[
        :: 7 if model.shape.d_model > 16 else 3
    ]:  # one number per head: read the pattern by places
        scores = scores_without_paths(
            model, tokens, stand_ins, layer=1, side=side, score=lambda p, rows, q=q, k=k: p[:, :, q, k]
        )
        out[:, :, h, q, k] = scores[:, :, h]
    return out


@pytest.mark.parametrize("side", ["k", "q"])
def test_the_path_is_the_one_written_out(load, side):
    """The lab's model, norms and biases and all, without any hook."""
    model = load("lab")
    tokens, weights = tokens_for(model, n=3), lab_state(0)

    def get(name: str) -> Tensor:
        return weights[name].double()

    def norm(x: Tensor, layer: int) -> Tensor:
        gain, bias = get(f"layers.{layer}.ln1.weight"), get(f"layers.{layer}.ln1.bias")
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain + bias

    def project(x: Tensor, layer: int, name: str) -> Tensor:
        y = norm(x, layer) @ get(f"layers.{layer}.attn.{name}.weight").T + get(
            f"layers.{layer}.attn.{name}.bias"
        )
        return y.unflatten(-1, (4, 4)).transpose(1, 2)

    def attention(q: Tensor, k: Tensor) -> Tensor:
        future = torch.ones(16, 16, dtype=torch.bool).triu(1)
        return (q @ k.transpose(-1, -2) / 2).masked_fill(future, -torch.inf).softmax(-1)

    stream = get("tok_embed.weight")[tokens] + get("pos.weight")[:16]
    z = attention(project(stream, 0, "q"), project(stream, 0, "k")) @ project(stream, 0, "v")
    W_O, b_O = get("layers.0.attn.o.weight"), get("layers.0.attn.o.bias")
    later = stream + z.transpose(1, 2).flatten(-2) @ W_O.T + b_O
    found = patterns_without(model, tokens, side)
    for i, (_, head) in enumerate(SENDERS):
        others = (z[:, head].sum(0, keepdim=True) - z[:, head]) / 2
        changed = later - (z[:, head] - others) @ W_O[:, 4 * head : 4 * head + 4].T
        read = {name: project(changed if name == side else later, 1, name) for name in ("q", "k")}
        answer = attention(read["q"], read["k"])
        seen = found[i] != 0
        assert seen.sum() > 500
        torch.testing.assert_close(found[i][seen].double(), answer[seen], rtol=0, atol=1e-5)
        moved = (answer - attention(project(later, 1, "q"), project(later, 1, "k"))).abs().max()
        assert moved > 1e-3


@pytest.mark.parametrize("arch", ["llama", "opt", "gptj"])
def test_it_is_what_replacing_the_input_of_the_projection_does(load, arch):
    """These architectures project keys from an input of their own: change it through the norm, by hand."""
    model = load(arch)
    tokens, found_state = tokens_for(model, n=3), state(model)
    found = patterns_without(model, tokens, "k")
    assert_as_found(model, found_state)
    clean, block = clean_run(model, tokens), model.bridge.blocks[1]
    for i, (_, head) in enumerate(SENDERS):
        lost = clean.z[0][:, :, head] - clean.stand_in("mean", 0)[:, :, head]
        stream: list[Tensor] = []
        with model.bridge.hooks(
            fwd_hooks=[("blocks.1.hook_in", lambda x, hook, stream=stream: stream.append(x))]
        ):
            model.logits(tokens)
        with torch.inference_mode():
            other = block.ln1(stream[0] - lost @ model.weights.W_O[0, head])
        watcher = Keep("pattern")
        with model.bridge.hooks(fwd_hooks=[("blocks.1.attn.k.hook_in", lambda x, hook, other=other: other)]):
            observe(model, tokens, [watcher], batch=3)
        answer = watcher.layers[1].pattern
        seen = found[i] != 0
        torch.testing.assert_close(found[i][seen], answer[seen], rtol=0, atol=1e-5)
        assert (answer - patterns_of(model, tokens)[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "arch", ["lab", "gpt2", "gpt_neox", "llama", "qwen2", "mistral", "opt", "gpt_neo", "gptj", "bloom"]
)
def test_paths_reach_attention_and_a_senders_own_output_changes_nothing(load, arch):
    model = load(arch)
    tokens = tokens_for(model)
    clean = clean_run(model, tokens)
    own = patterns_of(model, tokens)[1][:, :, 12, 3]
    for side in ("k", "q"):
        assert path_problem(model, tokens, layer=1, side=side) == ""
        stand_ins = {
            "own": [(head, clean.z[0][:, :, head[1]]) for head in SENDERS],
            "other": [(head, clean.z[0][derangement(4, 0)][:, :, head[1]]) for head in SENDERS],
        }
        scores = {
            name: scores_without_paths(
                model, tokens, given, layer=1, side=side, score=lambda p, rows: p[:, :, 12, 3]
            )
            for name, given in stand_ins.items()
        }
        torch.testing.assert_close(scores["own"], own.expand(2, -1, -1), rtol=0, atol=1e-6)
        assert (scores["other"] - own).abs().max() > 1e-4


def test_chunks_change_nothing(load, monkeypatch):
    model = load("llama")
    tokens = tokens_for(model, n=5)
    clean = clean_run(model, tokens)
    given = [((0, h), clean.stand_in("mean", 0)[:, :, h]) for h in range(4)]
    rows_seen: list[slice] = []

    def score(pattern: Tensor, rows: slice) -> Tensor:
        rows_seen.append(rows)
        return pattern[:, :, 9, 2]

    whole = scores_without_paths(model, tokens, given, layer=1, side="k", score=score)
    assert {(r.start, r.stop) for r in rows_seen} == {(0, 5)}
    monkeypatch.setattr("byrote.interp.path_patching._MOST_ROWS", 6)
    parts = scores_without_paths(model, tokens, given, layer=1, side="k", score=score)
    assert {(r.start, r.stop) for r in rows_seen[4:]} == {(0, 3), (3, 5)}
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_a_layer_whose_keys_do_nothing_is_refused(load):
    model = load("gpt2")
    tokens = tokens_for(model)
    with torch.no_grad():
        model.bridge.blocks[1].attn.q.original_component.weight.zero_()
        model.bridge.blocks[1].attn.q.original_component.bias.zero_()
    assert "replacing the keys of layer 1 does not change its attention" in path_problem(
        model, tokens, layer=1, side="k"
    )
