"""Content hashes follow the tensors, not the files they happen to lie in."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes
from byrote.checkpoints.formats.safetensors_header import read_header


def identity(path) -> str:
    return fingerprint(tensor_hashes(open_series(path)[0]))


def test_whole_and_sharded_files_of_the_same_tensors_agree(hf_series):
    whole = hf_series("llama", 1, folder="whole")
    sharded = hf_series("llama", 1, folder="sharded", shard_size="20KB")
    assert len(open_series(sharded)[0].files) > 1
    assert tensor_hashes(open_series(whole)[0]) == tensor_hashes(open_series(sharded)[0])
    assert identity(whole) == identity(sharded)


def test_the_order_in_the_file_and_its_metadata_do_not_matter(hf_series):
    path = hf_series("gpt2", 1)
    before = identity(path)
    file = path / "step0" / "model.safetensors"
    tensors = load_file(file)
    save_file(dict(reversed(tensors.items())), file, metadata={"format": "pt", "note": "saved again"})
    assert identity(path) == before


def test_one_flipped_bit_changes_that_tensor_alone(lab_series):
    path = lab_series(1)
    (checkpoint,) = open_series(path)
    before = tensor_hashes(checkpoint)
    entry = next(e for e in read_header(checkpoint.files[0]) if e.name == "layers.1.attn.q.weight")
    data = bytearray(checkpoint.files[0].read_bytes())
    data[entry.end - 1] ^= 1
    checkpoint.files[0].write_bytes(data)
    after = tensor_hashes(open_series(path)[0])
    assert {name for name in before if before[name] != after[name]} == {"layers.1.attn.q.weight"}
    assert fingerprint(before) != fingerprint(after)


def test_names_shapes_and_dtypes_count_as_much_as_bytes(lab_series):
    (checkpoint,) = open_series(lab_series(1))
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(6)}
    seen = set()
    for changed in (
        tensors,
        {"b": tensors["a"], "a": tensors["b"]},
        {**tensors, "a": torch.zeros(3, 2)},
        {**tensors, "a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": tensors["a"]},
        {**tensors, "a": torch.full((2, 3), -0.0)},
    ):
        save_file(changed, checkpoint.files[0])
        seen.add(fingerprint(tensor_hashes(checkpoint)))
    assert len(seen) == 6


def test_a_file_damaged_after_opening_is_an_error(lab_series):
    (checkpoint,) = open_series(lab_series(1))
    checkpoint.files[0].write_bytes(b"gone")
    with pytest.raises(CheckpointError, match="too short"):
        tensor_hashes(checkpoint)
