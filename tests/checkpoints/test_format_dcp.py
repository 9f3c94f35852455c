"""torch.distributed.checkpoint: read without torch's own reader, and equal to what that reader gives."""

from __future__ import annotations

import pickle
import shutil
import warnings

import pytest
import torch
from pickled_files import hf_state, write_config, write_dcp, write_sharded_dcp
from safetensors.torch import save_file
from tiny_models import tiny_hf_model

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh

TOKENS = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(0))
CUTS = {
    "transformer.wte.weight": [[10, 40], []],  # rows, as FSDP cuts
    "transformer.wpe.weight": [[], [5, 20]],  # columns
    "transformer.h.0.mlp.c_fc.weight": [[8], [32, 50]],  # both
    "transformer.ln_f.bias": [[31]],
}


def untied(seed):
    """DCP refuses a tensor under two names in places; the tied head is the embedding in any case."""
    return {name: t.clone() for name, t in hf_state("gpt2", seed).items()}


def same_logits(checkpoint, seed) -> bool:
    with torch.inference_mode():
        expected = tiny_hf_model("gpt2", seed=seed)(TOKENS).logits
    return torch.allclose(load_fresh(checkpoint).logits(TOKENS), expected, rtol=0, atol=2e-6)


@pytest.fixture
def run(tmp_path):
    """A series of two steps, the first as torch writes it, the second cut into pieces."""
    folder = tmp_path / "run"
    write_config(folder, "gpt2")
    optimizer = {"state": {"0": {"exp_avg": torch.zeros(3), "step": 7}}, "param_groups": [{"lr": 0.1}]}
    write_dcp(folder / "step_100", {"model": untied(100), "optimizer": optimizer, "step": 100})
    write_sharded_dcp(folder / "step_200", untied(200), cuts=CUTS)
    return folder


def test_series(run):
    series = open_series(run)
    assert (series.format, series.steps, series.gaps) == ("dcp", (100, 200), ())
    assert [same_logits(c, c.step) for c in series] == [True, True]
    assert len({file.name for file in series[1].files}) > 2


def test_torchs_own_reader_gives_the_same_tensors(run):
    """The shards written by hand are a checkpoint torch itself can read, and both read the same from it."""
    import torch.distributed.checkpoint as dcp

    state = {name: torch.zeros_like(t) for name, t in untied(200).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=run / "step_200", no_dist=True)
    expected = untied(200)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_hashes_are_those_of_the_whole_tensors(run, tmp_path):
    write_config(tmp_path / "safe", "gpt2")
    save_file(untied(200), tmp_path / "safe" / "step_200.safetensors")
    expected = tensor_hashes(open_series(tmp_path / "safe")[0])
    series = open_series(run)
    assert tensor_hashes(series[1]) == expected
    whole = tensor_hashes(series[0])
    assert {name.removeprefix("model.") for name in whole} == expected.keys()
    assert whole["model.transformer.wte.weight"] != expected["transformer.wte.weight"]


def test_half_precision(tmp_path):
    write_config(tmp_path, "gpt2")
    state = {name: t.bfloat16() for name, t in untied(3).items()}
    write_sharded_dcp(tmp_path / "step_3", state, cuts=CUTS)
    model = load_fresh(open_series(tmp_path)[0])
    assert all(torch.equal(p, state[name].float()) for name, p in model.parameters.items())


@pytest.mark.parametrize("layout", ["alone", "trainer", "beside"])
def test_layouts(tmp_path, layout):
    home = {"alone": "x", "trainer": "checkpoint-5/pytorch_model_fsdp_0", "beside": "step-5"}[layout]
    write_dcp(tmp_path / home, {"model": untied(5)})
    write_config((tmp_path / home).parent if layout != "beside" else tmp_path / home, "gpt2")
    series = open_series(tmp_path / "x" if layout == "alone" else tmp_path)
    assert (series.format, series.steps) == ("dcp", (0 if layout == "alone" else 5,))
    assert bool(series.notes) == (layout == "alone")
    assert same_logits(series[0], 5)


