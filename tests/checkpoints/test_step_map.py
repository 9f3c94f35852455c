"""Layouts whose folders say no step: epochs, models called final, a file that says the steps; and half-written checkpoints."""

from __future__ import annotations

import json
import shutil

import pytest

from byrote.checkpoints import CheckpointError, open_runs, open_series

SMALL = {"n_embd": 8, "n_layer": 1, "n_head": 1}


@pytest.fixture
def layout(hf_series, tmp_path):
    """`layout("epoch_1", "final", trained={"final": 30})`: model folders of these names, with a Trainer's step where given."""

    def make(*names: str, trained: dict[str, int] | None = None):
        made = hf_series("gpt2", len(names), folder="named-by-step", **SMALL)
        run = tmp_path / "run"
        run.mkdir()
        for name, folder in zip(names, sorted(made.iterdir()), strict=True):
            folder.rename(run / name)
            state = run / name / "trainer_state.json"
            state.unlink(missing_ok=True)
            if name in (trained or {}):
                state.write_text(json.dumps({"global_step": trained[name], "log_history": []}))
        return run

    return make


def refused(path, **options) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_series(path, **options)
    assert caught.value.help
    return caught.value


@pytest.mark.parametrize("as_file", ["json", "toml", None])
def test_a_map_says_the_steps(layout, tmp_path, as_file):
    run = layout("step10", "warm", "final")
    steps = {"warm": 5, "final": 20}
    given = steps
    if as_file:
        given = tmp_path / f"steps.{as_file}"
        lines = "".join(f"{name} = {step}\n" for name, step in steps.items())
        given.write_text(json.dumps(steps) if as_file == "json" else lines)
    for series in (open_series(run, step_map=given), open_runs(run, step_map=given)[0]):
        assert (series.name, series.format, series.steps) == ("run", "hf", (5, 10, 20))
        assert [one.path.name for one in series] == ["warm", "step10", "final"]
    assert open_series(run).steps == (10,)


def test_a_map_of_files(layout, tmp_path):
    run = layout("a")
    (run / "a" / "model.safetensors").rename(run / "early.safetensors")
    (run / "a" / "config.json").rename(run / "config.json")
    shutil.rmtree(run / "a")
    shutil.copy(run / "early.safetensors", run / "late.safetensors")
    assert "is unknown" in refused(run).message
    series = open_series(run, step_map={"early.safetensors": 1, "late.safetensors": 7})
    assert (series.format, series.steps, series.gaps) == ("state_dict", (1, 7), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "names no checkpoint"),
        ('{"final": "10"}', "the step of 'final' is '10'"),
        ('{"final": true}', "the step of 'final' is True"),
        ('{"final": -1}', "the step of 'final' is -1"),
        ('{"final": 1, "warm": 2, "step10": 1}', "are both step 1"),
        ('{"../final": 1}', "not a path inside the series"),
        ('{"/final": 1}', "not a path inside the series"),
        ('{"finale": 1}', "names 'finale', which is not in"),
    ],
)
def test_a_map_that_cannot_be_used(layout, tmp_path, text, words):
    run = layout("final", "warm", "step10")
    (tmp_path / "map.json").write_text(text)
    error = refused(run, step_map=tmp_path / "map.json")
    assert words in error.message
    assert words[:5] != "names" or "map names" not in error.message or "did you mean 'final'?" in error.help


def test_a_map_belongs_to_one_folder(layout):
    run = layout("a", "b")
    with pytest.raises(CheckpointError, match="belongs to one folder"):
        open_runs([run / "a", run / "b"], step_map={"x": 1})


def test_a_mapped_checkpoint_that_cannot_be_read_is_a_gap(layout):
    run = layout("warm", "final")
    (run / "final" / "model.safetensors").rename(
        run / "final" / "training_args.bin"
    )  # what the Trainer writes beside
    series = open_series(run, step_map={"warm": 1, "final": 2})
    assert series.steps == (1,)
    assert [(gap.step, gap.path.name) for gap in series.gaps] == [(2, "final")]
    assert series.gaps[0].reason.startswith("half-written: no weights")


def test_epochs_stand_for_steps_and_that_is_said(layout):
    run = layout("epoch_1", "epoch_2", "final")
    (series,) = open_runs(run)
    assert series.steps == (1, 2)
    assert "named by epochs, which are used as steps here; --step-map FILE" in series.notes[0]
    assert "final was left out: its step is unknown" in series.notes[1]
    assert open_series(run, step_map={"epoch_1": 50, "epoch_2": 100, "final": 150}).steps == (50, 100, 150)


def test_epochs_whose_trainer_wrote_the_step(layout):
    run = layout("epoch-0", "epoch-1", "final", trained={"epoch-0": 40, "epoch-1": 80, "final": 90})
    series = open_series(run)
    assert (series.steps, series.notes) == ((40, 80, 90), ())
    (run / "epoch-1" / "trainer_state.json").unlink()
    assert open_series(run).steps == (0, 1)  # never both on one axis


def test_final_beside_steps(layout):
    run = layout("checkpoint-10", "checkpoint-20", "final", "best", trained={"final": 30, "best": 20})
    series = open_series(run)
    assert series.steps == (10, 20, 30)
    assert series.notes == ("best is step 20 again and was left out",)
    (run / "final" / "trainer_state.json").unlink()
    series = open_series(run)
    assert series.steps == (10, 20)
    assert series.notes[1] == "final was left out: its step is unknown; give it with --step-map FILE"


def test_a_folder_that_is_being_written(layout):
    run = layout("checkpoint-10", "tmp-checkpoint-20")
    series = open_series(run)
    assert (series.steps, series.gaps) == ((10,), ())
    assert series.notes == ("tmp-checkpoint-20 is half-written, as its name says, and was left out",)


@pytest.mark.parametrize("size", [0, 4, 200])
@pytest.mark.parametrize("pickled", [False, True])
def test_half_of_a_file(layout, size, pickled):
    run = layout("step1", "step2")
    weights = run / "step2" / "model.safetensors"
    if pickled:
        torch = pytest.importorskip("torch")
        torch.save({"a": torch.ones(100)}, run / "step2" / "pytorch_model.bin")
        weights.unlink()
        weights = run / "step2" / "pytorch_model.bin"
    with weights.open("r+b") as file:
        file.truncate(size if size < 200 else weights.stat().st_size - 50)
    (gap,) = open_series(run).gaps
    assert gap.reason.startswith("half-written: ") or (pickled and size == 4)
