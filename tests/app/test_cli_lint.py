"""`byrote lint`: facts on stdout, the finding in the exit code, the report beside the series."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from drifting_series import EVEN_STEPS, drift, write_series

from byrote.checkpoints import open_series
from byrote.checkpoints.lint import read_lint
from byrote.cli.session import Exit


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of two series: `good`, and `bad`, whose last step is a copy of step 300 and whose step 600 has NaN."""
    states = drift("llama", EVEN_STEPS)
    write_series(tmp_path / "runs" / "good", "llama", states)
    states[1200] = states[300]
    name = "model.layers.1.mlp.up_proj.weight"
    states[600] = {**states[600], name: states[600][name] * float("nan")}
    write_series(tmp_path / "runs" / "bad", "llama", states)
    return tmp_path / "runs"


def test_clean_series_exits_0_and_says_so(byrote, runs):
    done = byrote("lint", runs / "good", "--progress", "none")
    assert done.exit_code == Exit.DONE
    assert done.stdout.splitlines() == ["run,severity,kind,steps,leave_out,tensors,evidence,meaning"]
    assert done.stderr.splitlines() == ["good: nothing found; 13 of 13 steps usable"]


def test_findings_exit_1_and_name_the_steps(byrote, runs):
    done = byrote("lint", runs / "bad", "--json")
    assert done.exit_code == Exit.CHECK_FAILED
    found = {row["kind"]: row for row in json.loads(done.stdout)}
    assert found["final_equals_early"]["steps"] == [300, 1200]
    assert found["final_equals_early"]["leave_out"] == [1200]
    assert found["non_finite"]["tensors"] == ["model.layers.1.mlp.up_proj.weight"]
    assert found["non_finite"]["evidence"] == {"n_nan": 2048, "n_inf": 0, "n_tensors": 1}
    assert "bad: 2 errors; 11 of 13 steps usable" in done.stderr
    assert "bad: 13/13 · step 1,200" in done.stderr


def test_table_says_what_each_fact_would_mean(byrote, runs):
    done = byrote("lint", runs / "bad", "--table", "--quiet", COLUMNS="200")
    lines = done.stdout.splitlines()
    assert lines[0] == "bad: 2 errors; 11 of 13 steps usable"
    assert "final equals early" in done.stdout
    assert "300 1,200" in done.stdout
    assert "Training diverged or the file is damaged" in done.stdout
    assert done.stderr == ""


def test_report_is_kept_beside_the_series_unless_told_not_to(byrote, runs):
    byrote("lint", runs / "bad", "--no-write")
    assert sorted(p.name for p in runs.iterdir()) == ["bad", "good"]
    byrote("lint", runs)
    assert sorted(p.name for p in runs.iterdir()) == ["bad", "bad.lint.json", "good", "good.lint.json"]
    kept = read_lint(open_series(runs / "bad"))
    assert kept is not None
    assert sorted(kept.left_out) == [600, 1200]


def test_report_that_cannot_be_kept_is_a_note(byrote, runs):
    (runs / "good.lint.json").mkdir()
    done = byrote("lint", runs / "good")
    assert done.exit_code == Exit.DONE
    assert "good.lint.json cannot be written: the facts are not saved" in done.stderr


def test_step_that_cannot_be_read_is_a_finding(byrote, runs):
    file = runs / "good" / "step500" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    done = byrote("lint", runs / "good", "--json")
    assert done.exit_code == Exit.CHECK_FAILED
    (fact,) = json.loads(done.stdout)
    assert (fact["kind"], fact["steps"]) == ("unreadable", [500])


def test_run_that_cannot_be_opened_is_a_gap(byrote, runs):
    shutil.rmtree(runs / "bad")
    for step in EVEN_STEPS:
        if step:
            shutil.rmtree(runs / "good" / f"step{step}")
    shutil.copytree(runs / "good", runs / "broken")
    (runs / "broken" / "step0" / "config.json").write_text("{")
    done = byrote("lint", runs)
    assert done.exit_code == Exit.GAPS
    assert "broken" in done.stderr


def test_results_add_what_measuring_found(byrote, planted_runs, planted_results, tmp_path):
    shutil.copytree(planted_runs / "random", tmp_path / "random")
    done = byrote("lint", tmp_path / "random", "--results", planted_results, "--json")
    kinds = [row["kind"] for row in json.loads(done.stdout)]
    assert "loss_above_uniform" in kinds  # random weights never predict better than guessing
    refused = byrote("lint", tmp_path / "random", "--results", planted_results / "planted", "--json")
    assert refused.exit_code == Exit.USAGE
    assert "holds results of planted, not of random" in json.loads(refused.stderr)["error"]


def test_nothing_to_lint(byrote, tmp_path):
    (tmp_path / "empty").mkdir()
    assert byrote("lint", "empty").exit_code == Exit.NOTHING


def test_hostile_tensor_names_cannot_steer_a_terminal(byrote, runs):
    from safetensors.torch import load_file, save_file

    file = runs / "good" / "step500" / "model.safetensors"
    tensors = load_file(file)
    tensors["\x1b[31mred\u202e"] = tensors["lm_head.weight"].clone()
    save_file(tensors, file)
    for form in ("--table", "--csv"):
        done = byrote("lint", runs / "good", form)
        assert done.exit_code == Exit.CHECK_FAILED
        assert not any(c in done.stdout for c in "\x1b\u202e")


def test_what_lint_doubts_is_said_when_it_is_measured_and_shown(byrote, runs, tmp_path):
    byrote("lint", runs / "bad")
    done = byrote(
        "run", runs / "bad", "-p", "previous_token", "--steps", "500,600,1100,1200", "-o", tmp_path / "out"
    )
    assert "lint leaves out step 1,200: final equals early" in done.stderr
    shown = byrote("show", tmp_path / "out" / "bad", "--step", "1200")
    assert "lint leaves out step 1,200" in shown.stderr
    assert "lint asks" not in byrote("show", tmp_path / "out" / "bad", "--step", "1100").stderr
