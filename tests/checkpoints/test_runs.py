"""Folders of runs, globs, lists of steps and stages become series, each with a name of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_models import write_hf_series, write_lab_series

from byrote.checkpoints import CheckpointError, open_runs, open_series

SMALL = {"n_embd": 8, "n_layer": 1, "n_head": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Three step folders to copy from."""
    return write_hf_series(tmp_path_factory.mktemp("models"), "gpt2", (0, 1, 2), **SMALL)


@pytest.fixture
def run(models, tmp_path):
    def write(path: str, *names: str) -> Path:
        for i, name in enumerate(names):
            shutil.copytree(models / f"step{i}", tmp_path / path / name)
        return tmp_path / path

    return write


def refused(ask, *args, **kwargs) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        ask(*args, **kwargs)
    assert caught.value.message
    assert caught.value.help
    return caught.value


def names(series) -> list[str]:
    return [one.name for one in series]


def test_one_series_is_a_list_of_one(run):
    path = run("a", "step1", "step2")
    (series,) = open_runs(path)
    assert (series.name, series.steps) == ("a", (1, 2))
    assert open_runs([str(path)]) == open_runs(str(path)) == [open_series(path)]


def test_a_folder_of_runs(run, tmp_path):
    run("runs/b", "checkpoint-1", "checkpoint-2")
    run("runs/a", "step1")
    write_lab_series(tmp_path / "runs" / "lab", (0, 5))
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "readme.txt").write_text("words")
    found = open_runs(tmp_path / "runs")
    assert names(found) == ["a", "b", "lab"]
    assert [s.format for s in found] == ["hf", "hf", "lab"]
    assert names(open_runs([tmp_path / "runs" / "b", tmp_path / "runs"])) == ["b", "a", "lab"]  # each once


def test_globs_of_runs(run, tmp_path):
    for name in ("unique-1", "unique-2", "repeated-1"):
        run(f"runs/{name}", "step1", "step2")
    assert names(open_runs(f"{tmp_path}/runs/unique-*")) == ["unique-1", "unique-2"]
    assert names(open_runs([f"{tmp_path}/runs/rep*", f"{tmp_path}/runs/unique-[12]"])) == [
        "repeated-1",
        "unique-1",
        "unique-2",
    ]
    assert names(open_runs(f"{tmp_path}/r*")) == ["repeated-1", "unique-1", "unique-2"]
    error = refused(open_series, f"{tmp_path}/runs/unique-*")
    assert "is a series of its own" in error.message
    assert "open_runs" in error.help
    assert open_series(f"{tmp_path}/runs/rep*").name == "repeated-1"


def test_a_name_with_glob_characters_that_exists_is_that_folder(run, tmp_path):
    path = run("run[1]", "step1")
    assert open_series(path).path == path
    assert names(open_runs(f"{path}")) == ["run[1]"]


def test_steps_of_one_series_as_glob_or_list(run):
    path = run("x", "checkpoint-10", "checkpoint-20", "checkpoint-30")
    whole = open_series(path)
    for steps in (
        f"{path}/checkpoint-*",
        [path / "checkpoint-20", path / "checkpoint-10", str(path / "checkpoint-30")],
    ):
        series = open_series(steps)
        assert (series.name, series.path, series.steps) == ("x", path, (10, 20, 30))
        assert series.checkpoints == whole.checkpoints
        assert [c.path for c in series] == [c.path for c in whole]
        assert open_runs(steps) == [series]
    assert open_series(f"{path}/checkpoint-[12]0").steps == (10, 20)
    assert open_series([path / "checkpoint-20"]).name == "checkpoint-20"


def test_steps_that_are_files(models, tmp_path):
    import torch
    from safetensors.torch import load_file

    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(models / "step1" / "config.json", flat)
    for step in (1, 2):
        torch.save(load_file(models / f"step{step}" / "model.safetensors"), flat / f"ckpt_{step}.pt")
    whole = open_series(flat)
    series = open_series(f"{flat}/ckpt_*.pt")
    assert (series.name, series.steps, series.checkpoints) == ("flat", (1, 2), whole.checkpoints)
    assert open_runs([flat / "ckpt_2.pt", flat / "ckpt_1.pt"]) == [series]
    assert open_series([flat / "ckpt_2.pt"]).steps == (2,)


def test_steps_of_two_runs_are_two_series(run, tmp_path):
    run("a", "step1", "step2")
    run("b", "step1", "step2", "step3")
    found = open_runs(f"{tmp_path}/?/step*")
    assert [(s.name, s.steps) for s in found] == [("a", (1, 2)), ("b", (1, 2, 3))]


