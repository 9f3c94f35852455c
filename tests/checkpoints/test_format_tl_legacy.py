"""Folders of HookedTransformer state dicts: found, ordered, checked against their config, refused by name."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tl_legacy_golden
import torch
from tl_legacy_golden import config, golden, save, state, write_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.formats import tl_legacy
from byrote.checkpoints.formats.tl_config import ACTIVATIONS, read_legacy_config
from byrote.interp.bridge import HookedSeries

PLAIN = {"n_layers": 2, "d_model": 16, "d_head": 8, "n_ctx": 12, "d_vocab": 20}


class Trained:
    """Stands for a whole model somebody pickled."""


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_series(folder)
    return caught.value


def logits_of(folder: Path, variant: str) -> torch.Tensor:
    series = open_series(folder)
    return HookedSeries(series).load(series[0]).logits(golden(variant)[0])


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (("model_000512.pth", "model_000064.pth"), (64, 512)),
        (("step_512.pt", "step_1024.pt"), (512, 1024)),
        (("512.pth", "0.pth"), (0, 512)),
        (("ckpt_512.safetensors", "ckpt_7.safetensors"), (7, 512)),
        (("checkpoint-512/state_dict.pt", "checkpoint-64/state_dict.pt"), (64, 512)),
        (("step_512/model.safetensors", "step_64/model.safetensors"), (64, 512)),
        (("checkpoints/step_512.pth", "checkpoints/step_64.pth"), (64, 512)),
    ],
)
def test_steps_come_from_file_or_folder_names(
    names: tuple[str, ...], steps: tuple[int, ...], tmp_path: Path
) -> None:
    series = open_series(write_series(tmp_path / "run", "attn_only_ln", names=names))
    assert series.format == "tl_legacy"
    assert series.steps == steps
    assert series.gaps == ()
    assert {c.files[0].name for c in series} == {Path(name).name for name in names}


def test_the_config_may_be_in_each_step_folder(tmp_path: Path) -> None:
    for step in (3, 5):
        write_series(tmp_path / f"step_{step}", "parallel", names=("weights.pth",), config_name="cfg.json")
    series = open_series(tmp_path)
    assert series.steps == (3, 5)
    assert [c.config_path.parent.name for c in series] == ["step_3", "step_5"]


def test_tokens_and_loss_come_from_names_or_a_json_file_beside(tmp_path: Path) -> None:
    write_series(tmp_path, "attn_only_ln", names=("step_10.pth", "step20-tokens3M.pth", "step_30.pth"))
    (tmp_path / "step_10.json").write_text('{"tokens_seen": 5120, "loss": 3.25}')
    series = open_series(tmp_path)
    assert series.steps == (10, 20, 30)
    assert series.tokens_seen == (5120, 3_000_000, None)
    assert series.loss_nats == (3.25, None, None)


def test_names_that_count_tokens_only_are_said_to(tmp_path: Path) -> None:
    """As in the first public models: steps in `checkpoints/`, the finished model beside it."""
    names = ("SoLU_1L_tokens_000000000512.pth", "SoLU_1L_tokens_000000004096.pth")
    write_series(tmp_path, "attn_only_ln", names=tuple(f"checkpoints/{name}" for name in names))
    save(state("attn_only_ln"), tmp_path / "SoLU_1L_final.pth")
    series = open_series(tmp_path)
    assert series.steps == series.tokens_seen == (512, 4096)
    assert any("count tokens" in note for note in series.notes)
    assert any("SoLU_1L_final.pth" in note for note in series.notes)


def test_one_file_may_be_opened_by_itself(tmp_path: Path) -> None:
    write_series(tmp_path, "local", names=("step_3.pth", "step_4.pth"))
    series = open_series(tmp_path / "step_3.pth")
    assert series.steps == (3,)
    assert series[0].config_path == tmp_path / "config.json"


def test_one_model_without_a_step_is_step_0_and_said_to_be(tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path, "attn_only_ln", names=("model_final.pth",)))
    assert series.steps == (0,)
    assert "the training step of this checkpoint is unknown; it is shown as step 0" in series.notes


def test_a_model_without_a_step_beside_steps_is_left_out_and_named(tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path, "attn_only_ln", names=("step_5.pth", "best.pth")))
    assert series.steps == (5,)
    assert "best.pth has no step in its name and was left out" in series.notes


def test_optimizer_states_beside_are_no_checkpoints(tmp_path: Path) -> None:
    write_series(tmp_path, "attn_only_ln", names=("step_5.pth", "step_6.pth"))
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer_5.pt")
    series = open_series(tmp_path)
    assert series.steps == (5, 6)
    assert series.gaps == ()


@pytest.mark.parametrize(
    ("config_key", "state_key"), [("cfg", "state_dict"), ("config", "model_state_dict"), ("config", "model")]
)
def test_config_and_weights_in_one_file(config_key: str, state_key: str, tmp_path: Path) -> None:
    plain = {**config("shortformer"), "dtype": torch.float32}  # as cfg.to_dict() has it
    for name in ("step_512.pth", "step_640.pth"):
        save({config_key: plain, state_key: state("shortformer"), "tokens": 77, "step": 9}, tmp_path / name)
    series = open_series(tmp_path)
    assert series.steps == (512, 640)
    assert series.tokens_seen == (77, 77)
    torch.testing.assert_close(
        logits_of(tmp_path, "shortformer"), golden("shortformer")[1], atol=1e-5, rtol=1e-6
    )


def test_the_step_inside_the_file_counts_where_the_name_says_none(tmp_path: Path) -> None:
    save({"cfg": config("mlp_gelu"), "state_dict": state("mlp_gelu"), "step": 9}, tmp_path / "latest.pth")
    assert open_series(tmp_path).steps == (9,)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_that_wrappers_prefix_are_read(prefix: str, tmp_path: Path) -> None:
    write_series(tmp_path, "mlp_gelu")
    save(OrderedDict((prefix + k, v) for k, v in state("mlp_gelu").items()), tmp_path / "model_000512.pth")
    torch.testing.assert_close(logits_of(tmp_path, "mlp_gelu"), golden("mlp_gelu")[1], atol=1e-5, rtol=1e-6)


def test_other_folders_are_left_to_other_formats(tmp_path: Path, hf_series: Any, lab_series: Any) -> None:
    assert not tl_legacy.sniff(hf_series("gpt2"))
    assert not tl_legacy.sniff(lab_series())
    save({"transformer.wte.weight": torch.zeros(3, 2)}, tmp_path / "plain" / "step_1.pt")
    assert not tl_legacy.sniff(tmp_path / "plain")


# --- what was saved by other versions ---------------------------------------------------------------------------------


def test_folded_weights_are_said_to_be(tmp_path: Path) -> None:
    (note,) = open_series(write_series(tmp_path, "folded")).notes
    assert "no gains of their own" in note
    assert open_series(write_series(tmp_path / "raw", "mlp_gelu")).notes == ()


def test_what_runs_on_the_reference_model_is_said(tmp_path: Path) -> None:
    (note,) = open_series(write_series(tmp_path, "shortformer")).notes
    assert note == (
        "TransformerLens 4 computes these differently, so byrote's reference model runs them: shortformer positions"
    )


def test_masks_of_any_size_are_dropped(tmp_path: Path) -> None:
    older = {
        key: torch.ones(12, 12, dtype=torch.bool).tril() if key.endswith(".mask") else tensor
        for key, tensor in state("mlp_gelu").items()
    }
    save(older, write_series(tmp_path, "mlp_gelu") / "model_000512.pth")
    torch.testing.assert_close(logits_of(tmp_path, "mlp_gelu"), golden("mlp_gelu")[1], atol=1e-5, rtol=1e-6)


def test_a_missing_unembedding_bias_is_zero_as_it_was_there(tmp_path: Path) -> None:
    kept = {key: tensor for key, tensor in state("attn_only_ln").items() if key != "unembed.b_U"}
    save(kept, write_series(tmp_path, "attn_only_ln") / "model_000512.pth")
    expected = golden("attn_only_ln")[1] - state("attn_only_ln")["unembed.b_U"].float()
    torch.testing.assert_close(logits_of(tmp_path, "attn_only_ln"), expected, atol=1e-5, rtol=1e-6)


def test_half_precision_weights_run_in_the_precision_asked_for(tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path, "rotary_half"))
    assert state("rotary_half")["embed.W_E"].dtype == torch.float16
    assert HookedSeries(series).load(series[0]).dtype == torch.float32
    model = HookedSeries(series, dtype=torch.float64).load(series[0])
    tokens, logits, _ = golden("rotary_half")
    assert model.dtype == torch.float64
    torch.testing.assert_close(model.logits(tokens).float(), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["rotary_half", "rotary_adjacent"])
def test_pairs_that_old_configs_do_not_name_are_read_from_the_saved_angles(
    variant: str, tmp_path: Path
) -> None:
    write_series(tmp_path, variant)
    silent = {key: value for key, value in config(variant).items() if key != "rotary_adjacent_pairs"}
    (tmp_path / "config.json").write_text(json.dumps(silent))
    torch.testing.assert_close(logits_of(tmp_path, variant), golden(variant)[1], atol=1e-5, rtol=1e-5)


def test_pairs_that_nothing_names_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, "rotary_half")
    silent = {key: value for key, value in config("rotary_half").items() if key != "rotary_adjacent_pairs"}
    (tmp_path / "config.json").write_text(json.dumps(silent))
    bare = {key: tensor for key, tensor in state("rotary_half").items() if "rotary" not in key}
    save(bare, tmp_path / "model_000512.pth")
    with pytest.raises(CheckpointError, match="rotary_adjacent_pairs"):
        logits_of(tmp_path, "rotary_half")


def test_angles_of_another_config_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, "rotary_half", changes={"rotary_adjacent_pairs": True})
    with pytest.raises(CheckpointError, match="the angles saved in rotary_sin are not those"):
        logits_of(tmp_path, "rotary_half")
    write_series(tmp_path, "rotary_half", changes={"rotary_base": 500})
    with pytest.raises(CheckpointError, match="rotary_base=500"):
        logits_of(tmp_path, "rotary_half")


def test_the_spellings_of_the_first_public_models(tmp_path: Path) -> None:
    old = {
        **PLAIN, "n_heads": 2, "attn_only": True, "normalization": "LN", "shortformer_pos": True, "ln_eps": 1e-5,
        "lr": 1e-3, "batch_size_per_device": 32, "max_tokens": 22_000_000_000, "dataset_name": "text",
    }  # fmt: skip
    write_series(tmp_path, "shortformer")
    (tmp_path / "config.json").write_text(json.dumps(old))
    torch.testing.assert_close(
        logits_of(tmp_path, "shortformer"), golden("shortformer")[1], atol=1e-5, rtol=1e-6
    )


# --- configs that are refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attn_scores_soft_cap", 50.0), ("output_logits_soft_cap", 30.0), ("use_qk_norm", True),
        ("use_NTK_by_parts_rope", True), ("use_yarn_rope", True), ("use_normalization_before_and_after", True),
        ("post_embedding_ln", True), ("attention_dir", "bidirectional"), ("attention_dir", None),
        ("num_experts", 4), ("load_in_4bit", True), ("clip_qkv", 8.0), ("use_attention_sinks", True),
        ("rotary_scaling_factor", 8.0), ("rotary_base_local", 1e4), ("positional_embedding_type", "alibi"),
        ("positional_embedding_type", "relative_positional_bias"), ("normalization_type", "LNP"),
        ("act_fn", "xielu"), ("act_fn", None), ("original_architecture", "Olmo2ForCausalLM"), ("d_vocab_out", 7),
        ("attn_scale", 0.0), ("attn_scale", -2.0), ("eps", 0), ("eps", float("nan")), ("n_layers", 0),
        ("n_layers", 10**9), ("d_model", "16"), ("n_heads", True), ("n_key_value_heads", 3),
        ("use_attn_scale", "no"), ("rotary_flavour", "new"),
    ],
)  # fmt: skip
def test_what_would_change_the_computation_is_refused_by_name(field: str, value: Any) -> None:
    plain = {**PLAIN, "act_fn": "gelu"}
    read_legacy_config(plain)  # refused for this field alone
    with pytest.raises(CheckpointError) as caught:
        read_legacy_config({**plain, field: value})
    assert field in caught.value.message
    assert str(value) in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"use_local_attn": True, "window_size": 3, "attn_types": ["local"]},
        {"use_local_attn": True, "window_size": 3, "attn_types": ["local", "sideways"]},
        {"use_local_attn": True, "window_size": 0, "attn_types": ["local", "local"]},
        {"positional_embedding_type": "rotary", "rotary_dim": 3},
        {"positional_embedding_type": "rotary", "rotary_dim": 10},
        {"parallel_attn_mlp": True, "attn_only": True},
        {"act_fn": "solu_ln", "gated_mlp": True},
        {"act_fn": "solu_ln", "normalization_type": "RMSPre"},
        {"normalization": "LN", "normalization_type": "RMS"},
    ],
)
def test_combinations_transformer_lens_never_computed_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="the config has "):
        read_legacy_config({**PLAIN, "act_fn": "gelu", **fields})


def test_fields_at_their_neutral_values_and_training_settings_are_not_refused() -> None:
    neutral = {
        "attn_scores_soft_cap": -1.0, "use_qk_norm": False, "clip_qkv": None, "rotary_flavour": None, "new_thing": False,
        "learning_rate": 1e-3, "batch_size": 64, "wandb_project": "toys", "total_steps": 5000, "save_every": 50,
        "yarn_factor": 2.0, "NTK_by_parts_factor": 4.0, "device": "cuda", "dtype": "torch.bfloat16", "seed": 3,
        "tokenizer_name": "gpt2", "initializer_range": 0.02, "original_architecture": "GPT2LMHeadModel",
    }  # fmt: skip
    assert read_legacy_config({**PLAIN, **neutral}) == read_legacy_config(PLAIN)


def test_defaults_are_hooked_transformers() -> None:
    """Source: HookedTransformerConfig of TransformerLens 3.9."""
    legacy = read_legacy_config(PLAIN)
    assert (legacy.n_heads, legacy.d_mlp, legacy.act_fn, legacy.normalization) == (2, 64, "relu", "LN")
    assert (legacy.positions, legacy.eps, legacy.rotary_base) == ("standard", 1e-5, 10_000)
    assert legacy.scales == (8**0.5, 8**0.5)
    assert legacy.windows == (None, None)
    assert set(ACTIVATIONS.values()) == {"gelu", "gelu_new", "relu", "silu", "solu", "solu_ln"}


def test_a_refused_field_is_the_message_of_the_whole_folder(tmp_path: Path) -> None:
    write_series(tmp_path, "mlp_gelu", changes={"use_qk_norm": True}, names=("step_1.pth", "step_2.pth"))
    error = refusal(tmp_path)
    assert "use_qk_norm=True" in error.message


# --- weights that do not fit ------------------------------------------------------------------------------------------


def test_no_config_says_how_to_save_one(tmp_path: Path) -> None:
    save(state("mlp_gelu"), tmp_path / "step_1.pth")
    error = refusal(tmp_path)
    assert "no config (config.json or cfg.json) beside step_1.pth" in error.message
    assert "model.cfg.to_dict()" in error.help


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_a_broken_config_is_said_to_be(text: str, tmp_path: Path) -> None:
    write_series(tmp_path, "mlp_gelu")
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in refusal(tmp_path).message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_head": 4, "n_heads": 4}, "blocks.0.attn.W_Q has shape [2, 16, 8], the config says [4, 16, 4]"),
        ({"d_vocab": 21, "d_vocab_out": 21}, "embed.W_E has shape [20, 16], the config says [21, 16]"),
        ({"n_layers": 1}, "not described by the config (blocks.1.attn.W_K"),
        ({"n_layers": 3}, "missing (blocks.2.attn.W_K"),
        ({"attn_only": True}, "not described by the config (blocks.0.ln2.b"),
        ({"n_key_value_heads": 2}, "missing (blocks.0.attn._W_K"),
        ({"gated_mlp": True}, "missing (blocks.0.mlp.W_gate"),
    ],
)
def test_weights_of_another_config_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal(write_series(tmp_path, "mlp_gelu", changes=changes)).message


def test_folded_and_unfolded_mixed_up_are_explained(tmp_path: Path) -> None:
    error = refusal(write_series(tmp_path / "a", "folded", changes={"normalization_type": "LN"}))
    assert "missing (blocks.0.ln1.b" in error.message
    assert "'LNPre'" in error.help
    error = refusal(write_series(tmp_path / "b", "mlp_gelu", changes={"normalization_type": "LNPre"}))
    assert "not described by the config (blocks.0.ln1.b" in error.message
    assert "normalization_type='LNPre'" in error.help
    error = refusal(write_series(tmp_path / "c", "mlp_gelu", changes={"positional_embedding_type": "rotary"}))
    assert error.help == "the config says positional_embedding_type='rotary'"


def test_one_bad_file_is_a_gap_and_the_others_are_read(tmp_path: Path) -> None:
    write_series(tmp_path, "mlp_gelu", names=("step_1.pth", "step_2.pth", "step_3.pth", "step_4.safetensors"))
    lacking = {k: v for k, v in state("mlp_gelu").items() if k != "blocks.1.attn.W_V"}
    save(lacking, tmp_path / "step_2.pth")
    whole = (tmp_path / "step_3.pth").read_bytes()
    (tmp_path / "step_3.pth").write_bytes(whole[: len(whole) // 2])
    whole = (tmp_path / "step_4.safetensors").read_bytes()
    (tmp_path / "step_4.safetensors").write_bytes(whole[:-100])
    series = open_series(tmp_path)
    assert series.steps == (1,)
    assert [gap.step for gap in series.gaps] == [2, 3, 4]
    assert series.gaps[0].reason == "1 tensors are missing (blocks.1.attn.W_V)"
    assert "step_3.pth" in series.gaps[1].reason
    assert "truncated" in series.gaps[2].reason


def test_a_pickled_model_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    Trained.__module__, Trained.__qualname__ = "transformer_lens.HookedTransformerConfig", "Trained"
    write_series(tmp_path, "mlp_gelu")
    try:
        with pytest.MonkeyPatch.context() as patch:
            import sys
            import types

            module = types.ModuleType("transformer_lens.HookedTransformerConfig")
            module.Trained = Trained  # type: ignore[attr-defined]
            patch.setitem(sys.modules, module.__name__, module)
            save({"cfg": Trained(), "state_dict": state("mlp_gelu")}, tmp_path / "model_000512.pth")
    finally:
        Trained.__module__, Trained.__qualname__ = __name__, "Trained"
    error = refusal(tmp_path)
    assert "transformer_lens.HookedTransformerConfig.Trained" in error.message
    assert "torch.save(model.state_dict()" in error.help
    assert "model.cfg.to_dict()" in error.help


def test_numpy_numbers_in_a_pickled_config_are_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    plain = {
        **config("mlp_gelu"),
        "attn_scale": np.sqrt(np.float64(8)),
    }  # as HookedTransformerConfig computes it
    save({"cfg": plain, "state_dict": state("mlp_gelu")}, tmp_path / "step_1.pth")
    write_series(tmp_path, "mlp_gelu", names=("step_2.pth",))
    (gap,) = open_series(tmp_path).gaps
    assert gap.step == 1
    assert "numpy" in gap.reason
    assert "json.dump(model.cfg.to_dict()" in gap.help


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    quantised = {k: v.to(torch.int8) if k.endswith("W_in") else v for k, v in state("mlp_gelu").items()}
    save(quantised, write_series(tmp_path, "mlp_gelu") / "model_000512.pth")
    assert "blocks.0.mlp.W_in holds I8 numbers" in refusal(tmp_path).message


def test_a_file_lost_after_opening_is_an_error_of_its_step(tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path, "mlp_gelu"))
    (tmp_path / "model_000512.pth").unlink()
    with pytest.raises(CheckpointError, match="step 512"):
        HookedSeries(series).load(series[0])


def test_listing_reads_no_weights_and_never_imports_torch(tmp_path: Path, run_prepared: Any) -> None:
    write_series(tmp_path, "all_at_once", names=("step_1.pth", "step_2.safetensors"))
    code = (
        "import sys; from byrote.checkpoints import open_series; "
        "print(open_series(sys.argv[1]).steps, 'torch' in sys.modules)"
    )
    assert run_prepared(code, str(tmp_path)) == "(1, 2) False"


def test_special_ids_of_the_config_are_kept(tmp_path: Path) -> None:
    series = open_series(write_series(tmp_path, "mlp_gelu", changes={"bos_token_id": 3}))
    model = HookedSeries(series).load(series[0])
    assert model.config["bos_token_id"] == 3
    assert model.config["positions"] == "standard"
    json.dumps(model.config)


def test_the_fixtures_are_small() -> None:
    assert sum(file.stat().st_size for file in tl_legacy_golden.FOLDER.iterdir()) < 300_000
