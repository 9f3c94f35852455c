"""Older HookedTransformers: weights that lie the other way round, models without biases, and a config made from shapes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from tl_legacy_golden import config, golden, state

from byrote.checkpoints import CheckpointError, open_series
from byrote.interp.bridge import HookedSeries

P, D, HEADS, WIDTH, HIDDEN, CTX = 20, 16, 2, 8, 12, 5


def written(folder, tensors, fields=None, name="step_7.pth"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.clone() for key, value in tensors.items()}, folder / name)
    if fields is not None:
        (folder / "config.json").write_text(json.dumps(fields))
    return folder


def logits(folder, tokens):
    series = open_series(folder)
    return HookedSeries(series).load(series[0]).logits(tokens)


def refusal(folder) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_series(folder)
    return caught.value


def turned(tensors, *but):
    """All weights the other way round, as TransformerLens's forerunner had them."""
    return {
        name: t.transpose(-2, -1) if ".W_" in name and not name.endswith(but) else t
        for name, t in tensors.items()
    }


@pytest.mark.parametrize("but", [(), ("W_pos",), ("W_pos", "W_U")])
def test_weights_that_lie_the_other_way_round_give_the_same_logits(tmp_path, but):
    variant = "mlp_gelu"
    folder = written(
        tmp_path / "run", turned(state(variant), *but) if but else turned(state(variant)), config(variant)
    )
    tokens, expected, _ = golden(variant)
    torch.testing.assert_close(logits(folder, tokens), expected, rtol=1e-4, atol=1e-4)
    (note,) = [note for note in open_series(folder).notes if "transposed back" in note]
    assert "W_Q" in note and ("W_pos" in note) == (not but)


def grokking(seed=0):
    """The Transformer of Progress measures for grokking: left-facing weights, one W_O, no norms, no biases."""
    rng = np.random.default_rng(seed)
    shapes = {
        "embed.W_E": (D, P), "pos_embed.W_pos": (CTX, D), "unembed.W_U": (D, P),
        "blocks.0.attn.W_Q": (HEADS, WIDTH, D), "blocks.0.attn.W_K": (HEADS, WIDTH, D),
        "blocks.0.attn.W_V": (HEADS, WIDTH, D), "blocks.0.attn.W_O": (D, HEADS * WIDTH),
        "blocks.0.mlp.W_in": (HIDDEN, D), "blocks.0.mlp.b_in": (HIDDEN,),
        "blocks.0.mlp.W_out": (D, HIDDEN), "blocks.0.mlp.b_out": (D,),
    }  # fmt: skip
    drawn = {name: rng.normal(0, 0.4, shape).astype("f4") for name, shape in shapes.items()}
    return drawn | {"blocks.0.attn.mask": np.tril(np.ones((CTX, CTX), "f4"))}


GROKKING = {
    "n_layers": 1, "d_model": D, "n_heads": HEADS, "d_head": WIDTH, "d_mlp": HIDDEN, "n_ctx": CTX, "d_vocab": P,
    "act_fn": "relu", "normalization_type": None,
}  # fmt: skip


def grokking_logits(w, tokens):
    """Its forward pass, einsum by einsum, as the paper's notebook has it."""
    b = {name.removeprefix("blocks.0."): value.astype("f8") for name, value in w.items()}
    x = np.einsum("dbp->bpd", b["embed.W_E"][:, tokens]) + b["pos_embed.W_pos"][: tokens.shape[1]]
    k, q, v = (np.einsum("ihd,bpd->biph", b[f"attn.W_{name}"], x) for name in "KQV")
    scores = np.einsum("biph,biqh->biqp", k, q)
    scores = np.where(np.tril(np.ones(scores.shape[-2:])) > 0, scores, -1e10) / np.sqrt(WIDTH)
    a = np.exp(scores - scores.max(-1, keepdims=True))
    z = np.einsum("biph,biqp->biqh", v, a / a.sum(-1, keepdims=True))
    flat = np.einsum("biqh->bqih", z).reshape(*tokens.shape, HEADS * WIDTH)
    x = x + np.einsum("df,bqf->bqd", b["attn.W_O"], flat)
    inner = np.maximum(np.einsum("md,bpd->bpm", b["mlp.W_in"], x) + b["mlp.b_in"], 0)
    x = x + np.einsum("dm,bpm->bpd", b["mlp.W_out"], inner) + b["mlp.b_out"]
    return x @ b["unembed.W_U"]


