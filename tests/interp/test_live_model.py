"""A model in training behind hooks: the very memory of its weights, the numbers of a copy, and nothing changed."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, tiny_hf_model

from byrote.checkpoints import ByroteError
from byrote.checkpoints.lab import LabConfig
from byrote.checkpoints.lab.model import build_model
from byrote.interp.in_memory import LiveModel, copy_of, refuse_sharded
from byrote.interp.pruning import pruned

TOKENS = torch.arange(3 * 20).view(3, 20) % 24


def trained_on(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


QUICK = ("gpt2", "llama")  # one that stores queries, keys and values as one matrix, and one that does not
SLOW = sorted(CONFIGS.keys() - {"mamba", *QUICK})


@pytest.mark.parametrize("arch", [*QUICK, *(pytest.param(arch, marks=pytest.mark.slow) for arch in SLOW)])
def test_it_shares_the_weights_and_follows_them(arch):
    model = tiny_hf_model(arch, seed=1).train()
    live = LiveModel(model)
    named = dict(model.named_parameters(remove_duplicate=False))
    for step in (0, 1):
        hooked = live.at(step)
        assert hooked.parameters.keys() == named.keys()
        assert all(p.data_ptr() == named[name].data_ptr() for name, p in hooked.parameters.items())
        copied = copy_of(model)
        assert torch.equal(hooked.logits(TOKENS), copied.logits(TOKENS))
        assert torch.equal(hooked.weights.W_Q, copied.weights.W_Q)
        live.release()
        assert all(p.numel() == 0 for p in hooked.parameters.values())
        trained_on(model, step)
    with torch.no_grad():
        expected = model.eval()(TOKENS).logits
    assert torch.allclose(live.at(2).logits(TOKENS), expected, atol=2e-5)


def test_a_native_model_and_wrappers():
    model = build_model(LabConfig(n_layers=2))
    wrapped = torch.nn.DataParallel(torch.compile(model, backend="eager"))
    hooked = LiveModel(wrapped).at(0)
    assert {p.data_ptr() for p in hooked.parameters.values()} == {p.data_ptr() for p in model.parameters()}
    assert torch.equal(hooked.logits(TOKENS), copy_of(model).logits(TOKENS))


def test_weights_that_are_put_elsewhere_are_found_again():
    model = tiny_hf_model("llama", seed=2)
    live = LiveModel(model)
    first = live.at(0).logits(TOKENS)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone() * 1.5
    assert not torch.equal(live.at(1).logits(TOKENS), first)
    assert torch.equal(live.at(1).logits(TOKENS), copy_of(model).logits(TOKENS))


def test_bfloat16_is_measured_as_it_is_and_half_precision_in_float32():
    model = tiny_hf_model("llama", seed=2)
    assert LiveModel(model.to(torch.bfloat16)).at(0).dtype == torch.bfloat16
    hooked = LiveModel(model.to(torch.float16)).at(0)
    assert hooked.dtype == torch.float32 and model.dtype == torch.float16
    assert LiveModel(model.to(torch.bfloat16), dtype=torch.float64).at(0).dtype == torch.float64


def test_pruning_writes_into_memory_of_its_own():
    model = tiny_hf_model("gpt2", seed=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    hooked = LiveModel(model).at(0)
    clean = hooked.logits(TOKENS)
    with pruned(hooked, 0.5):
        assert not torch.equal(hooked.logits(TOKENS), clean)
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(hooked.logits(TOKENS), clean)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own
@pytest.mark.parametrize(("arch", "targets"), [("llama", ["q_proj", "down_proj"]), ("gpt2", ["c_attn"])])
def test_adapters_are_merged_beside_the_model(arch, targets):
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, target_modules=targets, init_lora_weights=False, modules_to_save=["lm_head"], fan_in_fan_out=arch == "gpt2"
    )  # fmt: skip
    base = tiny_hf_model(arch, seed=2, tie_word_embeddings=False)
    model = peft.get_peft_model(base, config).eval()
    trained_on(model, 5)  # base and adapter, the head that is trained whole too
    with torch.no_grad():
        expected = model(TOKENS).logits
        hooked = LiveModel(model).at(0)
        assert torch.allclose(hooked.logits(TOKENS), expected, atol=2e-5)
        assert torch.equal(model(TOKENS).logits, expected)
        with model.disable_adapter():
            bare = model(TOKENS).logits
            assert torch.allclose(LiveModel(model).at(0).logits(TOKENS), bare, atol=2e-5)
    assert not torch.allclose(bare, expected, atol=1e-3)
    shared = {p.data_ptr() for p in hooked.parameters.values()} & {p.data_ptr() for p in model.parameters()}
    assert len(shared) >= len(set(hooked.parameters)) - 2 * len(targets) * 2


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_that_cannot_be_merged_is_refused():
    import peft

    model = peft.get_peft_model(
        tiny_hf_model("llama", seed=2), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(ByroteError, match="adapters of kind PROMPT_TUNING are not read"):
        LiveModel(model)


def test_a_model_in_parts_is_refused():
    model = tiny_hf_model("llama", seed=2)
    model.lm_head.to("meta")
    with pytest.raises(ByroteError, match=r"parameters on cpu, meta.*byrote watch FOLDER"):
        refuse_sharded(model)
    model = tiny_hf_model("llama", seed=2)
    next(model.parameters()).ds_id = 0  # what DeepSpeed's ZeRO-3 marks its parameters with
    with pytest.raises(ByroteError, match="ZeRO-3"):
        LiveModel(model)


def test_a_tie_that_is_undone_in_training_is_refused():
    model = tiny_hf_model("gpt2", seed=2, tie_word_embeddings=True)
    live = LiveModel(model)
    live.at(0)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() + 1)
    with pytest.raises(ByroteError, match="shared one tensor when measuring began, and now are two tensors"):
        live.at(1)
    assert torch.equal(LiveModel(model).at(1).logits(TOKENS), copy_of(model).logits(TOKENS))