def test_damaged_and_nameless_steps_in_a_list(run):
    path = run("x", "checkpoint-10", "checkpoint-20", "final")
    (path / "checkpoint-20" / "config.json").unlink()
    series = open_series([path / "checkpoint-10", path / "checkpoint-20", path / "final"])
    assert series.steps == (10,)
    assert [(gap.step, gap.path.name) for gap in series.gaps] == [(20, "checkpoint-20")]
    assert series.notes == ("final was left out: its training step is unknown",)
    (path / "checkpoint-10" / "config.json").unlink()
    assert "none of the steps named" in refused(open_series, f"{path}/checkpoint-*").message


def test_one_step_claimed_twice_in_a_list(run):
    path = run("x", "checkpoint-10", "step10", "step20")
    series = open_series(f"{path}/*")
    assert series.steps == (20,)
    assert {gap.path.name for gap in series.gaps} == {"checkpoint-10", "step10"}


def test_stages(run):
    path = run("olmo", "stage1-step1-tokens1B", "stage1-step2-tokens2B", "stage2-ingredient1-step1-tokens1B")
    error = refused(open_series, path)
    assert "2 parts of a training" in error.message
    assert f"{path}@stage1" in error.help
    for series in (open_series(path, part="stage1"), open_series(f"{path}@stage1"), open_runs(path)[0]):
        assert (series.name, series.steps, series.tokens_seen) == ("olmo-stage1", (1, 2), (10**9, 2 * 10**9))
    assert names(open_runs(path)) == ["olmo-stage1", "olmo-stage2-ingredient1"]
    assert names(open_runs(path.parent)) == names(open_runs(f"{path}/*")) == names(open_runs(path))
    assert names(open_runs(f"{path}@stage2-ingredient1")) == ["olmo-stage2-ingredient1"]
    assert open_series(f"{path}/stage1-*").steps == (1, 2)
    assert "did you mean 'stage1'" in refused(open_series, path, part="stage9").help
    assert "parts of a training" in refused(open_series, f"{path}/*").message


def test_a_part_of_a_training_without_stages(run):
    path = run("plain", "step1")
    error = refused(open_series, path, part="stage1")
    assert "has no part 'stage1'" in error.message
    assert "name no stages" in error.help


def test_bare_numbers(run):
    path = run("nanotron", "0512", "1000")
    series = open_series(path)
    assert series.steps == (512, 1000)
    assert "bare numbers" in series.notes[0]


def test_seeds_named_by_numbers_stay_runs(run, tmp_path):
    run("seeds/1", "step1", "step2")
    run("seeds/2", "step1", "step2")
    assert names(open_runs(tmp_path / "seeds")) == ["1", "2"]


def test_names_are_made_unique(run, tmp_path):
    paths = [run("unique/seed0", "step1"), run("repeated/seed0", "step1"), run("other", "step1")]
    assert names(open_runs(paths)) == ["unique-seed0", "repeated-seed0", "other"]
    deeper = [run("p/x/run", "step1"), run("q/x/run", "step1")]
    assert names(open_runs(deeper)) == ["x-run-1", "x-run-2"]
    write_lab_series(tmp_path / "m" / "tiny", (0,))
    shutil.copytree(
        tmp_path / "m" / "tiny", tmp_path / "n" / "copy"
    )  # its manifest still says tiny... or not
    found = open_runs([tmp_path / "m" / "tiny", tmp_path / "n" / "copy"])
    assert len(set(names(found))) == 2


def test_nothing_matches(run, tmp_path):
    run("runs/unique", "step1")
    run("runs/repeated", "step1")
    error = refused(open_runs, f"{tmp_path}/runs/uniqe*")
    assert "matches no folder" in error.message
    assert error.help == "did you mean 'unique'?"
    assert "does not exist" in refused(open_runs, f"{tmp_path}/rums/*").help
    assert "repeated, unique" in refused(open_series, f"{tmp_path}/runs/zzz*").help
    error = refused(open_runs, tmp_path / "runs" / "uniqe")
    assert error.help == "did you mean 'unique'?"
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused(open_runs, tmp_path / "empty").message
    assert "matches no folder" in refused(open_runs, f"{tmp_path}/empty/*").message
    for ask in (open_runs, open_series):
        assert "no path was given" in refused(ask, []).message


def test_a_broken_run_among_runs(run, tmp_path):
    run("runs/good", "step1")
    bad = run("runs/bad", "step1")
    (bad / "step1" / "model.safetensors").write_bytes(b"junk")
    refused(open_runs, tmp_path / "runs")
    broken = []
    assert names(
        open_runs(tmp_path / "runs", on_broken=lambda path, error: broken.append((path, error.message)))
    ) == ["good"]
    assert [path for path, _ in broken] == [bad]
    refused(open_runs, bad, on_broken=lambda path, error: None)  # named itself: always said


def test_formats_do_not_mix_in_a_list(run, tmp_path):
    path = run("x", "step1")
    lab = write_lab_series(tmp_path / "lab", (5,))
    assert "2 formats (hf, lab)" in refused(open_series, [path / "step1", lab]).message