def test_the_grokking_papers_model_gives_its_own_logits(tmp_path):
    w = grokking()
    w["blocks.0.attn.W_O"] = grokking(1)["blocks.0.attn.W_O"]
    folder = written(tmp_path / "run", {k: torch.from_numpy(v) for k, v in w.items()}, GROKKING)
    tokens = np.array([[3, 1, 4, 1, 5]])
    found = logits(folder, torch.from_numpy(tokens))
    np.testing.assert_allclose(found.numpy(), grokking_logits(w, tokens), rtol=0, atol=1e-4)
    assert any(
        "biases that no layer stores are zero: b_K, b_O, b_Q, b_V" in n for n in open_series(folder).notes
    )


def test_without_a_config_the_message_gives_one_that_opens_it(tmp_path):
    w = grokking()
    folder = written(tmp_path / "run", {k: torch.from_numpy(v) for k, v in w.items()})
    help = refusal(folder).help
    assert "with act_fn and normalization_type of the training code" in help and "model.cfg.to_dict()" in help
    fields = json.loads(re.search(r"\{.*\}", help)[0])
    assert {k: v for k, v in fields.items() if v != "?"} == {
        k: v for k, v in GROKKING.items() if k not in ("act_fn", "normalization_type")
    }
    (folder / "config.json").write_text(json.dumps(fields | {"act_fn": "relu", "normalization_type": None}))
    assert open_series(folder).steps == (7,)


def test_a_square_weight_is_asked_about_and_the_answer_is_taken(tmp_path):
    tensors = {name: torch.from_numpy(value) for name, value in grokking().items()}
    tensors["pos_embed.W_pos"] = torch.randn(D, D, generator=torch.Generator().manual_seed(0))
    del tensors["blocks.0.attn.mask"]
    fields = GROKKING | {"n_ctx": D}
    folder = written(tmp_path / "run", tensors, fields)
    error = refusal(folder)
    assert "W_pos is square, so that the orientation is unknown" in error.message
    answers = [json.loads(found) for found in re.findall(r'"transposed": (\[.*?\])', error.help)]
    assert len(answers) == 2 and set(answers[0]) - set(answers[1]) == {"W_pos"}
    tokens, found = torch.tensor([[3, 1, 4, 1, 5]]), []
    for answer in answers:
        (folder / "config.json").write_text(json.dumps(fields | {"transposed": answer}))
        found.append(logits(folder, tokens))
    tensors["pos_embed.W_pos"] = tensors["pos_embed.W_pos"].T
    other = written(tmp_path / "other", tensors, fields | {"transposed": answers[0]})
    torch.testing.assert_close(logits(other, tokens), found[1])
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_what_shapes_deny_is_refused(tmp_path):
    folder = written(tmp_path / "run", state("mlp_gelu"), config("mlp_gelu") | {"transposed": ["W_in"]})
    assert "contradicts the shapes of W_in" in refusal(folder).message
    folder = written(
        tmp_path / "odd", state("mlp_gelu"), config("mlp_gelu") | {"transposed": ["W_out", "W_X"]}
    )
    assert "the config's transposed is" in refusal(folder).message


def test_a_bias_that_one_layer_has_is_missing_from_the_others(tmp_path):
    tensors = state("mlp_gelu")
    del tensors["blocks.1.attn.b_Q"]
    assert (
        "1 tensors are missing (blocks.1.attn.b_Q)"
        in refusal(written(tmp_path / "run", tensors, config("mlp_gelu"))).message
    )
