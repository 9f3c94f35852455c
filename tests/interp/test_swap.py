"""Weights swapped into a live bridge give, bit for bit, what a fresh load gives; everything else is loaded afresh."""

from __future__ import annotations

import gc
import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.series import Checkpoint
from byrote.interp import HookedSeries, bridge
from byrote.interp.bridge import SWAP_PROVED
from byrote.interp.loading import load_fresh
from byrote.interp.model import HookedModel

STORIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "stories260K"
HF_PROVED = {"gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM", "llama": "LlamaForCausalLM"}
NATIVE_KINDS = {
    "attention only, no norm": {"normalization_type": None},
    "attention only, LayerNorm": {},
    "MLP, folded LayerNorm": {"attn_only": False, "d_mlp": 32, "normalization_type": "LNPre"},
    "MLP, RMS norm, rotary": {
        "attn_only": False, "d_mlp": 32, "normalization_type": "RMS", "positional_embedding_type": "rotary",
        "rotary_dim": 4, "rotary_adjacent_pairs": True,
    },
    "grouped keys and values": {"n_key_value_heads": 2},
}  # fmt: skip


def tokens_for(model: HookedModel) -> torch.Tensor:
    shape = (3, min(24, model.shape.n_ctx))
    return torch.randint(0, model.shape.d_vocab, shape, generator=torch.Generator().manual_seed(1))


def patterns(model: HookedModel, tokens: torch.Tensor) -> list[torch.Tensor]:
    seen = []
    hooks = [
        (f"blocks.{layer}.attn.hook_pattern", lambda pattern, hook: seen.append(pattern.clone()))
        for layer in range(model.shape.n_layers)
    ]
    with torch.inference_mode():
        model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)
    return seen


def assert_bit_equal(swapped: HookedModel, checkpoint: Checkpoint, fresh: HookedModel | None = None) -> None:
    fresh = load_fresh(checkpoint) if fresh is None else fresh
    assert swapped.checkpoint is checkpoint
    tokens = tokens_for(fresh)
    assert torch.equal(swapped.logits(tokens), fresh.logits(tokens))
    pairs = list(zip(patterns(swapped, tokens), patterns(fresh, tokens), strict=True))
    assert len(pairs) == fresh.shape.n_layers
    assert all(torch.equal(a, b) for a, b in pairs)
    for name in ("W_E", "W_Q", "W_K", "W_V", "W_O", "W_U", "attn_norm_gain", "final_norm_gain"):
        assert torch.equal(getattr(swapped.weights, name), getattr(fresh.weights, name)), name


def walk_there_and_back(path: Path) -> HookedSeries:
    """Three steps forth and back in one bridge, each compared with a fresh load."""
    series = open_series(path)
    hooked = HookedSeries(series)
    bridges = []
    logits = []
    fresh = {checkpoint.step: load_fresh(checkpoint) for checkpoint in series}
    for checkpoint in (*series, series[1], series[0]):
        model = hooked.load(checkpoint)
        bridges.append(model.bridge)
        assert_bit_equal(model, checkpoint, fresh[checkpoint.step])
        logits.append(model.logits(tokens_for(model)))
    assert all(bridge is bridges[1] for bridge in bridges[1:])  # the second step is where the swap is proved
    assert (hooked.swap_used, hooked.note) == ("in place", "")
    assert torch.equal(logits[0], logits[4])
    assert not torch.allclose(logits[0], logits[1])  # the steps do differ
    return hooked


@pytest.mark.parametrize("arch", HF_PROVED)
def test_swap_equals_fresh_load(hf_series, arch):
    walk_there_and_back(hf_series(arch, 3))
    assert HF_PROVED[arch] in SWAP_PROVED


@pytest.mark.parametrize("kind", NATIVE_KINDS)
def test_swap_equals_fresh_load_for_lab_models(lab_series, kind):
    walk_there_and_back(lab_series(3, **NATIVE_KINDS[kind]))


def test_every_proved_architecture_is_proved_here():
    page = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    for architecture in SWAP_PROVED - {"TransformerLensNative", *HF_PROVED.values()}:
        assert f"`{architecture}`" in page or architecture in page  # measured by test_architectures.py


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("gpt_neox", {"use_parallel_residual": False}),
        ("gpt_neox", {"tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 1, "attention_bias": True}),
    ],
)
def test_variants_of_proved_architectures(hf_series, arch, changes):
    walk_there_and_back(hf_series(arch, 3, **changes))


