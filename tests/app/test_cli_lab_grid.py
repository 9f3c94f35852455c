"""`byrote lab plan`, `lab train --grid` and `lab status` as a person calls them, and what of a grid is compared at once."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from byrote.checkpoints.lab.run_grid import read_grid
from byrote.probes.lab_grid import declare_grid
from byrote.probes.results.run_facts import facts_of

TEXT = """
seeds = 2
checkpoints = 3
settings = {steps = 12, batch = 4, d_model = 8, n_held_out = 8, source = {d_vocab = 16, n_ctx = 12, block_min = 3, block_max = 4}}
[arms.unique]
[arms.P3]
kind = "repeated"
repeat_frac = 0.5
pool_size = 3
control = "unique"
"""


@pytest.fixture
def grid(byrote) -> Path:
    file = byrote.folder / "grid.toml"
    file.write_text(TEXT)
    return file


def test_a_grid_from_plan_to_comparison(byrote, grid):
    done = byrote("lab", "plan", "grid.toml", "--jobs", "2")
    assert done.exit_code == 0
    assert "4 runs: 2 arms, 1 size, 2 seeds; 48 steps, 12 checkpoints, trained in 1 stack" in done.stdout
    assert "P3: 50% of the data repeated, from a pool of 3, against unique" in done.stdout
    assert "on 2 cores, and" in done.stdout and "4 runs together" in done.stdout
    assert not (byrote.folder / "out").exists()
    done = byrote("lab", "train", "out", "--grid", "grid.toml")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "out\n"
    assert "4/4 runs complete" in done.stderr
    assert "next: byrote run 'out/*/*/*' -o out/results" in done.stderr
    rows = json.loads(byrote("lab", "status", "out", "--json").stdout)
    assert [(row["run"], row["state"], row["last_step"]) for row in rows] == [
        (f"{arm}-d8-seed{k}", "complete", 12) for arm in ("unique", "P3") for k in (0, 1)
    ]
    assert "4 runs, 4 complete" in byrote("lab", "status", "out", "-t").stdout
    measured = byrote(
        "run",
        "out/*/*/*",
        "-p",
        "previous_token",
        "--sequences",
        "8",
        "-o",
        "out/results",
        "--progress",
        "none",
    )
    assert measured.exit_code == 0, measured.stderr
    arms = [f"{arm}=out/results/{arm}-*" for arm in ("unique", "P3")]
    compared = byrote("compare", "--group", arms[0], "--group", arms[1], "--json")
    assert compared.exit_code == 0, compared.stderr


def test_what_a_grid_declares_is_read(tmp_path, grid):
    declare_grid(read_grid(grid).plan(), tmp_path)
    facts = facts_of("P3-d8-seed1", tmp_path / "results" / "P3-d8-seed1", {})
    assert (facts.arm, facts.seeds, facts.repeat_frac, facts.pool, facts.epochs) == (
        "P3",
        (1, 1),
        0.5,
        3,
        8.0,
    )
    facts = facts_of("unique-d8-seed0", tmp_path / "results" / "unique-d8-seed0", {})
    assert (facts.arm, facts.seeds, facts.repeat_frac) == ("unique", (0, 0), 0.0)
    sizes = TEXT.replace("[arms.unique]", "[sizes.a]\n[sizes.b]\nlr = 0.1\n[arms.unique]")
    grid.write_text(sizes)
    declared = declare_grid(read_grid(grid).plan(), tmp_path)
    said = tomllib.loads(declared.read_text())["runs"]["P3-b-seed0"]
    assert (said["arm"], said["size"]) == ("P3 b", "b")
    facts = facts_of("P3-b-seed0", tmp_path / "results" / "P3-b-seed0", {})
    assert facts.arm_of_all_sizes == "P3"  # by which `byrote degrade` puts sizes together


def test_a_control_repeats_nothing(tmp_path, grid):
    """It is left with the unique share of what others repeat, so that it can be found to be the baseline."""
    grid.write_text(TEXT + '\n[arms.half]\nkind = "control"\nrepeat_frac = 0.5\n')
    declare_grid(read_grid(grid).plan(), tmp_path)
    facts = facts_of("half-d8-seed0", tmp_path / "results" / "half-d8-seed0", {})
    assert (facts.arm, facts.repeat_frac, facts.pool) == ("half", 0.0, None)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("lab", "train", "out", "--grid", "grid.toml", "--steps", "3"), "--steps is a setting of one run"),
        (("lab", "train", "out", "--grid", "hernandes"), "did you mean 'hernandez'?"),
        (("lab", "plan", "missing.toml"), "missing.toml cannot be read"),
        (("lab", "status", "elsewhere"), "holds no grid.toml"),
    ],
)
def test_refusals(byrote, grid, args, said):
    done = byrote(*args)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (byrote.folder / "out").exists()


def test_another_grid_in_the_same_folder_is_refused_and_fresh_replaces_it(byrote, grid):
    assert byrote("lab", "train", "out", "--grid", "grid.toml", "-q").exit_code == 0
    grid.write_text(TEXT.replace("steps = 12", "steps = 9"))
    done = byrote("lab", "train", "out", "--grid", "grid.toml")
    assert done.exit_code == 2
    assert "train.steps (there 12, requested 9)" in done.stderr and "--fresh" in done.stderr
    assert byrote("lab", "train", "out", "--grid", "grid.toml", "--fresh", "-q").exit_code == 0
    assert {row["last_step"] for row in json.loads(byrote("lab", "status", "out", "--json").stdout)} == {9}


def test_an_arm_made_from_another_run_is_named_with_its_settings(byrote):
    small = ("--recipe", "names", "--steps", "3", "--batch", "4", "--d-model", "8", "--heads", "1")
    assert byrote("lab", "train", "runs/human", *small).exit_code == 0
    words = ("--arm", "synthetic", "--arm-set", "share=0.5", "--arm-set", "generator=runs/human")
    done = byrote("lab", "train", "runs/mixed", *small, *words)
    assert done.exit_code == 0, done.stderr
    manifest = json.loads((byrote.folder / "runs/mixed/manifest.json").read_text())
    assert manifest["arm"]["parts"][0]["generator"] == "../human"
    assert manifest["inputs"][0]["run"] == "human"
    wrong = byrote(
        "lab", "train", "runs/other", *small, "--arm", "synthetic", "--arm-set", "generator=runs/humans"
    )
    assert wrong.exit_code != 0
    assert "there is no lab series" in wrong.stderr and "train it first" in wrong.stderr
    wrong = byrote("lab", "train", "runs/other", *small, "--arm", "synthetic", "--arm-set", "temprature=1")
    assert "did you mean 'temperature'" in wrong.stderr
