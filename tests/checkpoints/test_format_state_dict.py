"""Plain state dicts: one file per step, pickled or safetensors, with the config beside or above."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from pickled_files import hf_state, write_config
from safetensors.torch import save_file
from tiny_models import tiny_hf_model, write_hf_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh

TOKENS = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))


def logits_of(arch, seed):
    with torch.inference_mode():
        return tiny_hf_model(arch, seed=seed)(TOKENS).logits


def write(folder, name, state, **options):
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({n: t.clone().contiguous() for n, t in state.items()}, folder / name)
    else:
        torch.save(state, folder / name, **options)


@pytest.fixture
def folder(tmp_path):
    write_config(tmp_path / "run", "gpt2")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "name",
    [
        "step_{}.pt",
        "model_step{}.safetensors",
        "ckpt-{}.pth",
        "gpt-iter_{}.pt",
        "{}.pt",
        "my-model-step-{}-final.bin",
    ],
)
def test_steps_from_names(folder, name):
    for step in (512, 8):
        write(folder, name.format(step), hf_state("gpt2", step))
    series = open_series(folder)
    assert (series.format, series.steps, series.gaps, series.notes) == ("state_dict", (8, 512), (), ())
    torch.testing.assert_close(
        load_fresh(series[1]).logits(TOKENS), logits_of("gpt2", 512), rtol=0, atol=5e-6
    )


def prefixes_of_architectures() -> Iterator[Any]:
    """Every prefix on one architecture and every architecture with the longest; the other pairs are slow tests."""
    prefixes = ("", "module.", "_orig_mod.", "model.", "module._orig_mod.model.")
    for arch, prefix in product(("gpt2", "gpt_neox", "llama", "qwen2", "opt"), prefixes):
        first = arch == "gpt2" or prefix == prefixes[-1]
        yield pytest.param(arch, prefix, marks=() if first else pytest.mark.slow)


@pytest.mark.parametrize(("arch", "prefix"), list(prefixes_of_architectures()))
def test_prefixes_are_taken_off_where_that_makes_names_fit(tmp_path, arch, prefix):
    write_config(tmp_path, arch)
    write(tmp_path, "step_4.pt", hf_state(arch, 4, prefix=prefix))
    torch.testing.assert_close(
        load_fresh(open_series(tmp_path)[0]).logits(TOKENS), logits_of(arch, 4), rtol=0, atol=5e-6
    )


def test_wrappers_inside_names_are_taken_off(folder):
    state = {name.replace(".attn.", "._orig_mod.attn."): t for name, t in hf_state("gpt2", 4).items()}
    assert any("_orig_mod" in name for name in state)
    write(folder, "step_4.pt", state)
    torch.testing.assert_close(
        load_fresh(open_series(folder)[0]).logits(TOKENS), logits_of("gpt2", 4), rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("field", ["model", "state_dict", "model_state_dict", "module"])
def test_the_dict_may_be_a_field_of_what_was_saved(folder, field):
    for step in (3, 6):
        content = {field: hf_state("gpt2", step), "optimizer": {"state": {}}, "step": step}
        write(folder, f"{'ab'[step == 6]}.pt", content)
    series = open_series(folder)
    assert series.steps == (3, 6)  # from the field, the names say nothing
    torch.testing.assert_close(load_fresh(series[0]).logits(TOKENS), logits_of("gpt2", 3), rtol=0, atol=5e-6)


def test_layouts(tmp_path):
    write_config(tmp_path, "gpt2")
    for step in (1, 2):
        write(tmp_path / f"step_{step}", "weights.pt", hf_state("gpt2", step))
    assert open_series(tmp_path).steps == (1, 2)
    assert open_series(tmp_path / "step_2").notes == (
        "the training step of this checkpoint is unknown; it is shown as step 0",
    )
    write(tmp_path / "step_2", "more.pt", hf_state("gpt2", 2))
    (gap,) = open_series(tmp_path).gaps
    assert (gap.step, gap.reason) == (2, "it holds 2 weight files (more.pt, weights.pt)")


def test_sidecars_are_not_weights(folder):
    write(folder, "step_1.pt", hf_state("gpt2", 1))
    for name in (
        "optimizer_step_1.pt",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "mp_rank_00_optim_states.pt",
    ):
        torch.save({"state": {}}, folder / name)
    series = open_series(folder)
    assert (series.steps, series.gaps) == ((1,), ())


def test_hugging_face_folders_stay_hugging_faces(tmp_path):
    write_hf_series(tmp_path / "run", "gpt2", (1, 2), name="checkpoint-{step}")
    torch.save({"state": {}}, tmp_path / "run" / "checkpoint-1" / "extra.pt")
    assert open_series(tmp_path / "run").format == "hf"


def test_legacy_files_and_half_precision(folder):
    state = hf_state("gpt2", 2)
    write(
        folder,
        "step_2.pt",
        {name: t.half() for name, t in state.items()},
        _use_new_zipfile_serialization=False,
    )
    model = load_fresh(open_series(folder)[0])
    assert model.dtype == torch.float32
    assert (model.logits(TOKENS) - logits_of("gpt2", 2)).abs().max() < 0.05


def test_the_same_tensors_have_the_same_hashes_in_every_kind_of_file(folder):
    state = hf_state("gpt2", 2)
    state["transformer.h.0.mlp.c_fc.weight"] = state["transformer.h.0.mlp.c_fc.weight"].t().contiguous().t()
    write(folder / "zip", "step_2.pt", state)
    write(folder / "legacy", "step_2.pt", state, _use_new_zipfile_serialization=False)
    write(folder / "safe", "step_2.safetensors", state)
    write(folder / "field", "step_2.pt", {"model": state, "step": 2})
    hashes = [tensor_hashes(open_series(folder / kind)[0]) for kind in ("zip", "legacy", "safe", "field")]
    assert all(found == hashes[0] for found in hashes)
    write(folder / "zip", "step_2.pt", {**state, "transformer.ln_f.bias": torch.zeros(32)})
    assert tensor_hashes(open_series(folder / "zip")[0]) != hashes[0]


def test_bfloat16_hashes_alike_too(folder):
    state = {name: t.bfloat16() for name, t in hf_state("gpt2", 2).items()}
    write(folder / "zip", "step_2.pt", state)
    write(folder / "safe", "step_2.safetensors", state)
    assert tensor_hashes(open_series(folder / "zip")[0]) == tensor_hashes(open_series(folder / "safe")[0])


def test_a_tensor_that_is_a_slice_of_a_larger_one(folder):
    state = hf_state("gpt2", 2)
    whole = torch.cat([torch.full((3, 32), 9.0), state["transformer.wpe.weight"], torch.full((2, 32), 9.0)])
    write(folder, "step_2.pt", state | {"transformer.wpe.weight": whole[3:-2]})
    torch.testing.assert_close(
        load_fresh(open_series(folder)[0]).logits(TOKENS), logits_of("gpt2", 2), rtol=0, atol=5e-6
    )


def test_swapping_in_place_gives_the_bits_of_a_fresh_load(folder):
    for step in (1, 2, 3):
        write(folder, f"step_{step}.pt", hf_state("gpt2", step))
    series = open_series(folder)
    walker = HookedSeries(series)
    for checkpoint in series:
        assert torch.equal(walker.load(checkpoint).logits(TOKENS), load_fresh(checkpoint).logits(TOKENS))
    assert walker.swap_used == "in place"


def test_without_a_config(tmp_path):
    write(tmp_path / "a" / "b", "step_1.pt", hf_state("gpt2", 1))
    with pytest.raises(CheckpointError, match=r"no config\.json beside step_1\.pt") as caught:
        open_series(tmp_path / "a" / "b")
    assert str(tmp_path / "a" / "b") in caught.value.help


def test_a_file_without_a_step_among_others_is_a_gap(folder):
    write(folder, "step_1.pt", hf_state("gpt2", 1))
    write(folder, "final.pt", hf_state("gpt2", 9))
    series = open_series(folder)
    assert (series.steps, [gap.path.name for gap in series.gaps]) == ((1,), ["final.pt"])
    assert "the step of final.pt is unknown" in series.gaps[0].reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": 1, "b": "text"}, "holds no tensors by name"),
        ([torch.ones(2)], "holds no tensors by name"),
        (torch.ones(2), "holds no tensors by name"),
        (
            {"model": {"w": torch.ones(2)}, "module": {"w": torch.ones(2)}},
            "several state dicts: model, module",
        ),
    ],
)
def test_files_that_hold_something_else_are_gaps(folder, content, words):
    write(folder, "step_1.pt", hf_state("gpt2", 1))
    torch.save(content, folder / "step_2.pt")
    series = open_series(folder)
    assert series.steps == (1,)
    assert re.search(words, series.gaps[0].reason), series.gaps[0].reason


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s.pop("transformer.h.1.ln_2.bias"), "missing keys.*h.1.ln_2.bias"),
        (
            lambda s: s.update({"transformer.h.2.ln_1.weight": torch.ones(32)}),
            r"not belong to the architecture.*h\.2\.ln_1",
        ),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), "not belong to the architecture.*extra"),
        (lambda s: s.update({"transformer.ln_f.bias": torch.ones(31)}), "mismatched keys.*ln_f"),
        (
            lambda s: s.update({"_orig_mod.transformer.ln_f.bias": torch.ones(32)}),
            "inside and outside a wrapper",
        ),
    ],
)
def test_names_and_shapes_must_fit_exactly(folder, edit, words):
    state = hf_state("gpt2", 1)
    edit(state)
    write(folder, "step_1.pt", state)
    with pytest.raises(CheckpointError, match=words):
        load_fresh(open_series(folder)[0])


@pytest.mark.parametrize("name", ["step_7.pt", "step_7.safetensors", "weights.pt"])
def test_one_file_may_be_named_instead_of_its_folder(folder, name):
    write(folder, name, hf_state("gpt2", 7))
    write(folder, "step_9.pt", hf_state("gpt2", 9))
    series = open_series(folder / name)
    assert series.steps == ((0,) if name == "weights.pt" else (7,))
    torch.testing.assert_close(load_fresh(series[0]).logits(TOKENS), logits_of("gpt2", 7), rtol=0, atol=5e-6)


def test_two_files_of_one_step_are_both_left_out(folder):
    for name in ("step_1.pt", "ckpt_1.pt", "step_2.pt"):
        write(folder, name, hf_state("gpt2", 1))
    series = open_series(folder)
    assert series.steps == (2,)
    assert {gap.reason for gap in series.gaps} == {"2 files claim step 1: ckpt_1.pt, step_1.pt"}


def test_stages_of_a_training_are_no_one_series(folder):
    for name in ("stage1-step5.pt", "stage2-step9.pt"):
        write(folder, name, hf_state("gpt2", 1))
    with pytest.raises(CheckpointError, match=r"2 parts of a training.*: stage1, stage2"):
        open_series(folder)
