"""Stopped anywhere and started again, training ends in the same bytes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train
from byrote.checkpoints.lab import folder as lab_folder
from byrote.checkpoints.lab import loop as lab_loop

FIELDS = {
    "source": SourceConfig(d_vocab=16, n_ctx=12, block_min=3, block_max=4),
    "d_model": 8,
    "n_heads": 2,
    "d_head": 4,
    "batch": 4,
    "n_held_out": 8,
    "arm": Arm("repeated", 0.5, 3),
    "name": "resumed",
}


class Killed(BaseException):
    """Stands for the process ending: nothing may catch it."""


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def same(path: Path, reference: dict[str, bytes]) -> None:
    found = contents(path)
    assert found.keys() == reference.keys()
    assert [name for name in found if found[name] != reference[name]] == []


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    config = LabConfig(**FIELDS, steps=30, every=10)
    reference = contents(train(tmp_path / "a", config))
    same(train(tmp_path / "b", config), reference)
    other = contents(train(tmp_path / "c", LabConfig(**FIELDS, steps=30, every=10, seed=1)))
    weights = "step_00000030/model.safetensors"
    assert other[weights] != reference[weights]


@pytest.mark.parametrize("seed", [0, 1])
def test_interrupted_at_random_steps(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(lab_loop, "EVENT_EVERY_S", 0.0)
    config = LabConfig(**FIELDS, steps=90, every=25)
    reference = contents(train(tmp_path / "whole", config))
    kills = iter(sorted(random.Random(seed).sample(range(1, 91), 6)))
    resumed_at, target = [], next(kills)

    def on_event(event):
        nonlocal target
        if event["event"] == "resumed":
            resumed_at.append(event["step"])
        if event["event"] == "step" and target is not None and event["step"] >= target:
            target = next(kills, None)
            raise Killed

    path = tmp_path / "killed"
    for _ in range(6):
        with pytest.raises(Killed):
            train(path, config, on_event=on_event)
    train(path, config, on_event=on_event)
    assert len(resumed_at) == 6
    assert max(resumed_at) >= 25
    same(path, reference)


def test_killed_at_every_write(tmp_path, monkeypatch):
    """Every rename and every removal of a run is a place to die; each is tried in turn."""
    config = LabConfig(**FIELDS, steps=5, every=3)
    reference = contents(train(tmp_path / "whole", config))
    countdown = 0

    def deadly(function):
        def step(*args):
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                raise Killed
            return function(*args)

        return step

    monkeypatch.setattr(Path, "replace", deadly(Path.replace))
    monkeypatch.setattr(lab_folder, "remove", deadly(lab_folder.remove))
    survived = False
    for place in range(1, 200):
        countdown, path = place, tmp_path / f"killed_{place}"
        try:
            train(path, config)
            survived = True
        except Killed:
            countdown = 0  # negative from here on: nobody dies twice
            train(path, config)
        same(path, reference)
        if survived:
            break
    assert survived
    assert place > 25


def test_killed_while_replacing_another_series(tmp_path, monkeypatch):
    """`fresh` over a half-trained series: the old optimiser state never meets the new configuration."""
    old = LabConfig(**FIELDS, steps=6, every=3, seed=7)
    new = LabConfig(**FIELDS, steps=5, every=3)
    reference = contents(train(tmp_path / "whole", new))

    def stop_at_3(event):
        if event["event"] == "checkpoint" and event["step"] == 3:
            raise Killed

    real = lab_folder.remove
    for place in range(1, 6):
        path, left = tmp_path / f"s{place}", place
        with pytest.raises(Killed):
            train(path, old, on_event=stop_at_3)

        def deadly(target):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            real(target)

        monkeypatch.setattr(lab_folder, "remove", deadly)
        with pytest.raises(Killed):
            train(path, new, fresh=True)
        monkeypatch.setattr(lab_folder, "remove", real)
        train(path, new, fresh=True)
        same(path, reference)


def test_a_torn_log_line_and_leftovers_are_cleared(tmp_path):
    config = LabConfig(**FIELDS, steps=30, every=10)
    reference = contents(train(tmp_path / "whole", config))

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 20:
            raise Killed

    path = tmp_path / "s"
    with pytest.raises(Killed):
        train(path, config, on_event=stop)
    with (path / "log.jsonl").open("a") as log:
        log.write('{"step": 20, "train_loss_nats": 1.0, "lr": 1.0}\n{"step": 2')
    (path / ".step_00000030.7-0.tmp").mkdir()
    (path / "step_00000030").mkdir()
    (path / "data" / ".members.safetensors.7-1.tmp").write_bytes(b"half")
    train(path, config)
    same(path, reference)


def test_an_unreadable_state_is_said_with_the_way_out(tmp_path):
    config = LabConfig(**FIELDS, steps=6, every=3)
    reference = contents(train(tmp_path / "whole", config))

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 3:
            raise Killed

    path = tmp_path / "s"
    with pytest.raises(Killed):
        train(path, config, on_event=stop)
    (path / "resume" / "optimizer.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ByroteError, match=r"cannot be resumed.*--fresh"):
        train(path, config)
    same(train(path, config, fresh=True), reference)


def test_resuming_with_other_versions_is_recorded(tmp_path):
    config = LabConfig(**FIELDS, steps=6, every=3)

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 3:
            raise Killed

    path = tmp_path / "s"
    with pytest.raises(Killed):
        train(path, config, on_event=stop)
    manifest = json.loads((path / "manifest.json").read_text())
    now = manifest["versions"]
    manifest["versions"] = now | {"torch": "1.0"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    train(path, config)
    after = json.loads((path / "manifest.json").read_text())
    assert after["versions"]["torch"] == "1.0"
    assert after["resumed_with"] == now


CHILD = """
import sys
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train
config = LabConfig(source=SourceConfig(d_vocab=16, n_ctx=12, block_min=3, block_max=4), d_model=8, n_heads=2,
    d_head=4, batch=4, n_held_out=8, arm=Arm("repeated", 0.5, 3), name="resumed", steps=200, every=25)
def say(event):
    if event["event"] == "checkpoint" and event["step"] == 50:
        print("go", flush=True)
train(sys.argv[1], config, on_event=say)
"""


@pytest.mark.processes
def test_kill_9(tmp_path):
    """A real process, ended by the kernel somewhere after step 50."""
    path = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(path)]
    root = Path(__file__).parents[2]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert json.loads((path / "manifest.json").read_text())["status"] == "running"
    config = LabConfig(**FIELDS, steps=200, every=25)
    resumed = []
    train(path, config, on_event=lambda e: resumed.append(e["step"]) if e["event"] == "resumed" else None)
    assert resumed[0] >= 50
    same(path, contents(train(tmp_path / "whole", config)))
