"""Adapter series: found, listed, merged exactly into their base, and refused where that cannot be done."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import write_hf_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.interp import HookedSeries
from byrote.interp.loading import load_fresh

TOKENS = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
TARGETS = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
ROUNDING = 5e-5  # of logits, whose sums in float32 are taken in another order by other numbers of threads
RANK, ALPHA = 3, 5


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {arch: write_hf_series(root, arch, (0,), name=arch) / arch for arch in TARGETS}


def adapter_model(base: Path, *, seed: int, kind: str = "LoraConfig", **settings: Any) -> Any:
    """The peft library's own model: the base with a random adapter beside it, not merged."""
    import peft
    from transformers import AutoModelForCausalLM

    arch = json.loads((base / "config.json").read_text())["model_type"]
    plain = {"r": RANK, "lora_alpha": ALPHA, "init_lora_weights": False} if kind == "LoraConfig" else {}
    settings = {"target_modules": TARGETS[arch], **plain, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        model = peft.get_peft_model(inner, getattr(peft, kind)(**settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def write_step(folder: Path, base: Path, *, seed: int, names: str | None = None, **settings: Any) -> Any:
    model = adapter_model(base, seed=seed, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    edit_config(folder, base_model_name_or_path=str(base) if names is None else names)
    return model


def edit_config(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def write_run(run: Path, base: Path, steps: tuple[int, ...] = (10, 20), **settings: Any) -> Path:
    for step in steps:
        write_step(run / f"checkpoint-{step}", base, seed=step, **settings)
    return run


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


def manual(base: Path, adapter: Path, scaling: float) -> dict[str, torch.Tensor]:
    """Base plus scaling * B @ A, worked out here."""
    weights, delta = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    transposed = (
        json.loads((base / "config.json").read_text())["model_type"] == "gpt2"
    )  # Conv1D holds [in, out]
    for name in [n for n in delta if n.endswith("lora_A.weight")]:
        target = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        target = target if target in weights else target.removeprefix("transformer.")
        product = delta[name.replace("lora_A", "lora_B")] @ delta[name]
        weights[target] = weights[target] + scaling * (product.T if transposed else product)
    return weights


@pytest.mark.parametrize(
    ("arch", "settings", "scaling"),
    [
        ("llama", {}, ALPHA / RANK),
        ("gpt2", {"fan_in_fan_out": True}, ALPHA / RANK),
        ("llama", {"use_rslora": True}, ALPHA / RANK**0.5),
    ],
)
def test_merged_logits_are_the_bases_plus_the_scaled_product(bases, tmp_path, arch, settings, scaling):
    from transformers import AutoModelForCausalLM

    base = bases[arch]
    run = write_run(tmp_path / "run", base, (10,), **settings)
    by_hand = tmp_path / "by_hand"
    shutil.copytree(base, by_hand)
    save_file(
        manual(base, run / "checkpoint-10", scaling), by_hand / "model.safetensors", metadata={"format": "pt"}
    )
    expected = AutoModelForCausalLM.from_pretrained(by_hand, dtype=torch.float32, attn_implementation="eager")
    merged = load_fresh(open_series(run)[0]).logits(TOKENS)
    torch.testing.assert_close(merged, logits_of(expected), rtol=0, atol=ROUNDING)
    untouched = load_fresh(open_series(base)[0]).logits(TOKENS)
    assert (merged - untouched).abs().max() > 0.05  # the adapter does something


KINDS: dict[str, dict[str, Any]] = {
    "rank and alpha patterns": {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"layers.1.self_attn.v_proj": 11}},
    "one layer": {"layers_to_transform": [1]},
    "DoRA": {"use_dora": True},
    "embedding and head trained whole": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "adapter on the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "biases of its own": {"arch": "gpt2", "lora_bias": True, "fan_in_fan_out": True},
    "LoHa": {"kind": "LoHaConfig", "r": 2, "alpha": 4},
    "LoKr": {"kind": "LoKrConfig", "r": 2, "alpha": 4},
    "IA3": {"kind": "IA3Config", "target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_read_equals_the_adapters_own_forward_pass(bases, tmp_path, kind):
    settings = dict(KINDS[kind])
    base = bases[settings.pop("arch", "llama")]
    beside = write_step(tmp_path / "checkpoint-5", base, seed=1, **settings)
    (checkpoint,) = open_series(tmp_path)
    torch.testing.assert_close(
        load_fresh(checkpoint).logits(TOKENS), logits_of(beside), rtol=0, atol=ROUNDING
    )


def test_embeddings_saved_beside_the_adapter_count(bases, tmp_path):
    beside = adapter_model(bases["llama"], seed=1)
    with torch.no_grad():
        beside.get_input_embeddings().weight.add_(0.3)  # tokens were added and trained
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        beside.save_pretrained(tmp_path / "step1", save_embedding_layers=True)
    edit_config(tmp_path / "step1", base_model_name_or_path=str(bases["llama"]))
    torch.testing.assert_close(
        load_fresh(open_series(tmp_path)[0]).logits(TOKENS), logits_of(beside), rtol=0, atol=ROUNDING
    )


def test_an_untied_head_is_taken_too(bases, tmp_path):
    beside = write_step(
        tmp_path / "checkpoint-5", bases["gpt2"], seed=1, modules_to_save=["lm_head"], fan_in_fan_out=True
    )
    model = load_fresh(open_series(tmp_path)[0])
    torch.testing.assert_close(model.logits(TOKENS), logits_of(beside), rtol=0, atol=ROUNDING)


def test_only_steps_that_exist_are_listed(bases, tmp_path):
    run = write_run(tmp_path / "run", bases["llama"], (20, 10))
    state = {"global_step": 20, "num_input_tokens_seen": 640, "log_history": [{"step": 20, "loss": 2.5}]}
    (run / "checkpoint-20" / "trainer_state.json").write_text(json.dumps(state))
    series = open_series(run)
    assert (series.format, series.name, series.steps, series.gaps) == ("peft", "run", (10, 20), ())
    assert (series.tokens_seen, series.loss_nats) == ((None, 640), (None, 2.5))
    assert series.notes == ("weights are those of llama with each adapter merged in",)
    assert series[0].files == (
        run / "checkpoint-10" / "adapter_model.safetensors",
        bases["llama"] / "model.safetensors",
    )
    assert series[0].config_path == bases["llama"] / "config.json"


def test_the_adapter_above_its_checkpoints_is_noted(bases, tmp_path):
    run = write_run(tmp_path / "run", bases["llama"], (10,))
    write_step(run, bases["llama"], seed=3)
    series = open_series(run)
    assert series.steps == (10,)
    assert any("at the top of the folder" in note for note in series.notes)
    alone = open_series(run / "checkpoint-10")
    assert alone.steps == (10,)


def test_one_adapter_without_a_step(bases, tmp_path):
    write_step(tmp_path / "mine", bases["llama"], seed=3)
    assert open_series(tmp_path / "mine").steps == (0,)
    assert any("shown as step 0" in note for note in open_series(tmp_path / "mine").notes)


@pytest.mark.parametrize("written", ["../../base", "../base", "base"])
def test_relative_bases(bases, tmp_path, monkeypatch, written):
    """Trainers write the path they were given, relative to wherever they were started."""
    here = {"../../base": tmp_path / "base", "../base": tmp_path / "a" / "base", "base": tmp_path / "base"}[
        written
    ]
    shutil.copytree(bases["llama"], here)
    run = tmp_path / "a" / "run"
    write_step(run / "checkpoint-1", bases["llama"], seed=1, names=written)
    monkeypatch.chdir(tmp_path)
    (checkpoint,) = open_series(run)
    assert checkpoint.config_path.resolve() == here / "config.json"


def test_the_base_can_be_given(bases, tmp_path):
    write_step(tmp_path / "checkpoint-1", bases["llama"], seed=1, names="someone/gone")
    with pytest.raises(
        CheckpointError, match=r"base model 'someone/gone' is not on this machine.*base_model=PATH"
    ):
        open_series(tmp_path)
    given = open_series(tmp_path, base_model=bases["llama"])
    edit_config(tmp_path / "checkpoint-1", base_model_name_or_path=str(bases["llama"]))
    named = open_series(tmp_path)
    assert torch.equal(load_fresh(given[0]).logits(TOKENS), load_fresh(named[0]).logits(TOKENS))
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        open_series(tmp_path, base_model=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="does not apply to a series of format hf"):
        open_series(bases["llama"], base_model=bases["llama"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "kind PROMPT_TUNING are not read.*IA3, LOHA, LOKR, LORA"),
        ({"peft_type": "PREFIX_TUNING"}, "kind PREFIX_TUNING"),
        ({"peft_type": None}, "kind None"),
        ({"init_lora_weights": "pissa_niter_4"}, "started with 'pissa_niter_4', which changes the base"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"layer_replication": [[0, 2]]}, "uses layer_replication"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"base_model_name_or_path": None}, "names no base model.*base_model=PATH"),
        ({"base_model_name_or_path": "/no/such/base"}, "'/no/such/base' is not on this machine"),
    ],
)
def test_what_cannot_be_merged_is_a_gap(bases, tmp_path, fields, words):
    run = write_run(tmp_path / "run", bases["llama"])
    edit_config(run / "checkpoint-20", **fields)
    series = open_series(run)
    assert series.steps == (10,)
    (gap,) = series.gaps
    assert (gap.step, gap.path) == (20, run / "checkpoint-20")
    assert words.split(".*")[0] in f"{gap.reason}. {gap.help}"
    with pytest.raises(CheckpointError, match=words):
        open_series(run / "checkpoint-20")


def test_files_that_are_missing_or_damaged_are_gaps(bases, tmp_path):
    run = write_run(tmp_path / "run", bases["llama"], (1, 2, 3, 4, 5))
    (run / "checkpoint-2" / "adapter_model.safetensors").unlink()
    (run / "checkpoint-3" / "adapter_model.safetensors").rename(run / "checkpoint-3" / "adapter_model.bin")
    (run / "checkpoint-4" / "adapter_config.json").write_text("[]")
    file = run / "checkpoint-5" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    series = open_series(run)
    assert series.steps == (1,)
    reasons = {gap.step: gap.reason for gap in series.gaps}
    assert "is missing" in reasons[2]
    assert "pickled" in reasons[3]
    assert "holds no JSON object" in reasons[4]
    assert "truncated" in reasons[5]


def edit_tensors(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def test_an_adapter_beside_a_whole_model_is_neither(bases, tmp_path):
    """transformers would quietly load the adapter's base in its place."""
    run = write_run(tmp_path / "run", bases["llama"], (1, 2))
    for name in ("config.json", "model.safetensors"):
        shutil.copy(bases["llama"] / name, run / "checkpoint-1" / name)
    assert open_series(run).steps == (1, 2)
    (run / "checkpoint-1" / "adapter_model.safetensors").unlink()
    series = open_series(run)
    assert series.steps == (2,)
    assert "a whole model is there" in series.gaps[0].reason
    with pytest.raises(CheckpointError, match="holds an adapter"):
        open_series(tmp_path / "run", base_model=run / "checkpoint-1")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(FIRST), "missing tensors in the adapter .*q_proj"),
        (
            lambda t: t.__setitem__(FIRST.replace("layers.0", "layers.7"), t[FIRST].clone()),
            "unexpected tensors.*layers.7",
        ),
        (lambda t: t.__setitem__(FIRST, torch.ones(5, RANK)), "cannot merge the adapter of step 10"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(bases, tmp_path, edit, words):
    run = write_run(tmp_path / "run", bases["llama"], (10,))
    edit_tensors(run / "checkpoint-10", edit)
    with pytest.raises(CheckpointError, match=words):
        load_fresh(open_series(run)[0])


def test_swapping_adapters_in_place_equals_fresh_loads(bases, tmp_path):
    series = open_series(write_run(tmp_path / "run", bases["llama"], (10, 20, 30)))
    hooked = HookedSeries(series)
    bridges, logits = [], []
    for checkpoint in (*series, series[0]):
        model = hooked.load(checkpoint)
        assert torch.equal(model.logits(TOKENS), load_fresh(checkpoint).logits(TOKENS))
        bridges.append(model.bridge)
        logits.append(model.logits(TOKENS))
    assert hooked.swap_used == "in place"
    assert bridges[-1] is bridges[-2]
    assert torch.equal(logits[0], logits[3])
    assert not torch.allclose(logits[0], logits[1])


def test_other_adapter_settings_get_a_fresh_bridge(bases, tmp_path):
    run = write_run(tmp_path / "run", bases["llama"], (1, 2))
    write_step(run / "checkpoint-3", bases["llama"], seed=3, modules_to_save=["lm_head"])
    hooked = HookedSeries(open_series(run))
    models = [hooked.load(checkpoint).bridge for checkpoint in (*hooked.series[:2], hooked.series[1])]
    assert models[1] is models[2]
    assert hooked.load(hooked.series[2]).bridge is not models[2]


def test_half_precision_adapters_and_bases_run_in_float32(bases, tmp_path):
    run = write_run(tmp_path / "run", bases["llama"], (10,))
    exact = load_fresh(open_series(run)[0]).logits(TOKENS)
    edit_tensors(
        run / "checkpoint-10", lambda t: t.update({name: tensor.bfloat16() for name, tensor in t.items()})
    )
    model = load_fresh(open_series(run)[0])
    assert {p.dtype for p in model.parameters.values()} == {torch.float32}
    torch.testing.assert_close(model.logits(TOKENS), exact, rtol=0, atol=0.1)
    assert not torch.equal(model.logits(TOKENS), exact)


def test_without_the_library_the_extra_is_named(bases, tmp_path, monkeypatch):
    import sys

    run = write_run(tmp_path / "run", bases["llama"], (10,))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(CheckpointError, match=r"not installed.*byrote\[peft\]"):
        load_fresh(open_series(run)[0])


def test_identity_covers_the_base(bases, tmp_path):
    from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes

    other = tmp_path / "other"
    shutil.copytree(bases["llama"], other)
    tensors = load_file(other / "model.safetensors")
    save_file({k: v + 1 for k, v in tensors.items()}, other / "model.safetensors", metadata={"format": "pt"})
    run = write_run(tmp_path / "run", bases["llama"], (10,))
    ids = {
        fingerprint(tensor_hashes(open_series(run, base_model=base)[0]))
        for base in (bases["llama"], other, bases["llama"])
    }
    assert len(ids) == 2


def test_identity_covers_the_adapters_settings(bases, tmp_path):
    """The same tensors merged with another alpha are another model."""
    from byrote.checkpoints.fingerprint import content_of

    run = write_run(tmp_path / "run", bases["llama"], (10,))
    (step,) = open_series(run)
    before = content_of(step)
    edit_config(run / "checkpoint-10", lora_alpha=ALPHA + 1)
    after = content_of(step)
    assert after.tensors == before.tensors and after.fingerprint != before.fingerprint
    assert after.stamp != before.stamp
