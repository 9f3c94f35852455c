"""What does not fill the architecture is refused: no random numbers, no half a model, no code from a checkpoint."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

from byrote.checkpoints import CheckpointError, open_series
from byrote.interp import loading
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import copy_into, load_fresh
from byrote.interp.observe import read_out_error

ARCHITECTURES = (
    "gpt2", "gpt_neox", "llama", "qwen2", "mistral", "opt", "gpt_neo", "gptj", "bloom", "gemma2", "olmo2",
)  # fmt: skip


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_equal_transformers_own(hf_series, arch):
    from transformers import AutoModelForCausalLM

    (checkpoint,) = open_series(hf_series(arch, 1))
    model = load_fresh(checkpoint)
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    plain = AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(tokens), plain(tokens).logits, rtol=0, atol=2e-6)
    assert (model.shape.n_layers, model.shape.n_heads, model.shape.d_vocab) == (2, 4, 61)
    assert model.shape.architecture == type(plain).__name__


@pytest.mark.parametrize("arch", ["gpt2", "gemma2", "lab"])
def test_a_bridge_built_without_looking_at_methods_has_every_hook(hf_series, lab_series, arch, monkeypatch):
    (checkpoint,) = open_series(lab_series(1) if arch == "lab" else hf_series(arch, 1))
    whole = torch.nn.Module.__dir__
    found = load_fresh(checkpoint).bridge.hook_dict
    assert torch.nn.Module.__dir__ is whole
    monkeypatch.setattr(loading, "without_methods", nullcontext)
    expected = load_fresh(checkpoint).bridge.hook_dict
    assert "blocks.1.attn.hook_pattern" in expected
    assert {name: hook.name for name, hook in found.items()} == {n: h.name for n, h in expected.items()}


def test_a_padding_token_that_is_shown_is_no_warning(hf_series, monkeypatch):
    from transformers import modeling_utils

    warned: list[str] = []
    monkeypatch.setattr(modeling_utils.logger, "warning_once", warned.append)
    (checkpoint,) = open_series(hf_series("gpt2", 1, pad_token_id=0))
    load_fresh(checkpoint).logits(torch.zeros(1, 8, dtype=torch.long))
    assert warned == []


def edited(series_path, step: str, edit) -> None:
    file = series_path / step / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def put(name, value):
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize("swap", ["fresh", "auto"])
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("model.layers.1.self_attn.q_proj.weight"), "missing keys.*q_proj"),
        (lambda t: t.pop("lm_head.weight"), "missing keys.*lm_head"),
        (put("model.norm.weight", torch.ones(1)), "(mismatched keys|other tensors).*model.norm.weight"),
        (
            put("model.layers.0.self_attn.k_proj.weight", torch.ones(32, 32)),
            "(mismatched keys|other tensors).*k_proj",
        ),
        (
            put("model.layers.2.mlp.up_proj.weight", torch.ones(64, 32)),
            "further layers .*layers.2.mlp.up_proj",
        ),
    ],
)
def test_tensors_that_do_not_fill_the_architecture(hf_series, swap, edit, words):
    path = hf_series("llama", 3)
    edited(path, "step2", edit)
    series = open_series(path)
    assert series.steps == (0, 1, 2)  # nothing in the headers gives it away
    hooked = HookedSeries(series, swap=swap)
    for checkpoint in series[:2]:
        hooked.load(checkpoint)
    with pytest.raises(CheckpointError, match=words):
        hooked.load(series[2])
    assert hooked.load(series[0]).checkpoint.step == 0


def test_tensors_nobody_needs_are_left_out(hf_series):
    path = hf_series("llama", 1)
    tokens = torch.arange(1, 20)[None]
    before = load_fresh(open_series(path)[0]).logits(tokens)
    edited(path, "step0", put("v_head.summary.weight", torch.ones(1, 32)))  # a reward head trained beside it
    assert torch.equal(load_fresh(open_series(path)[0]).logits(tokens), before)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda t: t.pop("layers.1.attn.q.weight"),
            "1 tensors missing or unexpected .layers.1.attn.q.weight",
        ),
        (put("layers.2.attn.q.weight", torch.ones(16, 16)), "missing or unexpected .layers.2"),
        (
            put("layers.0.attn.o.bias", torch.ones(1)),
            r"layers.0.attn.o.bias has shape \[1\], the config says \[16\]",
        ),
        (put("head.weight", torch.ones(16, 24)), r"head.weight has shape \[16, 24\]"),
    ],
)
def test_lab_tensors_that_do_not_fill_the_architecture(lab_series, edit, words):
    path = lab_series(1)
    edited(path, "step_00000000", edit)
    with pytest.raises(CheckpointError, match=words):
        load_fresh(open_series(path)[0])


def test_a_swap_never_spreads_a_small_tensor_over_a_large_one(lab_series):
    path = lab_series(2)
    edited(path, "step_00000001", put("layers.0.attn.o.bias", torch.ones(1)))
    series = open_series(path)
    model = load_fresh(series[0])
    before = {name: p.clone() for name, p in model.parameters.items()}
    with pytest.raises(CheckpointError, match=r"other tensors than the step before \(layers.0.attn.o.bias\)"):
        copy_into(model, series[1])
    assert all(torch.equal(before[name], p) for name, p in model.parameters.items())


BROKEN_CONFIGS = {
    "unknown kind": {"model_type": "no-such-thing", "architectures": ["NoSuchThing"]},
    "unknown class of a known kind": {"architectures": 5, "model_type": "no-such-thing"},
    "text for a number": {"num_hidden_layers": "two"},
    "no layers": {"num_hidden_layers": -1},
    "heads that do not divide": {"num_attention_heads": 5, "num_key_value_heads": 3, "head_dim": None},
    "zero heads": {"num_attention_heads": 0, "num_key_value_heads": 0, "head_dim": None},
    "an encoder": {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
    "nonsense position scheme": {"rope_parameters": {"rope_type": "no-such-rope"}},
}


@pytest.mark.parametrize("kind", BROKEN_CONFIGS)
def test_broken_configs_are_clear_errors(hf_series, kind):
    path = hf_series("llama", 1)
    config = path / "step0" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **BROKEN_CONFIGS[kind]}))
    (checkpoint,) = open_series(path)
    with pytest.raises(CheckpointError):
        load_fresh(checkpoint)


def test_the_class_that_was_loaded_counts_not_the_name_in_the_config(hf_series):
    path = hf_series("gpt_neox", 1)
    config = path / "step0" / "config.json"
    fields = json.loads(config.read_text())
    for architectures in (None, ["GPTNeoXModel"]):
        config.write_text(json.dumps({**fields, "architectures": architectures}))
        assert load_fresh(open_series(path)[0]).shape.architecture == "GPTNeoXForCausalLM"


@pytest.mark.parametrize(
    "change", [{"n_layers": 3}, {"d_vocab": 30, "d_vocab_out": 30}, {"n_heads": "four"}, {"colour": 1}]
)
def test_broken_lab_configs_are_clear_errors(lab_series, change):
    path = lab_series(1)
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(CheckpointError):
        load_fresh(open_series(path)[0])


def test_a_model_without_attention_heads_is_refused(hf_series):
    (checkpoint,) = open_series(hf_series("mamba", 1))
    with pytest.raises(CheckpointError, match="2 of 2 layers have no attention heads"):
        load_fresh(checkpoint)


def test_weights_that_vanish_after_opening(lab_series, hf_series):
    for path in (lab_series(1), hf_series("gpt2", 1)):
        (checkpoint,) = open_series(path)
        shutil.rmtree(checkpoint.path)
        if checkpoint.format == "lab":
            with pytest.raises(CheckpointError, match=r"cannot load step 0: model\.safetensors"):
                load_fresh(checkpoint)
        else:
            with pytest.raises((CheckpointError, FileNotFoundError)):
                load_fresh(checkpoint)


def test_pickled_weights_are_never_loaded(hf_series):
    path = hf_series("llama", 1)
    (checkpoint,) = open_series(path)
    folder = path / "step0"
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": torch.ones(32)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load step 0"):
        load_fresh(checkpoint)


@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a not in ("gemma2",)])
def test_logits_can_be_rebuilt_from_the_last_residual(hf_series, arch):
    model = load_fresh(open_series(hf_series(arch, 1))[0])
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    assert read_out_error(model, tokens) < 1e-5


def test_a_soft_cap_on_the_logits_shows_as_a_read_out_error(hf_series):
    soft = load_fresh(open_series(hf_series("gemma2", 1, final_logit_softcapping=0.5))[0])
    hard = load_fresh(open_series(hf_series("gemma2", 1, folder="hard", final_logit_softcapping=None))[0])
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    assert read_out_error(soft, tokens) > 1e-2
    assert read_out_error(hard, tokens) < 1e-5


def test_norms_after_attention_are_told_apart(hf_series):
    linear = {
        a: load_fresh(open_series(hf_series(a, 1))[0]).weights.linear_readout
        for a in ("llama", "gemma2", "olmo2")
    }
    assert linear == {"llama": True, "gemma2": False, "olmo2": False}
