"""PyTorch Lightning's .ckpt: names, prefixes, and where the architecture is found."""

from __future__ import annotations

import json

import pytest
import torch
from pickled_files import hf_state, lightning_content, write_config
from tiny_models import tiny_hf_model

from byrote.checkpoints import CheckpointError, open_series
from byrote.interp.loading import load_fresh, read_config


def write(folder, step, arch="gpt2", *, name="epoch=1-step={step}.ckpt", **options):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(lightning_content(step, arch, **options), folder / name.format(step=step))


def same_logits(checkpoint, arch, seed) -> bool:
    tokens = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = tiny_hf_model(arch, seed=seed)(tokens).logits
    return torch.allclose(load_fresh(checkpoint).logits(tokens), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("prefix", ["model.", "net.", "model._orig_mod.", "a.long.way.down.", ""])
def test_the_prefix_is_found(tmp_path, prefix):
    write_config(tmp_path, "gpt2")
    write(tmp_path, 500, prefix=prefix)
    series = open_series(tmp_path)
    assert (series.format, series.steps) == ("lightning", (500,))
    assert same_logits(series[0], "gpt2", 500)


@pytest.mark.parametrize("arch", ["llama", "gpt_neox"])
def test_a_prefix_that_is_also_part_of_the_architectures_names(tmp_path, arch):
    """Llama's own names begin with `model.` except for the head's."""
    write_config(tmp_path, arch)
    write(tmp_path, 3, arch, prefix="model.")
    assert same_logits(open_series(tmp_path)[0], arch, 3)


def test_steps_come_from_names_else_from_the_file(tmp_path):
    write_config(tmp_path, "gpt2")
    write(tmp_path, 1000)
    write(tmp_path, 500, name="epoch=0-step={step}-v1.ckpt")
    write(tmp_path, 2000, name="epoch=3-val_loss=2.31.ckpt")
    write(tmp_path, 1000, name="last.ckpt")
    series = open_series(tmp_path)
    assert (series.steps, series.gaps) == ((500, 1000, 2000), ())
    assert series.notes == ("last.ckpt is step 1000 again and was left out",)
    assert series.tokens_seen == (None, None, None)


def test_the_config_may_lie_in_the_folder_above(tmp_path):
    write_config(tmp_path, "gpt2")
    write(tmp_path / "checkpoints", 5)
    assert same_logits(open_series(tmp_path / "checkpoints")[0], "gpt2", 5)


@pytest.mark.parametrize("field", [None, "config", "model_config"])
def test_the_config_may_lie_in_the_hyper_parameters(tmp_path, field):
    config = json.loads(json.dumps(tiny_hf_model("gpt2", seed=0).config.to_dict()))
    write(tmp_path, 5, **({field: config} if field else config))
    (checkpoint,) = open_series(tmp_path)
    assert read_config(checkpoint)["n_embd"] == 32
    assert same_logits(checkpoint, "gpt2", 5)


def test_a_config_in_the_hyper_parameters_counts_more_than_one_beside(tmp_path):
    write_config(tmp_path, "llama")
    config = json.loads(json.dumps(tiny_hf_model("gpt2", seed=0).config.to_dict()))
    write(tmp_path, 5, config=config)
    assert same_logits(open_series(tmp_path)[0], "gpt2", 5)


def test_without_a_config_it_is_a_gap_that_says_where_to_put_one(tmp_path):
    write(tmp_path / "run" / "checkpoints", 5)
    with pytest.raises(CheckpointError, match="nothing in it says which architecture it is") as caught:
        open_series(tmp_path / "run" / "checkpoints")
    assert "config.json" in caught.value.help


def test_a_config_in_the_hyper_parameters_may_not_ask_for_code(tmp_path):
    write(tmp_path, 5, config={"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(CheckpointError, match="run code"):
        open_series(tmp_path)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"loss.weight": torch.ones(3)}, "begin with model., 1 of the file's do not .loss.weight"),
        ({"model.value_head.weight": torch.ones(3)}, "not belong to the architecture.*value_head"),
        ({"model.transformer.h.7.ln_1.weight": torch.ones(32)}, r"not belong to the architecture.*h\.7"),
    ],
)
def test_every_name_must_be_the_architectures(tmp_path, extra, words):
    write_config(tmp_path, "gpt2")
    content = lightning_content(5, "gpt2")
    content["state_dict"] |= extra
    torch.save(content, tmp_path / "step=5.ckpt")
    with pytest.raises(CheckpointError, match=words):
        load_fresh(open_series(tmp_path)[0])


def test_a_missing_tensor_is_refused_by_name(tmp_path):
    write_config(tmp_path, "gpt2")
    content = lightning_content(5, "gpt2")
    del content["state_dict"]["model.transformer.h.1.ln_2.bias"]
    torch.save(content, tmp_path / "step=5.ckpt")
    with pytest.raises(CheckpointError, match=r"missing keys.*h\.1\.ln_2\.bias"):
        load_fresh(open_series(tmp_path)[0])


def test_a_plain_state_dict_in_a_ckpt_file_is_read_as_one(tmp_path):
    write_config(tmp_path, "gpt2")
    torch.save(hf_state("gpt2", 8), tmp_path / "step_8.ckpt")
    series = open_series(tmp_path)
    assert (series.format, series.steps) == ("state_dict", (8,))
    assert same_logits(series[0], "gpt2", 8)


def test_hyper_parameters_that_are_objects_are_refused_by_name(tmp_path):
    from argparse import Namespace

    write_config(tmp_path, "gpt2")
    write(tmp_path, 1)
    write(tmp_path, 2, options=Namespace(lr=3))
    series = open_series(tmp_path)
    assert series.steps == (1,)
    assert "refers to argparse.Namespace" in series.gaps[0].reason
    assert "torch.save(model.state_dict()" in series.gaps[0].help
