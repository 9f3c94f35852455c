"""Everything that can be wrong with a folder is a CheckpointError or a listed gap, with what to do about it."""

from __future__ import annotations

import json
import re
import shutil
import struct

import pytest

from byrote.checkpoints import CheckpointError, open_series

SMALL = {"n_embd": 8, "n_layer": 1, "n_head": 1}


def refused(path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_series(path)
    assert caught.value.message
    assert caught.value.help
    return caught.value


def test_missing_path_suggests_the_nearest(hf_series, tmp_path):
    hf_series("gpt2", 1, folder="my-run", **SMALL)
    error = refused(tmp_path / "my-rum")
    assert (error.message, error.help) == (f"{tmp_path / 'my-rum'} does not exist", "did you mean 'my-run'?")
    assert "does not exist either" in refused(tmp_path / "no" / "such" / "place").help


def test_a_file_is_not_a_folder(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("x")
    error = refused(file)
    assert "is a file, not a folder" in error.message
    assert str(tmp_path) in error.help


def test_folders_that_hold_nothing_of_ours(tmp_path):
    assert "the folder is empty" in refused(tmp_path).message
    for name in "abcdefgh":
        (tmp_path / f"{name}.txt").write_text("hello")
    assert "(it holds a.txt, b.txt, c.txt, d.txt, e.txt, f.txt, ...)" in refused(tmp_path).message


def test_checkpoints_deeper_down_are_named(hf_series, tmp_path):
    hf_series("gpt2", 1, folder="logs/version_0/run", **SMALL)
    error = refused(tmp_path)
    assert error.help == f"there are some in {tmp_path / 'logs/version_0/run'}: name that folder"


def test_a_config_for_checkpoints_further_down_is_no_model(hf_series, tmp_path):
    series = hf_series("gpt2", 1, folder="version_0/checkpoints", **SMALL)
    shutil.copy(next(series.rglob("config.json")), tmp_path / "version_0")
    error = refused(tmp_path / "version_0")
    assert error.message == f"{tmp_path / 'version_0'} holds no weights itself"
    assert error.help == f"there are checkpoints in {series}: name that folder"


def test_results_of_a_second_training_are_not_step_2(tmp_path):
    for name in ("model", "model-2"):
        (tmp_path / "results" / name / "units").mkdir(parents=True)
        (tmp_path / "results" / name / "run.json").write_text("{}")
    assert refused(tmp_path).message == f"{tmp_path} holds results, not checkpoints"


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0byte"])
def test_names_no_file_system_takes(tmp_path, name):
    refused(tmp_path / name)


def text_file(path):
    path.write_text("these are not weights, whatever the name says, and there are quite a few words of it")


def header(entries: object, data: bytes = b"") -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD_WEIGHTS = {
    "text file": (text_file, "not a safetensors file"),
    "empty file": (lambda p: p.write_bytes(b""), "0 bytes, too short"),
    "few bytes": (lambda p: p.write_bytes(b"abc"), "3 bytes, too short"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-5]), "truncated|5 bytes"),
    "cut inside the header": (lambda p: p.write_bytes(p.read_bytes()[:60]), "cut short"),
    "bytes at the end": (lambda p: p.write_bytes(p.read_bytes() + b"\0" * 3), "3 bytes after its last tensor"),
    "lying shape": (lambda p: p.write_bytes(header({"w": {**F32, "shape": [3]}}, b"\0" * 8)), r"shape \[3\] of F32"),
    "huge shape": (lambda p: p.write_bytes(header({"w": {**F32, "shape": [2**62, 2**62]}}, b"\0" * 8)), "shape"),
    "negative shape": (lambda p: p.write_bytes(header({"w": {**F32, "shape": [-2]}}, b"\0" * 8)), "none negative"),
    "fractional shape": (lambda p: p.write_bytes(header({"w": {**F32, "shape": [2.5]}}, b"\0" * 8)), "whole"),
    "infinite shape": (lambda p: p.write_bytes(header(b'{"w":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}', b"\0" * 8)), "whole"),
    "backward offsets": (lambda p: p.write_bytes(header({"w": {**F32, "data_offsets": [8, 0]}}, b"\0" * 8)), "broken"),
    "a hole": (lambda p: p.write_bytes(header({"w": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12)), "holes"),
    "overlap": (lambda p: p.write_bytes(header({"v": F32, "w": F32}, b"\0" * 8)), "overlap"),
    "header is a list": (lambda p: p.write_bytes(header([1, 2])), "broken"),
    "header is deep": (lambda p: p.write_bytes(header(b"[" * 200_000)), "broken"),
    "entry is a number": (lambda p: p.write_bytes(header({"w": 3})), "broken"),
    "no dtype": (lambda p: p.write_bytes(header({"w": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8)), "broken"),
    "not UTF-8": (lambda p: p.write_bytes(header(b'{"\xff": 1}')), "broken"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    from tiny_models import write_hf_series

    return write_hf_series(tmp_path_factory.mktemp("good") / "run", "gpt2", (1, 2), **SMALL)


@pytest.fixture
def run(good_run, tmp_path):
    return shutil.copytree(good_run, tmp_path / "run")


@pytest.mark.parametrize("damage", BAD_WEIGHTS)
def test_damaged_weights_are_a_gap_and_the_rest_is_read(run, damage):
    spoil, words = BAD_WEIGHTS[damage]
    spoil(run / "step1" / "model.safetensors")
    series = open_series(run)
    assert series.steps == (2,)
    (gap,) = series.gaps
    assert (gap.step, gap.path) == (1, run / "step1")
    assert re.search(words, gap.reason), gap.reason
    assert gap.help
    alone = refused(run / "step1")
    assert gap.reason in alone.message


def gap_after(run, spoil) -> str:
    spoil(run / "step1")
    series = open_series(run)
    assert series.steps == (2,)
    (gap,) = series.gaps
    assert gap.step == 1
    assert gap.help
    return gap.reason


def _replace(name, data):
    return lambda folder: (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (_replace("config.json", "{not json"), "cannot be read as JSON"),
        (_replace("config.json", "[" * 200_000), "nested more than 64"),
        (_replace("config.json", [1]), "holds no JSON object"),
        (_replace("config.json", {}), "names no architecture"),
        (_replace("config.json", {"auto_map": {"AutoModel": "evil.Model"}, "model_type": "x"}), "run code"),
        (_replace("trainer_state.json", "{"), "trainer_state.json cannot be read"),
        (_replace("model.safetensors.index.json", {}), None),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "model.safetensors").rename(f / "weights.safetensors"), "not have Hugging Face file names"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "torch.save"),
    ],
)  # fmt: skip
def test_damaged_folders_are_gaps(run, spoil, words):
    if words is None:  # an index beside the whole file is not read at all
        spoil(run / "step1")
        assert open_series(run).steps == (1, 2)
        return
    assert words in gap_after(run, spoil)


def test_config_that_is_not_text(run):
    assert "cannot be read" in gap_after(run, lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00{"))


def test_a_directory_named_like_the_weights(run):
    def spoil(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").mkdir()

    assert "no weights" in gap_after(run, spoil)


def test_a_broken_link_instead_of_weights(run):
    def spoil(folder):
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to("/nowhere/at/all")

    assert "no weights" in gap_after(run, spoil)


def test_two_folders_claiming_one_step_are_both_left_out(run):
    shutil.copytree(run / "step1", run / "checkpoint-1")
    series = open_series(run)
    assert series.steps == (2,)
    assert [g.path.name for g in series.gaps] == ["checkpoint-1", "step1"]
    assert {g.reason for g in series.gaps} == {"2 folders claim step 1: checkpoint-1, step1"}


def test_a_folder_of_nothing_but_gaps(run):
    for step in (1, 2):
        (run / f"step{step}" / "model.safetensors").unlink()
    assert "none of the 2 checkpoint folders" in refused(run).message


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}},
         "1 of 2 shards are missing: model-00002-of-00002.safetensors"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ({}, "no weight_map"),
        ("[", "cannot be read as JSON"),
        ({"weight_map": {"a": "../../elsewhere.safetensors"}}, "points outside its folder"),
    ],
)  # fmt: skip
def test_damaged_indexes(run, index, words):
    def spoil(folder):
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        _replace("model.safetensors.index.json", index)(folder)

    assert words in gap_after(run, spoil)


