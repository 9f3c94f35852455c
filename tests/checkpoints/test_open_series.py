"""Folders become ordered series: names, steps, tokens and losses, without reading weights."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from tiny_models import write_lab_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.step_names import parse_name
from byrote.checkpoints.steps import step_of

NO_STEP = "the training step of this checkpoint is unknown; it is shown as step 0"


def test_lab_series(lab_series):
    path = lab_series((0, 1, 512))
    series = open_series(path)
    assert (series.name, series.format, series.gaps, series.notes) == ("tiny", "lab", (), ())
    assert series.steps == (0, 1, 512)
    assert series.tokens_seen == (0, 100, 51200)
    assert series.loss_nats == (3.0, 3.0, 3.0)
    assert series[2].files == (path / "step_00000512" / "model.safetensors",)
    assert series[2].config_path == path / "config.json"
    assert series[2].size_bytes == (path / "step_00000512" / "model.safetensors").stat().st_size
    assert series.manifest["status"] == "complete"


def test_a_series_is_indexed_by_position(lab_series):
    series = open_series(lab_series((0, 8)))
    assert series[-1].step == series.steps[-1]
    with pytest.raises(CheckpointError, match="indexed by position, and 'x' is str"):
        series["x"]


def test_lab_series_in_training_says_so(lab_series):
    path = lab_series((8, 2))  # the manifest's order is not trusted
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    series = open_series(path)
    assert series.steps == (2, 8)
    assert series.notes == ("training is not finished: the last step written is 8",)


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [("checkpoint-{step}", (1000, 20, 500)), ("step{step}", (0, 1, 512, 1000)), ("global_step{step}", (3,))],
)
def test_steps_are_read_from_folder_names_and_put_in_order(hf_series, pattern, steps):
    series = open_series(hf_series("gpt2", steps, name=pattern, n_embd=8, n_layer=1, n_head=1))
    assert series.format == "hf"
    assert series.steps == tuple(sorted(steps))
    assert [c.path.name for c in series] == [pattern.format(step=s) for s in sorted(steps)]
    assert series.tokens_seen == series.loss_nats == (None,) * len(steps)
    assert series.gaps == series.notes == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("checkpoint-500", (500, None)),
        ("checkpoint_500", (500, None)),
        ("step1000", (1000, None)),
        ("step_00000512", (512, None)),
        ("step-7", (7, None)),
        ("global_step30", (30, None)),
        ("globalstep30", (30, None)),
        ("iter_0000100", (100, None)),
        ("step1000-tokens4B", (1000, 4_000_000_000)),
        ("stage1-step20000-tokens84B", (20000, 84_000_000_000)),
        ("checkpoint-final", None),
        ("runs", None),
        ("mystep10", None),
        ("step10-backup", None),
    ],
)
def test_step_from_name(name, expected):
    named = parse_name(name)
    assert (named and (named.step, named.tokens)) == expected


def test_olmo_names_give_tokens(hf_series):
    path = hf_series("gpt2", (1000, 2000), name="stage1-step{step}-tokens4B", n_embd=8, n_layer=1, n_head=1)
    series = open_series(path)
    assert series.steps == (1000, 2000)
    assert series.tokens_seen == (4_000_000_000, 4_000_000_000)


def test_trainer_state_gives_tokens_and_the_loss_logged_last_before_the_step(hf_series):
    path = hf_series(
        "gpt2", (100, 200), name="checkpoint-{step}", trainer_state=True, n_embd=8, n_layer=1, n_head=1
    )
    series = open_series(path)
    assert series.tokens_seen == (64_000, 128_000)
    assert series.loss_nats == (4.9, 4.8)  # not the 99 logged after the step


@pytest.mark.parametrize(
    "history",
    [
        [{"step": 50, "loss": float("nan")}],
        [{"step": 50, "loss": float("inf")}],
        [{"step": 50, "loss": 10**400}],
        [{"step": 50, "loss": "4.5"}, {"loss": 2.0}, 7],
        {"step": 50, "loss": 4.5},
        12,
        None,
    ],
)
def test_trainer_state_with_nothing_usable_gives_no_loss(hf_series, history):
    path = hf_series("gpt2", (100,), name="checkpoint-{step}", n_embd=8, n_layer=1, n_head=1)
    state = {"log_history": history, "num_input_tokens_seen": float("inf"), "global_step": "many"}
    (path / "checkpoint-100" / "trainer_state.json").write_text(json.dumps(state))
    (only,) = open_series(path)
    assert (only.step, only.tokens_seen, only.loss_nats) == (100, None, None)


def test_a_single_model_folder_is_a_series_of_one(hf_series):
    path = hf_series("gpt2", 1, name="mine", n_embd=8, n_layer=1, n_head=1) / "mine"
    series = open_series(path)
    assert (series.steps, series.name, series.notes) == ((0,), "mine", (NO_STEP,))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": 700}))
    series = open_series(path)
    assert (series.steps, series.notes) == ((700,), ())


def test_one_step_folder_alone_keeps_its_step(hf_series):
    path = hf_series("gpt2", (40,), n_embd=8, n_layer=1, n_head=1) / "step40"
    assert open_series(path).steps == (40,)


def test_a_model_above_its_checkpoints_is_noted(hf_series):
    path = hf_series("gpt2", (10, 20), name="checkpoint-{step}", n_embd=8, n_layer=1, n_head=1)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(path / "checkpoint-20" / name, path / name)
    series = open_series(path)
    assert series.steps == (10, 20)
    assert "was left out" in series.notes[0]


def test_sharded_weights(hf_series):
    path = hf_series("llama", 2, shard_size="20KB")
    series = open_series(path)
    assert series.steps == (0, 1)
    assert len(series[0].files) > 1
    assert series[0].files == tuple(sorted((path / "step0").glob("*.safetensors")))
    assert series[0].size_bytes == sum(f.stat().st_size for f in series[0].files)


def test_the_whole_file_counts_where_an_index_stands_beside_it(hf_series):
    path = hf_series("gpt2", 1, n_embd=8, n_layer=1, n_head=1) / "step0"
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    (only,) = open_series(path)
    assert only.files == (path / "model.safetensors",)


def test_symlinked_weights_and_folders_are_read(hf_series, tmp_path):
    path = hf_series("gpt2", (5,), n_embd=8, n_layer=1, n_head=1)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (path / "step5" / "model.safetensors").rename(blobs / "abc")
    (path / "step5" / "model.safetensors").symlink_to(blobs / "abc")
    (tmp_path / "link").symlink_to(path)
    series = open_series(tmp_path / "link")
    assert series.steps == (5,)
    assert series[0].size_bytes == (blobs / "abc").stat().st_size


def test_slicing_and_nearest(tmp_path):
    series = open_series(write_lab_series(tmp_path / "s", (0, 10, 20, 40)))
    assert len(series) == 4
    assert [c.step for c in series] == [0, 10, 20, 40]
    assert series[1].step == 10
    assert series[-1].step == 40
    part = series[1:3]
    assert (type(part), part.steps, part.path) == (type(series), (10, 20), series.path)
    assert series.at(20) is series[2]
    assert series.nearest(33).step == 40
    assert series.nearest(15).step == 10  # the earlier of two equally close
    assert series.nearest(10**9).step == 40
    with pytest.raises(CheckpointError, match=r"step 25 is not in .*4 checkpoints, 0-40.*nearest: 20, 40"):
        series.at(25)
    for ask in (lambda s: s.at(0), lambda s: s.nearest(0), lambda s: s.select("all")):
        with pytest.raises(CheckpointError, match="contains no checkpoint"):
            ask(series[4:])


STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 9000)


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ("512", (512,)),
        ("1k", (1000,)),
        ("0,512, 8K", (0, 512, 8000)),
        ("1k..8k", (1000, 2000, 4000, 8000)),
        ("..2", (0, 1, 2)),
        ("8k..", (8000, 9000)),
        ("first", (0,)),
        ("last", (9000,)),
        ("all", STEPS),
        ("every:5", (0, 16, 512, 9000)),
        ("nearest:3000", (2000,)),
        ("nearest:3001", (4000,)),
        ("nearest:0.002m", (2000,)),
        ("log:1", (9000,)),
        ("log:2", (0, 9000)),
        ("log:3", (0, 128, 9000)),
        ("log:99", STEPS),
        ("0,last,nearest:500,1k..2k", (0, 512, 1000, 2000, 9000)),
    ],
)
def test_step_specifications(spec, steps):
    from byrote.checkpoints.steps import parse_steps

    assert parse_steps(spec, STEPS, where="here") == frozenset(steps)


def test_log_spacing_spreads_and_keeps_both_ends():
    from byrote.checkpoints.steps import parse_steps

    chosen = sorted(parse_steps("log:6", range(10001), where="here"))
    assert (len(chosen), chosen[0], chosen[-1]) == (6, 0, 10000)
    ratios = [(b + 1) / (a + 1) for a, b in pairwise(chosen)]
    assert max(ratios) / min(ratios) < 1.2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("3000", "step 3000 is not in here .*nearest are 2000 and 4000; or use nearest:3000"),
        ("5k..7k", "matches no step in here"),
        ("8k..1k", "matches no step"),
        ("", "is not a step specification"),
        ("soon", "is not a step specification"),
        ("log:many", "is not a step specification"),
        ("-5", "is not a step specification"),
        ("1..x", "is not a step specification"),
        ("0,,1", "is not a step specification"),
    ],
)
def test_step_specifications_refused(spec, words):
    from byrote.checkpoints.steps import parse_steps

    with pytest.raises(CheckpointError, match=words):
        parse_steps(spec, STEPS, where="here")


def test_a_step_is_a_whole_number_or_its_words(lab_series):
    series = open_series(lab_series((0, 4, 8, 1000)))
    assert [series.nearest(s).step for s in (5, "7", "0.9k")] == [4, 8, 1000]
    assert series.at("1k").step == 1000
    assert (step_of(6.0), step_of(np.int64(9))) == (6, 9)
    for wrong in ("soon", 2.5, float("nan"), float("inf"), True, None):
        with pytest.raises(CheckpointError, match="is not a training step"):
            step_of(wrong)


def test_select_keeps_gaps_and_order(lab_series):
    series = open_series(lab_series((0, 4, 8, 16)))
    assert series.select("last,0").steps == (0, 16)
    assert series.select(None) is series


def test_opening_a_series_imports_no_torch(lab_series, hf_series, run_python):
    paths = [lab_series(2), hf_series("gpt2", 2, shard_size="20KB", trainer_state=True)]
    code = (
        "import sys\nfrom checkpoints import open_series\n"
        "from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes\n"
        "for path in sys.argv[1:]:\n"
        "    series = open_series(path)\n"
        "    assert len(series.select('last')) == 1 and len(fingerprint(tensor_hashes(series[0]))) == 32\n"
        "print([m for m in ('torch', 'transformers', 'safetensors', 'pandas') if m in sys.modules])"
    )
    assert run_python(code, *map(str, paths)) == "[]"
