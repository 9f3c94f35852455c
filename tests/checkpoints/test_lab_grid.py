"""Grids: what a file may say, what is planned and trained together, and that it ends in the same bytes however it got there."""

from __future__ import annotations

import fnmatch
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig
from byrote.checkpoints.lab import stack as lab_stack
from byrote.checkpoints.lab.config import about_as_many
from byrote.checkpoints.lab.grid_cost import Tried, cost_of
from byrote.checkpoints.lab.grid_training import status, train_grid
from byrote.checkpoints.lab.model import build_model
from byrote.checkpoints.lab.run_grid import Plan, grid_file, grid_from, read_grid, shipped_grids
from byrote.checkpoints.lab.source import ArmStream
from byrote.checkpoints.lab.together import stacks_of

ROOT = Path(__file__).parents[2]
TEXT = """
recipe = "tiled-small"
seeds = [3, 5]
checkpoints = 5

[settings]
steps = 30
batch = 4
d_model = 8
n_held_out = 8
[settings.source]
d_vocab = 16
n_ctx = 12
block_min = 3
block_max = 4

[arms.unique]
[arms.half]
kind = "control"
repeat_frac = 0.5
control = "unique"
[arms.P3]
kind = "repeated"
repeat_frac = 0.5
pool_size = 3
control = "half"
"""


class Killed(BaseException):
    """Stands for the process ending: nothing may catch it."""


@pytest.fixture
def grid(tmp_path) -> Path:
    file = tmp_path / "grid.toml"
    file.write_text(TEXT)
    return file


def contents(path: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(".lock")}


def test_members_are_compared_with_those_that_are_never_planted():
    """Such an arm needs no other as its control; together with one that does, it does."""
    planted = {"kind": "planted", "most": 2, "per_count": 1}
    only = {"recipe": "tiled-small", "arms": {"planted": planted}}
    assert [run.control for run in grid_from(only).plan().runs] == [""]
    both = {"parts": [planted, {"kind": "noisy"}]}
    with pytest.raises(ByroteError, match="the arm 'planted' names no control"):
        grid_from({**only, "arms": {"planted": both}})


def test_the_grid_of_the_founding_paper():
    assert "hernandez" in shipped_grids()
    plan = read_grid(grid_file("hernandez")).plan()
    assert len(plan.runs) == 55
    assert plan.steps == 55 * 2400
    assert plan.n_checkpoints == 55 * 20
    pools = {run.arm: (run.config.arm.kind, run.config.arm.pool_size, run.control) for run in plan.runs}
    assert pools["none"] == ("unique", 0, "")
    assert pools["half"][0] == "control"
    assert {arm: pool for arm, (kind, pool, _) in pools.items() if kind == "repeated"} == {
        f"P{pool}": pool for pool in (512, 128, 64, 32, 16, 8, 4, 2, 1)
    }
    one = plan.runs[7].config
    assert (one.d_model, one.n_heads, one.normalization_type, one.batch) == (16, 1, None, 16)
    assert (one.init_std, one.lr, one.betas, one.weight_decay) == (0.8 / 16**0.5, 1e-2, (0.9, 0.98), 0.01)
    assert [sorted(map(len, plan.stacks)), sum(map(len, plan.stacks))] == [[13, 14, 14, 14], 55]


def test_make_demo_trains_the_demo_and_sweeps_every_run_of_it():
    plan = read_grid(grid_file("demo")).plan()
    arms = {run.arm: (run.config.arm.kind, run.control, run.needs != ()) for run in plan.runs}
    assert arms == {
        "unique": ("unique", "", False), "control": ("control", "unique", False),
        "repeated": ("repeated", "control", False), "synthetic": ("synthetic", "control", True),
    }  # fmt: skip
    assert sorted(map(len, plan.stacks)) == [2, 3, 3, 4, 4, 4]  # so that two cores have work
    assert len(plan.runs) == 4 * 5 and min(run.config.n_heads for run in plan.runs) >= 4
    commands = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert "byrote lab train runs/demo --grid demo" in commands
    (swept,) = re.findall(r"byrote run '(.+?)'", commands)
    assert all(fnmatch.fnmatchcase(f"runs/demo/{run.folder}", swept) for run in plan.runs)