@pytest.fixture
def lab(lab_series):
    return lab_series((0, 8))


def test_lab_step_without_weights_is_a_gap(lab):
    shutil.rmtree(lab / "step_00000008")
    series = open_series(lab)
    assert (series.steps, [g.step for g in series.gaps]) == ((0,), [8])


def test_lab_weights_cut_short_are_a_gap(lab):
    file = lab / "step_00000008" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    (gap,) = open_series(lab).gaps
    assert "truncated" in gap.reason


@pytest.mark.parametrize("config", [None, "{", "[]", '"text"'])
def test_lab_without_a_config_is_refused(lab, config):
    (lab / "config.json").unlink()
    if config is not None:
        (lab / "config.json").write_text(config)
    assert "config.json" in refused(lab).message


@pytest.mark.parametrize(
    "entry",
    [7, {}, {"step": 8}, {"folder": "step_00000008"}, {"step": "8", "folder": "step_00000008"},
     {"step": 8, "folder": "../../elsewhere"}],
)  # fmt: skip
def test_lab_manifest_entries_that_say_nothing_are_gaps(lab, entry):
    manifest = json.loads((lab / "manifest.json").read_text())
    manifest["checkpoints"][1] = entry
    (lab / "manifest.json").write_text(json.dumps(manifest))
    series = open_series(lab)
    assert series.steps == (0,)
    assert len(series.gaps) == 1


def test_lab_manifest_with_one_step_twice(lab):
    manifest = json.loads((lab / "manifest.json").read_text())
    manifest["checkpoints"].append({**manifest["checkpoints"][1], "folder": "step_00000000"})
    (lab / "manifest.json").write_text(json.dumps(manifest))
    series = open_series(lab)
    assert (series.steps, len(series.gaps)) == ((0,), 2)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "", 3, None])
def test_a_series_name_cannot_lead_out_of_the_results_folder(lab, name):
    manifest = json.loads((lab / "manifest.json").read_text())
    (lab / "manifest.json").write_text(json.dumps({**manifest, "name": name}))
    assert open_series(lab).name == lab.name


@pytest.mark.parametrize("manifest", ["{", "[]", '{"format": "other"}'])
def test_a_manifest_that_is_not_the_labs_is_no_lab_series(lab, manifest):
    (lab / "manifest.json").write_text(manifest)
    error = refused(lab)  # what is left looks like step folders of another kind, without a config each
    assert "none of the 2 checkpoint folders" in error.message
    assert "config.json is missing" in error.message