def test_swapping_in_place_gives_the_bits_of_a_fresh_load(run):
    write_sharded_dcp(run / "step_300", untied(300), cuts={})
    series = open_series(run)
    walker = HookedSeries(series)
    for checkpoint in series:
        assert torch.equal(walker.load(checkpoint).logits(TOKENS), load_fresh(checkpoint).logits(TOKENS))


def described(folder):
    return pickle.loads((folder / ".metadata").read_bytes())


def rewrite(folder, edit):
    top = described(folder)
    edit(top)
    (folder / ".metadata").write_bytes(pickle.dumps(top))


def entry(top, name):
    return next(info for index, info in top.storage_data.items() if index.fqn == name)


def drop_piece(top):
    top.state_dict_metadata["transformer.wte.weight"].chunks.pop()


def overlap(top):
    chunks = top.state_dict_metadata["transformer.wte.weight"].chunks
    chunks[1] = type(chunks[1])(torch.Size([5, 0]), chunks[1].sizes)


def point(**changes):
    return lambda top: [setattr(entry(top, "transformer.ln_f.weight"), k, v) for k, v in changes.items()]


def grow(top):
    top.state_dict_metadata["transformer.ln_f.weight"].size = torch.Size([10**12])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop_piece, "pieces of transformer.wte.weight do not make a tensor of shape [61, 32]"),
        (overlap, "does not describe tensors"),
        (grow, "pieces of transformer.ln_f.weight do not make"),
        (point(relative_path="../../elsewhere.distcp"), "points outside its folder"),
        (point(relative_path="/etc/passwd"), "points outside its folder"),
        (point(relative_path="__9_0.distcp"), "__9_0.distcp is missing"),
        (point(offset=10**15), "is truncated"),
        (point(length=3), "do not make a tensor"),
        (point(transform_descriptors=["zstd"]), "compressed or encrypted"),
    ],
)
def test_descriptions_that_cannot_be_right_are_gaps(run, edit, words):
    rewrite(run / "step_200", edit)
    series = open_series(run)
    assert (series.steps, [gap.step for gap in series.gaps]) == ((100,), [200])
    assert words in series.gaps[0].reason
    assert series.gaps[0].help


def test_overlapping_pieces_of_the_right_total_size_are_refused(tmp_path):
    """Twelve elements in all, but four of them twice and four never."""
    from byrote.checkpoints.formats.dcp import model_tensors

    write_sharded_dcp(tmp_path / "step_1", {"w": torch.arange(24.0).view(12, 2)}, cuts={"w": [[4, 8], [1]]})
    assert len(model_tensors(tmp_path / "step_1")["w"].pieces) == 6

    def shift(top):
        chunks = top.state_dict_metadata["w"].chunks
        chunks[2] = chunks[0]

    rewrite(tmp_path / "step_1", shift)
    with pytest.raises(CheckpointError, match="pieces of w do not make"):
        model_tensors(tmp_path / "step_1")


def test_an_entry_that_is_another_tensor_than_described_is_refused(run):
    def swap(top):
        a, b = entry(top, "transformer.ln_f.weight"), entry(top, "transformer.h.0.attn.c_attn.bias")
        a.offset, a.length = b.offset, b.length

    rewrite(run / "step_200", swap)
    checkpoint = open_series(run).at(200)
    for read in (load_fresh, tensor_hashes):
        with pytest.raises(CheckpointError, match="does not hold at byte"):
            read(checkpoint)


def test_truncated_and_missing_files_are_gaps(run):
    shutil.copytree(run / "step_200", run / "step_300")
    (run / "step_300" / "__1_0.distcp").unlink()
    file = run / "step_200" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-9])
    shutil.copytree(run / "step_100", run / "step_400")
    (run / "step_400" / ".metadata").unlink()
    series = open_series(run)
    assert (series.steps, [gap.step for gap in series.gaps]) == ((100,), [200, 300, 400])
    assert [("truncated" in g.reason, "missing" in g.reason) for g in series.gaps] == [
        (True, False),
        (False, True),
        (False, True),
    ]


def test_without_a_config(run):
    (run / "config.json").unlink()
    with pytest.raises(CheckpointError, match="there is no config"):
        open_series(run)