def test_arms_of_a_seed_share_initial_weights_and_fresh_data():
    runs = [run for run in grid_from(tomllib.loads(TEXT)).plan().runs if run.seed == 5]
    assert [run.folder for run in runs] == ["unique/d8/seed5", "half/d8/seed5", "P3/d8/seed5"]
    weights = [build_model(run.config).state_dict()["head.weight"] for run in runs]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    batches = [ArmStream(run.config.source, run.config.arm, seed=5, batch=4).batches(7, 2) for run in runs]
    assert np.array_equal(batches[0][:, :2], batches[1])
    assert np.array_equal(batches[0][:, :2], batches[2][:, :2])


def test_what_trains_together_is_a_function_of_the_runs():
    small = LabConfig(d_model=16, n_heads=1, batch=16)
    wide = replace(small, d_model=64)
    configs = [
        *(replace(small, seed=k) for k in range(20)),
        wide,
        replace(small, steps=9, arm=Arm("control", 0.5)),
    ]
    stacks = stacks_of(configs)
    assert stacks == (tuple(range(10)), tuple(range(10, 20)), (20,), (21,))


@pytest.mark.parametrize(
    ("steps", "n", "expected"),
    [
        (2400, 20, (0, 19, 38, 75, 150, *range(300, 2401, 150))),
        (30, 5, (0, 5, 10, 20, 30)),
        (30, 2, (0, 30)),
        (3, 20, (0, 1, 2, 3)),
    ],
)
def test_checkpoints_by_their_number(steps, n, expected):
    assert about_as_many(steps, checkpoints=n) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed = 3", "the grid has a key 'seed'. did you mean 'seeds'"),
        ('recipe = "tiled"', "the lab has no recipe 'tiled'. did you mean 'tiled-small'"),
        ("seeds = 0", "seeds is 0. write how many, 1 to 1,000"),
        ("together = 17", "together is '17'. write the largest number of runs to train together, 1 to 16"),
        ("together = true", "together is 'True'"),
        ("seeds = [1, 1]", "no two are the same"),
        ("checkpoints = 1", "checkpoints is 1. use 2 to"),
        ('checkpoints = "many"', "checkpoints of the grid is 'many'. it is a whole number"),
        ("[settings]\nd_modle = 8", "[settings] has a key 'd_modle'. did you mean 'd_model'"),
        ("[settings]\nlr = true", "lr of [settings] is 'True'. it is a number"),
        ("[settings]\nlr = -1", "[settings]: lr is -1.0"),
        ("[settings]\nn_heads = 3", "3 heads do not divide a width of 64"),
        ('[settings]\nnormalization_type = "l"', "normalization_type = 'l'. did you mean 'ln'"),
        ('[settings.source]\nname = "tiled"', "the lab has no source 'tiled'"),
        ("[settings.source]\nd_vocab = 2", "the lab needs at least 3 token ids"),
        (
            "[arms.b]\nkind = 'repeated'\npool = 3",
            "[arms.b]: the arm repeated has no setting 'pool'. did you mean 'pool_size'",
        ),
        ("[arms.b]\nkind = 'twice'", "the lab has no arm 'twice'"),
        ("[arms.b]\nkind = 'repeated'", "the arm 'b' names no control"),
        (
            "[arms.b]\nkind = 'repeated'\ncontrol = 'aa'",
            "is 'aa', which is not another arm of the grid. did you mean 'a'",
        ),
        ("[arms.b]\nkind = 'unique'\nsettings = {batch = 8}", "the settings of the arm 'b' change batch"),
        (
            "[arms.b]\nkind = 'unique'\nsettings = {d_model = 8}",
            "the settings of the arm 'b' change the model",
        ),
        ("[arms.A]\nkind = 'unique'", "differ only in capitals"),
        ('[arms."../b"]\nkind = "unique"', "'../b' of [arms] is not a valid folder name"),
        ('[arms.results]\nkind = "unique"', "is not a valid folder"),
        (
            "[sizes.a]\n[sizes.b]\n[arms.b]\nkind = 'unique'\nsizes = ['bb']",
            "[arms.b] names a size 'bb'. did you mean 'b'",
        ),
        ("[arms.b]\nkind = 'unique'\nsizes = []", "sizes of [arms.b] is '[]'. list names of sizes"),
        (
            "[sizes.a]\n[sizes.b]\n[arms.c]\nkind = 'unique'\nsizes = ['b']\n[arms.d]\nkind = 'repeated'\npool_size = 4\ncontrol = 'c'",
            "the arm 'd' is trained at the size 'a', and 'c', which it needs there, is not. add 'a' to the sizes of 'c'",
        ),
        ("arms = 3", "[arms] is not a table"),
        (
            "seeds = 900\nsizes = {a = {}, b = {}, c = {}, d = {}, e = {}, f = {}, g = {}, h = {}, i = {}, j = {}, k = {}, l = {}}",
            "the grid has 10,800 runs",
        ),
    ],
)
def test_refusals(tmp_path, change, said):
    file = tmp_path / "grid.toml"
    ours = "" if change == "arms = 3" else '\n[arms.a]\nkind = "unique"\n'
    file.write_text(f"{change}\n{ours}")
    with pytest.raises(ByroteError) as refused:
        read_grid(file).plan()
    assert said in str(refused.value)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ByroteError, match=r"there is no grid 'hernandes'.*hernandez"):
        grid_file("hernandes")
    with pytest.raises(ByroteError, match="cannot be read"):
        read_grid(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("seeds = [")
    with pytest.raises(ByroteError):
        read_grid(tmp_path / "broken.toml")
    (tmp_path / "none.toml").write_text("seeds = 2")
    with pytest.raises(ByroteError, match="the grid has no arms"):
        read_grid(tmp_path / "none.toml")


def test_a_grid_is_trained_into_ordinary_series(tmp_path, grid):
    out, events = tmp_path / "out", []
    plan = train_grid(grid, out, jobs=1, on_event=events.append)
    assert isinstance(plan, Plan)
    for run in plan.runs:
        series = open_series(out / run.folder)
        assert series.steps == run.config.schedule == (0, 5, 10, 20, 30)
        assert series.name == f"{run.arm}-d8-seed{run.seed}"
        assert series.manifest["train"]["betas"] == [0.9, 0.98]
        assert series.manifest["status"] == "complete"
    assert events[-1] == {"event": "runs", "done": 6, "total": 6}
    assert {(state, step) for _, state, step in status(out)} == {("complete", 30)}
    before = contents(out)
    again: list = []
    train_grid(grid, out, jobs=1, on_event=again.append)
    assert not again
    assert contents(out) == before
    grid.write_text(TEXT.replace("steps = 30", "steps = 40"))
    with pytest.raises(ByroteError, match=r"train\.steps \(there 30, requested 40\)"):
        train_grid(grid, out, jobs=1)
    assert contents(out) == before


def test_stopped_at_random_moments_it_ends_in_the_same_bytes(tmp_path, grid, monkeypatch):
    monkeypatch.setattr(lab_stack, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setenv("BYROTE_SYNC", "0")
    train_grid(grid, tmp_path / "whole", jobs=1)
    real, draws, deaths = Path.replace, random.Random(1), 0
    left = draws.randrange(1, 60)

    def deadly(*args):
        nonlocal left, deaths
        left -= 1
        if left == 0 and deaths < 6:
            left, deaths = draws.randrange(1, 60), deaths + 1
            raise Killed
        return real(*args)

    monkeypatch.setattr(Path, "replace", deadly)
    for _ in range(7):
        try:
            train_grid(grid, tmp_path / "killed", jobs=1)
        except Killed:
            states = {state for _, state, _ in status(tmp_path / "killed")}
            assert states <= {"complete", "stopped", "missing"}
    assert deaths == 6
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_plan_says_what_it_takes(grid):
    plan = read_grid(grid).plan()
    cost = cost_of(plan, cores=2)
    (tried,) = cost.tried.values()
    assert tried.n_runs == 6
    assert 0 < tried.step_s < 1
    assert 6 * 5 * 2_000 < cost.n_bytes < 6 * 5 * 20_000


SAMPLING = (
    TEXT
    + """
[arms.syn]
kind = "synthetic"
share = 0.5
generator = "unique"
control = "unique"
[arms.syn-all]
kind = "synthetic"
share = 1.0
generator = "unique"
control = "unique"
"""
)


def test_a_plan_counts_what_arms_take_from_other_runs(monkeypatch):
    """By hand: 2 places of 31 batches are 62 samples, 4 are 124; in blocks of 50 that is 3 at most, for each of two seeds."""
    tried = Tried(n_runs=6, step_s=0.5, written_s=0.0, checkpoint_bytes=0.0, other_bytes=0.0)
    monkeypatch.setattr("byrote.checkpoints.lab.grid_cost._try", lambda configs, folder: tried)
    monkeypatch.setattr(
        "byrote.checkpoints.lab.grid_cost._made", lambda trials, config, part: (50, 7.0, 10.0)
    )
    cost = cost_of(grid_from(tomllib.loads(SAMPLING)).plan(), cores=8)
    assert cost.making_s == 2 * 3 * 7
    # unique, half and P3 train first, all six together; then both arms that sample, four runs of that shape together
    assert cost.seconds == pytest.approx(30 * 0.5 + (4 / 6) * 30 * 0.5 + 42)
    log = 10 * 64 * 30 / 10
    assert cost.n_bytes == pytest.approx(2 * (62 + 124) * 10 + log)


STORING = """
recipe = "names"
seeds = 1
checkpoints = 2
settings = {steps = 30, batch = 4}
[arms.unique]
kind = "unique"
[arms.rephrased]
kind = "rephrased"
share = 0.5
pool_size = 3
phrasings = 5
control = "unique"
[arms.asked]
kind = "questions"
corpus = 40
control = "unique"
[arms.grown]
kind = "generation"
regime = "accumulate"
iterations = 3
corpus = 20
generator = "unique"
control = "unique"
[arms.more]
kind = "continued"
initial = "unique"
control = "unique"
"""


def test_a_plan_counts_the_bytes_of_what_is_made_before_training(monkeypatch):
    """By hand: 3 x 5 phrasings and 40 documents, a byte a token; blocks of 20 samples of 10 bytes: real data beside 1, 2 and 3."""
    tried = Tried(n_runs=7, step_s=0.5, written_s=0.0, checkpoint_bytes=1000.0, other_bytes=0.0)
    monkeypatch.setattr("byrote.checkpoints.lab.grid_cost._try", lambda configs, folder: tried)
    monkeypatch.setattr(
        "byrote.checkpoints.lab.grid_cost._made", lambda trials, config, part: (20, 7.0, 10.0)
    )
    plan = grid_from(tomllib.loads(STORING)).plan()
    width = 1 + plan.runs[0].config.source.n_ctx
    written, log, weights = 1000 * plan.n_checkpoints, 7 * 64 * 30 / 10, 1000
    by_hand = (15 + 40) * width + 10 * 20 * (2 + 3 + 4) + weights
    assert cost_of(plan, cores=1).n_bytes == pytest.approx(written + log + by_hand)


def test_samples_are_tried_with_a_run_of_a_few_steps():
    cost = cost_of(grid_from(tomllib.loads(SAMPLING)).plan(), cores=1)
    assert 0 < cost.making_s < cost.seconds


def test_an_arm_of_one_size_is_trained_at_no_other():
    text = (
        TEXT.replace("pool_size = 3", 'pool_size = 3\nsizes = ["b"]') + "[sizes.a]\n[sizes.b]\nd_model = 16\n"
    )
    plan = grid_from(tomllib.loads(text)).plan()
    assert sorted({(run.arm, run.size) for run in plan.runs}) == [
        ("P3", "b"), ("half", "a"), ("half", "b"), ("unique", "a"), ("unique", "b"),
    ]  # fmt: skip


@pytest.mark.processes
def test_processes_write_the_same_bytes_as_one(tmp_path, grid):
    many = TEXT.replace("seeds = [3, 5]", "seeds = 6")  # 18 runs: two stacks
    grid.write_text(many)
    train_grid(grid, tmp_path / "one", jobs=1)
    train_grid(grid, tmp_path / "two", jobs=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def n_written(out: Path) -> int:
    """Steps that the runs of a grid have written."""
    return len(list(out.glob("*/*/*/step_*")))


def killed(command: list[str], out: Path, rng: random.Random) -> bool:
    """Whether all processes of a grid could be killed by the kernel, a moment after they wrote something new."""
    before = n_written(out)
    child = subprocess.Popen(command, start_new_session=True, cwd=out.parent)
    while n_written(out) <= before and child.poll() is None:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.3))
    alive = child.poll() is None
    if alive:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    return alive


@pytest.mark.processes
def test_kill_9_of_a_grid(tmp_path, grid):
    """Killed three times over; where a fast machine completes the grid before that, a grid twice as long is tried."""
    many, rng = TEXT.replace("seeds = [3, 5]", "seeds = 6"), random.Random(2)
    for steps in (4000 * 2**k for k in range(5)):
        grid.write_text(many.replace("steps = 30", f"steps = {steps}"))
        out = tmp_path / f"killed-{steps}"
        options = ["--grid", str(grid), "--jobs", "2", "-q"]
        command = [sys.executable, "-m", "byrote", "lab", "train", str(out), *options]
        if all(killed(command, out, rng) for _ in range(3)):
            break
    else:
        pytest.fail("every grid was complete before it could be killed three times")
    assert subprocess.run(command, check=False, cwd=tmp_path).returncode == 0
    train_grid(grid, tmp_path / "whole", jobs=1)
    found, expected = contents(out), contents(tmp_path / "whole")
    assert found.pop("results/byrote.toml")
    assert found == expected
