"""GGUF files: written by the gguf library, read by byrote, and held against the library's own reader and transformers."""

from __future__ import annotations

import struct
import sys

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_files import DIM, HEADS, KV, LAYERS, SHAPES, VOCAB, write_gguf

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.checkpoints.formats.gguf_header import KINDS, read_header
from byrote.checkpoints.lint import lint
from byrote.checkpoints.stored_bytes import StoredFile
from byrote.interp.bridge import HookedSeries
from byrote.interp.builders.gguf import _dequantised
from byrote.interp.loading import load_fresh

TOKENS = torch.tensor([[1, 5, 9, 5, 9, 60, 0]])


def theirs(file, **options):
    """The model as transformers reads it from the file, by the gguf library's reader."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, **options)
    return model.eval()


@pytest.mark.parametrize(("kind", "tied"), [(Kind.Q4_1, True), (Kind.Q4_0, False)])
def test_weights_are_bit_for_bit_those_that_transformers_reads(tmp_path, kind, tied):
    file = write_gguf(tmp_path / "tiny.gguf", 1, kind=kind, tied=tied)
    model, expected = load_fresh(open_series(file)[0]), theirs(file, dtype=torch.float32)
    own = dict(expected.named_parameters(remove_duplicate=False))
    assert own.keys() == model.parameters.keys()
    for name, parameter in own.items():
        assert torch.equal(model.parameters[name], parameter), name
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(TOKENS), expected(TOKENS).logits, rtol=0, atol=2e-5)


def test_a_block_of_4_bits_by_hand(tmp_path):
    """Of Q4_1: scale and smallest in float16, then 16 bytes, the lower halves first."""
    file = write_gguf(tmp_path / "tiny.gguf", 1)
    tensor = read_header(file).tensors["blk.0.attn_v.weight"]
    block = struct.pack("<ee", 0.5, -2.0) + bytes(range(16))  # low halves 0..15, high halves 0
    data = bytearray(file.read_bytes())
    data[tensor.start : tensor.start + 20] = block
    file.write_bytes(data)
    found = load_fresh(open_series(file)[0]).parameters["model.layers.0.self_attn.v_proj.weight"][0, :32]
    assert found.tolist() == [i * 0.5 - 2 for i in range(16)] + [-2.0] * 16


def test_every_kind_is_where_the_library_finds_it_and_says_what_it_says(tmp_path):
    """Random blocks with small scales, as no quantiser needs to have made them."""
    sizes = gguf.constants.GGML_QUANT_SIZES
    assert {n: (k.name, k.block, k.block_bytes) for n, k in KINDS.items()} == {
        n: (Kind(n).name, *sizes[Kind(n)]) for n in KINDS
    }
    writer, rng = gguf.GGUFWriter(tmp_path / "all.gguf", "llama"), np.random.default_rng(0)
    for number, kind in KINDS.items():
        blocks = rng.integers(0, 256, (3, 2 * kind.block_bytes), dtype=np.uint8)
        if kind.bits:
            writer.add_tensor(kind.name, blocks, raw_dtype=Kind(number))
    for kind in ("F16", "F32"):
        writer.add_tensor(kind, rng.normal(size=(3, 4)).astype(f"float{kind[1:]}"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    library = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "all.gguf").tensors}
    with StoredFile(tmp_path / "all.gguf") as file, np.errstate(all="ignore"):
        for name, tensor in read_header(tmp_path / "all.gguf").tensors.items():
            one = library[name]
            assert (tensor.start, tensor.n_bytes, list(tensor.shape)) == (
                one.data_offset,
                one.n_bytes,
                one.shape.tolist()[::-1],
            )
            expected = gguf.quants.dequantize(one.data, one.tensor_type)
            np.testing.assert_array_equal(_dequantised(file, tensor).float().numpy(), expected, err_msg=name)
    assert len(library) == len(KINDS) - 2


def test_it_is_called_with_its_quantisation_wherever_it_is_shown(tmp_path):
    series = open_series(write_gguf(tmp_path / "tiny-Q4_1.gguf", 1))
    assert (series.format, series.steps) == ("gguf", (0,))
    assert series.name == "tiny, dequantised from 4 bits (Q4_1)"
    parts = len(SHAPES) - 2
    said = f"tensors: {parts * LAYERS + 1} in Q4_1, {2 * LAYERS + 1} in F32, 1 in Q8_0"
    assert any(said in note for note in series.notes)
    whole = open_series(write_gguf(tmp_path / "whole.gguf", 1, kind=Kind.F32))
    assert whole.name == "whole" and not any("dequantised" in note for note in whole.notes)


def test_steps_named_by_files_and_swapped_in_place(tmp_path):
    for step in (10, 20, 30):
        write_gguf(tmp_path / "run" / f"step_{step}.gguf", step)
    series = open_series(tmp_path / "run")
    assert (series.steps, series.name) == ((10, 20, 30), "run, dequantised from 4 bits (Q4_1)")
    hooked = HookedSeries(series)
    for checkpoint in series:
        assert torch.equal(hooked.load(checkpoint).logits(TOKENS), load_fresh(checkpoint).logits(TOKENS))
    assert hooked.swap_used == "in place"
    assert tensor_hashes(series[0]).keys() == tensor_hashes(series[1]).keys()
    assert not lint(series).left_out


def test_a_config_of_steps_says_what_they_were(tmp_path):
    config = (
        HookedSeries(open_series(write_gguf(tmp_path / "tiny.gguf", 1)))
        .load(open_series(tmp_path / "tiny.gguf")[0])
        .config
    )
    assert config["quantised"] == "dequantised from 4 bits (Q4_1)"
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["vocab_size"]) == (
        HEADS,
        KV,
        VOCAB,
    )
    assert (config["rope_theta"], config["bos_token_id"], config["unk_token_id"]) == (500.0, 1, None)


REFUSED = {
    "another architecture": ({"architecture": "mamba"}, "the architecture mamba", "gguf_file"),
    "experts": ({"fields": {"llama.expert_count": 8}}, "expert_count = 8", "convert"),
    "stretched angles": ({"fields": {"llama.rope.scaling.type": "yarn"}}, "rope.scaling.type = yarn", "convert"),
    "frequencies": ({"tensors": {"rope_freqs.weight": np.ones(8, np.float32)}}, "Llama 3.1", "convert"),
    "a tensor too many": ({"tensors": {"blk.0.attn_q.bias": np.ones(DIM, np.float32)}}, "in addition to those of a Llama", "again"),
    "no size": ({"left_out": "block_count"}, "does not say block_count", "again"),
    "layers that are not there": ({"left_out": "block_count", "fields": {"llama.block_count": 999}}, "lacks", "again"),
    "more layers than any model": ({"left_out": "block_count", "fields": {"llama.block_count": 1 << 31}}, "block_count", "again"),
    "heads by layer": ({"left_out": "attention.head_count", "fields": {"llama.attention.head_count": [2, 2]}}, "head_count", "again"),
    "odd heads": ({"fields": {"llama.attention.key_length": 32}}, "of sizes", "convert"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_plain_llama_is_refused_by_name(tmp_path, case):
    how, said, helps = REFUSED[case]
    with pytest.raises(CheckpointError) as error:
        open_series(write_gguf(tmp_path / "x.gguf", 1, **how))
    assert said in error.value.message and helps in error.value.help


def changed(data: bytes, at: int, form: str, value: int) -> bytes:
    new = bytearray(data)
    struct.pack_into(form, new, at, value)
    return bytes(new)


HOSTILE = {
    "tensors without end": (lambda d: changed(d, 8, "<Q", 1 << 60), "claims 1,152,921,504,606,846,976 tensors"),
    "fields without end": (lambda d: changed(d, 16, "<Q", 1 << 60), "fields of metadata"),
    "a name without end": (lambda d: changed(d, 24, "<Q", 1 << 62), "header"),
    "another version": (lambda d: changed(d, 4, "<I", 1), "version 1"),
    "big-endian": (lambda d: changed(d, 4, ">I", 3), "big-endian"),
    "cut short": (lambda d: d[:-64], "cut short"),
    "cut in the header": (lambda d: d[:100], "ends within its header"),
    "something behind": (lambda d: d + bytes(64), "after its last tensor"),
    "texts without end": (
        lambda d: changed(d, d.index(b"tokenizer.ggml.tokens") + 21 + 8, "<Q", 1 << 40), "claims 1,099,511,627,776 texts"),
    "numbers without end": (
        lambda d: changed(d, d.index(b"tokenizer.ggml.token_type") + 25 + 8, "<Q", 1 << 40), "ends within its header"),
    "an array of arrays": (lambda d: changed(d, d.index(b"tokenizer.ggml.tokens") + 21 + 4, "<I", 9), "array of arrays"),
    "a kind nobody knows": (lambda d: changed(d, d.index(b"blk.0.attn_q.weight") + 19 + 20, "<I", 77), "ggml's 77"),
    "axes without end": (lambda d: changed(d, d.index(b"blk.0.attn_q.weight") + 19, "<I", 1 << 30), "axes"),
    "a size without end": (lambda d: changed(d, d.index(b"blk.0.attn_q.weight") + 23 + 8, "<Q", 1 << 30), "cut short"),
    "a place elsewhere": (lambda d: changed(d, d.index(b"blk.0.attn_q.weight") + 19 + 24, "<Q", 0), "overlap or leave holes"),
    "no gguf at all": (lambda d: b"GGML" + d[4:], "is not a GGUF file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_before_anything_is_read(tmp_path, case):
    change, said = HOSTILE[case]
    file = write_gguf(tmp_path / "x.gguf", 1)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CheckpointError) as error:
        open_series(file)
    assert said in error.value.message and error.value.help


def test_without_the_library_it_is_listed_and_loading_says_what_to_install(tmp_path, monkeypatch):
    series = open_series(write_gguf(tmp_path / "tiny.gguf", 1))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError) as error:
        load_fresh(series[0])
    assert "gguf library" in error.value.message and error.value.help == "pip install 'byrote[gguf]'"
    assert len(tensor_hashes(series[0])) == len(SHAPES) * LAYERS + 3
