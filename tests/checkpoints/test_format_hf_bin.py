"""Hugging Face folders with pickled weights: the same model, the same hashes, whole or in shards."""

from __future__ import annotations

import json

import pytest
import torch
from pickled_files import hf_state
from safetensors.torch import load_file
from tiny_models import tiny_hf_model, write_hf_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh

TOKENS = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))


def write(folder, arch, step, *, shards=1, dtype=torch.float32, tensors=None, **options):
    """A step folder as older releases of transformers wrote it."""
    path = folder / f"checkpoint-{step}"
    write_hf_series(folder, arch, (step,), name="checkpoint-{step}")
    tensors = tensors or load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    tensors = {name: t.to(dtype) for name, t in tensors.items()}
    if shards == 1:
        torch.save(tensors, path / "pytorch_model.bin", **options)
        return path
    names = [f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin" for i in range(shards)]
    place = {name: names[i % shards] for i, name in enumerate(tensors)}
    for shard in names:
        torch.save({n: t for n, t in tensors.items() if place[n] == shard}, path / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": place}
    (path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return path


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "llama"])
def test_logits_equal_transformers_own(tmp_path, arch, shards):
    for step in (5, 10):
        write(tmp_path, arch, step, shards=shards)
    series = open_series(tmp_path)
    assert (series.format, series.steps, len(series[0].files)) == ("hf", (5, 10), shards)
    with torch.inference_mode():
        expected = tiny_hf_model(arch, seed=10)(TOKENS).logits
    torch.testing.assert_close(load_fresh(series[1]).logits(TOKENS), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_models_dtype_is_the_one_asked_for(tmp_path, dtype):
    write(tmp_path, "gpt2", 1, dtype=dtype)
    (checkpoint,) = open_series(tmp_path)
    wanted = {name: t.to(dtype).float() for name, t in hf_state("gpt2", 1).items()}
    for asked in (torch.float32, torch.bfloat16):
        model = load_fresh(checkpoint, dtype=asked)
        assert {p.dtype for p in model.parameters.values()} == {asked}
        for name, parameter in model.parameters.items():
            assert torch.equal(parameter, wanted[name].to(asked))


def test_the_head_may_share_the_embedding_in_one_storage(tmp_path):
    state = hf_state("gpt2", 3)
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    write(tmp_path, "gpt2", 3, tensors=state)
    model = load_fresh(open_series(tmp_path)[0])
    assert model.parameters["lm_head.weight"] is model.parameters["transformer.wte.weight"]
    assert torch.equal(model.parameters["lm_head.weight"], state["lm_head.weight"])


def test_old_masks_and_buffers_are_left_out(tmp_path):
    state = hf_state("gpt2", 3) | {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    write(tmp_path, "gpt2", 3, tensors=state)
    with torch.inference_mode():
        expected = tiny_hf_model("gpt2", seed=3)(TOKENS).logits
    torch.testing.assert_close(
        load_fresh(open_series(tmp_path)[0]).logits(TOKENS), expected, rtol=0, atol=2e-6
    )


def test_hashes_equal_those_of_safetensors(tmp_path):
    write_hf_series(tmp_path / "safe", "llama", (1,))
    expected = tensor_hashes(open_series(tmp_path / "safe")[0])
    for name, options in {
        "whole": {},
        "shards": {"shards": 2},
        "old": {"_use_new_zipfile_serialization": False},
    }.items():
        write(tmp_path / name, "llama", 1, **options)
        assert tensor_hashes(open_series(tmp_path / name)[0]) == expected


def test_safetensors_come_first(tmp_path):
    write_hf_series(tmp_path, "gpt2", (1,))
    torch.save({"nothing": torch.ones(1)}, tmp_path / "step1" / "pytorch_model.bin")
    assert [file.name for file in open_series(tmp_path)[0].files] == ["model.safetensors"]


def test_swapping_in_place_gives_the_bits_of_a_fresh_load(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, "gpt_neox", step)
    series = open_series(tmp_path)
    walker = HookedSeries(series)
    for checkpoint in series:
        assert torch.equal(walker.load(checkpoint).logits(TOKENS), load_fresh(checkpoint).logits(TOKENS))
    assert walker.swap_used == "in place"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "pytorch_model-00002-of-00003.bin").unlink(), "1 of 3 shards are missing"),
        (lambda f: (f / "pytorch_model.bin.index.json").unlink(), "do not have Hugging Face file names"),
        (lambda f: (f / "pytorch_model.bin.index.json").write_text("{}"), "no weight_map"),
        (lambda f: (f / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../x.bin"}}'), "outside"),
        (lambda f: (f / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "config.json"}}'), "another kind"),
        (lambda f: torch.save([1], f / "pytorch_model-00002-of-00003.bin"), "holds more than tensors"),
        (lambda f: (f / "pytorch_model-00001-of-00003.bin").write_bytes(b"PK\3\4" + b"\0" * 99), "damaged zip"),
    ],
)  # fmt: skip
def test_damaged_folders_are_gaps(tmp_path, spoil, words):
    write(tmp_path, "gpt2", 1)
    spoil(write(tmp_path, "gpt2", 2, shards=3))
    series = open_series(tmp_path)
    assert (series.steps, [gap.step for gap in series.gaps]) == ((1,), [2])
    assert words in series.gaps[0].reason
    assert series.gaps[0].help


def test_weights_that_change_after_opening_are_checked_again(tmp_path):
    path = write(tmp_path, "gpt2", 1)
    (checkpoint,) = open_series(tmp_path)
    torch.save({"a": torch.ones(2)}, path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="missing keys"):
        load_fresh(checkpoint)