def rewrite(path: Path, edit) -> None:
    for file in path.glob("*/model.safetensors"):
        save_file(edit(file.parent.name, load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize("arch", HF_PROVED)
def test_steps_that_still_hold_their_initialisation(hf_series, arch):
    """Biases all 0 and gains all 1 cannot be told apart by their numbers; later steps tell whether they were mixed up."""

    def edit(step, tensors):
        if step in ("step0", "step1"):
            return {
                k: torch.full_like(v, float("bias" not in k)) if v.ndim == 1 else v
                for k, v in tensors.items()
            }
        return tensors

    path = hf_series(arch, 4)
    rewrite(path, edit)
    hooked = HookedSeries(open_series(path))
    for checkpoint in hooked.series:
        assert_bit_equal(hooked.load(checkpoint), checkpoint)
    assert hooked.swap_used == "in place"


def test_files_that_name_their_tensors_otherwise(hf_series):
    """The hub's GPT-2 lacks the prefix that `save_pretrained` writes; one process may meet both, and a mix."""
    walk_there_and_back(hf_series("gpt2", 3))
    bare = hf_series("gpt2", 3, folder="bare")
    rewrite(bare, lambda step, tensors: {k.removeprefix("transformer."): v for k, v in tensors.items()})
    walk_there_and_back(bare)
    mixed = hf_series("gpt2", 3, folder="mixed")
    rewrite(
        mixed,
        lambda step, tensors: {
            k.removeprefix("transformer." * (step == "step1")): v for k, v in tensors.items()
        },
    )
    walk_there_and_back(mixed)


def test_sharded_and_whole_steps_mix(hf_series):
    path = hf_series("gpt_neox", (0, 2))
    hf_series("gpt_neox", (1,), shard_size="20KB")
    walk_there_and_back(path)


def test_half_precision_files_run_in_float32(hf_series):
    path = hf_series("llama", 3)
    for file in path.glob("*/model.safetensors"):
        save_file({k: v.half() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    for config in path.glob("*/config.json"):
        config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float16"}))
    hooked = walk_there_and_back(path)
    assert hooked.load(hooked.series[0]).dtype == torch.float32


def test_other_dtype_is_used_throughout(hf_series):
    hooked = HookedSeries(open_series(hf_series("gpt_neox", 3)), dtype=torch.float64)
    for model in hooked:
        assert {p.dtype for p in model.parameters.values()} == {torch.float64}
        fresh = load_fresh(model.checkpoint, dtype=torch.float64)
        assert torch.equal(fresh.logits(tokens_for(fresh)), model.logits(tokens_for(fresh)))
    assert hooked.swap_used == "in place"


def test_stories260k_swaps(tmp_path):
    if not STORIES.is_dir():
        pytest.skip("the stories260K model is not beside the repository")
    (tmp_path / "step0").symlink_to(STORIES)
    other = tmp_path / "step1"
    other.mkdir()
    (other / "config.json").write_bytes((STORIES / "config.json").read_bytes())
    noise = torch.Generator().manual_seed(0)
    tensors = load_file(STORIES / "model.safetensors")
    changed = {k: v + 0.05 * torch.randn(v.shape, generator=noise) for k, v in tensors.items()}
    save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    hooked = HookedSeries(open_series(tmp_path))
    bridges = []
    for step in (0, 1, 0, 1):
        model = hooked.load(hooked.series.at(step))
        bridges.append(model.bridge)
        assert_bit_equal(model, hooked.series.at(step))
    assert all(bridge is bridges[1] for bridge in bridges[1:])  # the second step is where the swap is proved
    assert hooked.swap_used == "in place"


@pytest.mark.parametrize("arch", ["qwen2", "opt", "gemma2"])
def test_architectures_outside_the_list_get_fresh_bridges(hf_series, arch, monkeypatch):
    monkeypatch.setattr(bridge, "SWAP_PROVED", frozenset(HF_PROVED.values()))
    series = open_series(hf_series(arch, 3))
    hooked = HookedSeries(series)
    bridges = []
    for checkpoint in (*series, series[0]):
        model = hooked.load(checkpoint)
        assert all(model.bridge is not bridge for bridge in bridges)
        bridges.append(model.bridge)
        assert_bit_equal(model, checkpoint)
    assert hooked.swap_used == "fresh"


def test_fresh_can_be_asked_for(hf_series):
    hooked = HookedSeries(open_series(hf_series("gpt2", 2)), swap="fresh")
    first = hooked.load(hooked.series[0]).bridge
    assert hooked.load(hooked.series[1]).bridge is not first
    assert hooked.swap_used == "fresh"


def test_changed_config_gets_a_fresh_bridge(hf_series):
    path = hf_series("gpt_neox", (0, 1))
    hf_series("gpt_neox", (2, 3), rotary_pct=0.5)
    series = open_series(path)
    hooked = HookedSeries(series)
    bridges = []
    for checkpoint in series:
        model = hooked.load(checkpoint)
        assert_bit_equal(model, checkpoint)
        bridges.append(model.bridge)
    assert bridges[1] is not bridges[2]
    assert bridges[2] is bridges[3]


def test_changed_width_gets_a_fresh_bridge(hf_series):
    path = hf_series("llama", (0, 1))
    hf_series("llama", (2,), hidden_size=48, intermediate_size=80)
    hooked = HookedSeries(open_series(path))
    assert [model.shape.d_model for model in hooked] == [32, 32, 48]


def test_a_swap_that_is_not_exact_is_noticed_and_never_tried_again(hf_series, monkeypatch):
    series = open_series(hf_series("gpt_neox", 3))
    # The trap of fused attention: the copies of q, k and v made at wrapping keep the old step's numbers.
    monkeypatch.setattr("byrote.interp.loading.refresh_split_attention", lambda bridge: None)
    hooked = HookedSeries(series)
    models = []
    for checkpoint in series:
        model = hooked.load(checkpoint)
        assert_bit_equal(model, checkpoint)
        models.append(model.bridge)
    assert len({id(m) for m in models}) == 3
    assert hooked.swap_used == "fresh"
    assert "did not equal a fresh load" in hooked.note


@pytest.mark.parametrize("failure", [CheckpointError("cut"), KeyboardInterrupt()])
def test_a_swap_that_fails_half_way_leaves_no_half_copied_model(hf_series, monkeypatch, failure):
    series = open_series(hf_series("gpt2", 3))
    hooked = HookedSeries(series)
    for checkpoint in series[:2]:
        hooked.load(checkpoint)
    victim = hooked.load(series[1])
    copied = []
    real = torch.Tensor.copy_

    def copy_some(self, source, *args):
        if any(self is parameter for parameter in victim.parameters.values()):
            if len(copied) == 5:
                raise failure
            copied.append(self)
        return real(self, source, *args)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "copy_", copy_some)
        with pytest.raises(type(failure)):
            hooked.load(series[2])
    assert len(copied) == 5  # it did stop in the middle
    again = hooked.load(series[1])
    assert again is not victim
    assert_bit_equal(again, series[1])


def test_an_interrupted_proof_leaves_no_poisoned_model(hf_series, monkeypatch):
    series = open_series(hf_series("gpt2", 2))
    hooked = HookedSeries(series)
    hooked.load(series[0])

    def interrupted(model, checkpoint):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bridge, "copy_into", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hooked.load(series[1])
    for checkpoint in (series[1], series[0], series[1]):
        assert_bit_equal(hooked.load(checkpoint), checkpoint)


def test_the_series_goes_on_after_a_step_that_cannot_be_loaded(lab_series):
    path = lab_series(4)
    file = path / "step_00000001" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "head.weight"}, file)
    series = open_series(path)
    hooked = HookedSeries(series)
    hooked.load(series[0])
    with pytest.raises(CheckpointError, match=r"step 1.*head\.weight"):
        hooked.load(series[1])
    for checkpoint in series[2:]:
        assert_bit_equal(hooked.load(checkpoint), checkpoint)


def test_the_self_check_runs_once(hf_series, monkeypatch):
    loads = []
    real = bridge.load_fresh
    monkeypatch.setattr(
        bridge,
        "load_fresh",
        lambda checkpoint, **kw: loads.append(checkpoint.step) or real(checkpoint, **kw),
    )
    list(HookedSeries(open_series(hf_series("gpt2", 4))))
    assert loads == [0, 1]  # the first bridge, and the fresh one that the first swap is held against


def test_fresh_bridges_do_not_pile_up(lab_series):
    hooked = HookedSeries(
        open_series(lab_series(2, d_vocab=4000, d_vocab_out=4000, d_model=64)), swap="fresh"
    )
    model_bytes = sum(p.nbytes for p in hooked.load(hooked.series[0]).parameters.values())
    sizes = []
    gc.disable()  # Python's own collector must not hide a collection that was forgotten
    try:
        for i in range(50):
            hooked.load(hooked.series[i % 2])
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    finally:
        gc.enable()
    grown = max(sizes[10:]) - max(sizes[:10])  # the first ten warm the allocator up
    assert model_bytes > 2_000_000
    assert grown < 4 * model_bytes, (
        f"{grown / 1e6:.1f} MB more after 40 loads of a {model_bytes / 1e6:.1f} MB model"
    )
