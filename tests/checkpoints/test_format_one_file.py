"""One weight file of a Hugging Face model, named by itself."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import write_hf_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.interp.loading import load_fresh

TOKENS = torch.tensor([[1, 2, 3, 4]])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_it_is_the_model_of_its_folder(tmp_path, name):
    folder = write_hf_series(tmp_path, "gpt_neox", (7,)) / "step7"
    expected = load_fresh(open_series(folder)[0]).logits(TOKENS)
    if name != "model.safetensors":
        torch.save(load_file(folder / "model.safetensors"), folder / name)
        (folder / "model.safetensors").unlink()
    series = open_series(folder / name)
    assert (series.format, series.steps, series.name, series.notes) == ("one_file", (7,), "step7", ())
    assert torch.equal(load_fresh(series[0]).logits(TOKENS), expected)


def test_without_a_step_it_is_step_0_with_a_note(tmp_path):
    folder = (write_hf_series(tmp_path, "llama", (7,)) / "step7").rename(tmp_path / "mine")
    series = open_series(folder / "model.safetensors")
    assert series.steps == (0,) and "shown as step 0" in series.notes[0]


def test_what_is_refused(tmp_path):
    folder = write_hf_series(tmp_path, "gpt2", (1,), shard_size="3KB") / "step1"
    shard = next(folder.glob("model-00001-of-*"))
    with pytest.raises(CheckpointError, match="one shard of a model") as error:
        open_series(shard)
    assert str(folder) in error.value.help
    alone = tmp_path / "elsewhere" / "model.safetensors"
    alone.parent.mkdir()
    alone.write_bytes(shard.read_bytes())
    with pytest.raises(CheckpointError, match=r"no config.json beside model.safetensors"):
        open_series(alone)
