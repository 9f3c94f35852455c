"""Runs trained together are what they are alone, up to rounding, and end in the same bytes wherever they were stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train
from byrote.checkpoints.lab import stack as lab_stack
from byrote.checkpoints.lab.model import build_model, learning_rate, mean_loss
from byrote.checkpoints.lab.source import ArmStream
from byrote.checkpoints.lab.sources import Markov
from byrote.checkpoints.lab.stack import TrainedStack, padded, train_stack

FIELDS = {
    "source": SourceConfig(d_vocab=16, n_ctx=12, block_min=3, block_max=4),
    "d_model": 8,
    "n_heads": 2,
    "d_head": 4,
    "batch": 4,
    "n_held_out": 8,
    "lr": 1e-2,
}
ARMS = (Arm(), Arm("repeated", 0.5, 3), Arm("control", 0.5))


class Killed(BaseException):
    """Stands for the process ending: nothing may catch it."""


def stack_of(folder: Path, **fields) -> list[tuple[Path, LabConfig]]:
    """One run of each arm, with seeds of their own."""
    return [
        (folder / f"run{k}", LabConfig(**{**FIELDS, **fields}, arm=arm, seed=k, name=f"run{k}"))
        for k, arm in enumerate(ARMS)
    ]


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def same(path: Path, reference: dict[str, bytes]) -> None:
    found = {name: data for name, data in contents(path).items() if not name.endswith(".lock")}
    assert found.keys() == reference.keys()
    assert [name for name in found if found[name] != reference[name]] == []


def trained(folder: Path, **fields) -> dict[str, bytes]:
    train_stack(stack_of(folder, **fields), state=folder / ".state")
    return {name: data for name, data in contents(folder).items() if not name.endswith(".lock")}


@pytest.mark.parametrize(
    "shape",
    [{}, {"attn_only": False, "normalization_type": "LN"}],
    ids=["attention only, no norm", "MLP, LN"],
)
def test_fifty_steps_are_those_of_single_runs(tmp_path, shape):
    runs = stack_of(tmp_path / "together", steps=50, every=20, warmup_steps=10, **shape)
    events = []
    train_stack(runs, state=tmp_path / "together" / "state", on_event=events.append)
    assert [e["step"] for e in events if e["event"] == "checkpoint"] == list(runs[0][1].schedule)
    for path, config in runs:
        alone = train(tmp_path / "alone" / path.name, config)
        series = open_series(path)
        assert series.steps == config.schedule
        assert not series.notes
        first = f"step_{0:08d}/model.safetensors"
        assert (path / first).read_bytes() == (alone / first).read_bytes()
        for step in config.schedule:
            one, other = (load_file(p / f"step_{step:08d}" / "model.safetensors") for p in (path, alone))
            assert list(one) == list(other)
            assert max((one[name] - other[name]).abs().max().item() for name in one) < 1e-5
        assert contents(path / "data") == contents(alone / "data")
        assert (path / "config.json").read_bytes() == (alone / "config.json").read_bytes()
        logs = [
            [json.loads(line) for line in (p / "log.jsonl").read_text().splitlines()] for p in (path, alone)
        ]
        assert len(logs[0]) == len(logs[1]) == 5
        for mine, theirs in zip(*logs, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
        manifests = [json.loads((p / "manifest.json").read_text()) for p in (path, alone)]
        listed = [manifest.pop("checkpoints") for manifest in manifests]
        assert manifests[0] == manifests[1]
        for mine, theirs in zip(*listed, strict=True):
            assert list(mine) == list(theirs)
            for name in ("weights", "moments", "folder"):
                mine.pop(name), theirs.pop(name)
            by_mechanism = mine.pop("mechanism_loss_nats"), theirs.pop("mechanism_loss_nats")
            assert by_mechanism[0] == pytest.approx(by_mechanism[1], abs=1e-5)
            pools = mine.pop("pool_loss_nats"), theirs.pop("pool_loss_nats")
            assert (pools[0] is None) == (pools[1] is None) == (config.arm.kind != "repeated")
            assert pools[0] is None or pools[0] == pytest.approx(pools[1], abs=1e-5)
            assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(
    "shape",
    [{}, {"attn_only": False, "normalization_type": "LN"}],
    ids=["attention only, no norm", "MLP, LN"],
)
def test_in_float64_they_are_single_runs_to_the_end(shape):
    configs = [config for _, config in stack_of(Path(), steps=100, warmup_steps=10, **shape)][1:]
    streams = [ArmStream(c.source, c.arm, seed=c.seed, batch=c.batch) for c in configs]
    batches = [torch.from_numpy(stream.batches(0, 100)) for stream in streams]
    stack = TrainedStack(configs, dtype=torch.float64)
    stack.set_moments(step=0, saved={})
    wide, share = padded([stream.drawn(0, 100) for stream in streams])
    for step, batch in enumerate(wide):
        stack.update(batch, share[step], rate=learning_rate(configs[0], step))
    for run, config in enumerate(configs):
        model = build_model(config).double()
        moving = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(moving, weight_decay=config.weight_decay)
        for step, batch in enumerate(batches[run]):
            optimizer.param_groups[0]["lr"] = learning_rate(config, step)
            optimizer.zero_grad()
            mean_loss(model, batch).backward()
            optimizer.step()
        moved = model.state_dict()["head.weight"] - build_model(config).state_dict()["head.weight"]
        assert moved.abs().max() > 0.1
        for name, weight in stack.model.state_dict(run).items():
            assert (weight - model.state_dict()[name]).abs().max() < 1e-8


def test_stopped_at_any_write_they_end_in_the_same_bytes(tmp_path, monkeypatch):
    """Every rename is a place to die; some of them are tried."""
    monkeypatch.setattr(lab_stack, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setenv("BYROTE_SYNC", "0")
    reference = trained(tmp_path / "whole", steps=5, every=3)
    countdown, real, renames = -1, Path.replace, 0

    def deadly(*args):
        nonlocal countdown, renames
        countdown, renames = countdown - 1, renames + 1
        if countdown == 0:
            raise Killed
        return real(*args)

    monkeypatch.setattr(Path, "replace", deadly)
    trained(tmp_path / "counted", steps=5, every=3)
    assert renames > 50
    for place in sorted(random.Random(0).sample(range(1, renames + 1), 9)):
        countdown, path = place, tmp_path / f"killed_{place}"
        with pytest.raises(Killed):
            trained(path, steps=5, every=3)
        trained(path, steps=5, every=3)
        same(path, reference)


def test_a_stack_goes_on_from_its_last_committed_step(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_stack, "COMMIT_EVERY_S", 0.0)
    reference = trained(tmp_path / "whole", steps=30, every=10)
    runs, events = stack_of(tmp_path / "s", steps=30, every=10), []

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 20:
            raise Killed

    with pytest.raises(Killed):
        train_stack(runs, state=tmp_path / "s" / ".state", on_event=stop)
    train_stack(runs, state=tmp_path / "s" / ".state", on_event=events.append)
    assert events[0] == {"event": "resumed", "step": 20}
    same(tmp_path / "s", reference)


def damaged_moments(folder: Path) -> None:
    data = bytearray((folder / ".state").read_bytes())
    data[-1] ^= 1
    (folder / ".state").write_bytes(data)


def damaged_weights(folder: Path) -> None:
    (folder / "run1" / "step_00000020" / "model.safetensors").write_bytes(b"something else")


def other_runs(folder: Path) -> None:
    other = [(folder.with_name("other") / p.name, replace(c, seed=9)) for p, c in stack_of(folder, steps=30)]
    with pytest.raises(Killed):
        train_stack(other, state=folder / ".state", on_event=_stop_at_once)


def _stop_at_once(event) -> None:
    if event["event"] == "checkpoint":
        raise Killed


@pytest.mark.parametrize("damage", [damaged_moments, damaged_weights, other_runs])
def test_what_cannot_be_resumed_is_trained_again_from_the_beginning(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(lab_stack, "COMMIT_EVERY_S", 0.0)
    reference = trained(tmp_path / "whole", steps=30, every=10)
    runs, events = stack_of(tmp_path / "s", steps=30, every=10), []

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 20:
            raise Killed

    with pytest.raises(Killed):
        train_stack(runs, state=tmp_path / "s" / ".state", on_event=stop)
    damage(tmp_path / "s")
    train_stack(runs, state=tmp_path / "s" / ".state", on_event=events.append)
    assert events[0]["event"] == "restarted"
    same(tmp_path / "s", reference)


def test_a_complete_run_is_left_alone_where_another_is_trained_again(tmp_path):
    reference = trained(tmp_path, steps=30, every=10)
    (tmp_path / "run1" / "manifest.json").unlink()
    for path in sorted((tmp_path / "run1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run0").rglob("*") if p.name != ".lock"}
    assert trained(tmp_path, steps=30, every=10) == reference
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_complete_stack_is_left_alone(tmp_path):
    trained(tmp_path, steps=4)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != ".lock"}
    events = []
    train_stack(stack_of(tmp_path, steps=4), state=tmp_path / ".state", on_event=events.append)
    assert not events
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != ".lock"} == before


def test_a_source_without_copies_has_no_copy_loss(tmp_path):
    seen = []
    runs = stack_of(tmp_path, steps=4, every=4, source=Markov(d_vocab=4, n_ctx=8))
    train_stack(runs, state=tmp_path / ".state", on_event=seen.append)
    written = [event for event in seen if event["event"] == "checkpoint"]
    assert [event["copy_loss_nats"] for event in written] == [None] * len(written)
    assert written and all(event["test_loss_nats"] > 0 for event in written)


def test_refusals(tmp_path):
    runs = stack_of(tmp_path, steps=4)
    with pytest.raises(ByroteError, match="2 shapes cannot be trained together"):
        train_stack([runs[0], (runs[1][0], replace(runs[1][1], batch=8))], state=tmp_path / ".state")
    with pytest.raises(ByroteError, match="with dropout cannot be trained together"):
        trained(tmp_path, steps=4, dropout=0.1)
    trained(tmp_path, steps=4)
    with pytest.raises(ByroteError, match=r"train\.steps \(there 4, requested 5\)"):
        trained(tmp_path, steps=5)
    with pytest.raises(ByroteError, match=r"run\d: training diverged: the loss at step"):
        wild = [(p, replace(c, lr=1e30)) for p, c in stack_of(tmp_path / "d", steps=30, warmup_steps=0)]
        train_stack(wild, state=tmp_path / "d" / ".state")


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/checkpoints")
from test_lab_stack import lab_stack, stack_of, train_stack
lab_stack.COMMIT_EVERY_S = 0.0
def say(event):
    if event["event"] == "checkpoint" and event["step"] == 50:
        print("go", flush=True)
path = Path(sys.argv[1])
train_stack(stack_of(path, steps=200, every=25), state=path / ".state", on_event=say)
"""


@pytest.mark.processes
def test_kill_9(tmp_path):
    """A real process, ended by the kernel somewhere after step 50."""
    path = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    events = []
    train_stack(stack_of(path, steps=200, every=25), state=path / ".state", on_event=events.append)
    assert events[0]["event"] == "resumed"
    assert events[0]["step"] >= 50
    same(path, trained(tmp_path / "whole", steps=200, every=25))
