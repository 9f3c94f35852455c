"""`br.Monitor`: measures while a model trains, changes nothing of the training, ends it where a rule is broken."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import tiny_hf_model

import byrote as br
from byrote.probes.registry import REGISTRY

_QUICK = ("prefix_matching", "ov_copying", "repeat_loss")
PROBES = {"plain": _QUICK, "autocast": _QUICK, "compiled": (*_QUICK, "pruned_heads", "edge_attribution")}
SMALL = {"probes": ("prefix_matching", "repeat_loss"), "n_seq": 8, "budget_frac": None}
NUMBERS = ["step", "probe", "metric", "layer", "head", "value", "lo", "hi", "chance", "n", "valid"]


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    """Leaves the catalogue as it was: a probe of a test is known to the whole process."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def loop(model, monitor=None, *, steps=range(1, 7), optimizer=None, autocast=False):
    """Training with dropout whose data three generators draw; the optimizer, for more of it."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in steps:
        tokens = torch.randint(0, 61, (4, 16))
        tokens[0, 0], tokens[1, 0] = random.randrange(61), int(np.random.randint(61))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(tokens, labels=tokens).loss
            loss.backward()
            optimizer.step()
            if monitor is not None and step % 2:  # before gradients are dropped
                monitor(step, loss_nats=loss.item(), tokens_seen=64 * step)
        optimizer.zero_grad()
        if monitor is not None and not step % 2 and monitor(step):
            break
    return optimizer


def start(seed=3):
    model = tiny_hf_model("gpt2", seed=seed).train()  # what it imports draws numbers too
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    return model


def state(model):
    numbers = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    return [t.detach().clone() for t in numbers], [m.training for m in model.modules()], drawn


def same(one, other):
    assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert one[1:] == other[1:]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
@pytest.mark.parametrize(
    "kind", ["plain", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("compiled", "autocast"))]
)
def test_training_is_the_same_bit_for_bit(kind, tmp_path):
    made = (lambda m: torch.compile(m, backend="eager")) if kind == "compiled" else (lambda m: m)
    alone, watched = start(), None
    loop(made(alone), autocast=kind == "autocast")
    alone_state = state(alone)
    watched = start()
    trained = made(watched)
    monitor = br.Monitor(trained, every=[1, 4], out=tmp_path, **SMALL | {"probes": PROBES[kind]})
    loop(trained, monitor, autocast=kind == "autocast")
    same(state(watched), alone_state)
    results = monitor.finish()
    assert results.steps == [1, 4, 6] and monitor.measured == 3 and not results.gaps


def test_the_folder_is_that_of_a_model_in_memory_and_opens(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from byrote.cli.main import cli

    monkeypatch.chdir(tmp_path)
    model, said, logged = start(), [], []
    with br.Monitor(
        model, every=3, say=said.append, log=lambda numbers, step: logged.append((step, numbers)), **SMALL
    ) as monitor:
        monitor(0)
        assert br.Results.open("results/model").meta["status"] == "interrupted"  # as long as it trains
        loop(model, monitor, steps=range(1, 5))
    results = br.Results.open("results/model")
    assert (results.steps, results.meta["status"]) == ([0, 3, 4], "complete")  # every third, and the last
    assert results.meta["series"]["loss_nats"].keys() == {"0", "3", "4"}
    assert results.meta["series"]["loss_nats"]["3"] > 0
    assert set(results.frame[results.frame["step"] == 3]["tokens_seen"]) == {192}
    again = br.measure(model, SMALL["probes"], out="again", step=4, n_seq=8, progress=False)
    pd.testing.assert_frame_equal(
        results.frame.query("step == 4")[NUMBERS].reset_index(drop=True), again.frame[NUMBERS]
    )
    (first, _), (step, last) = logged[0], logged[-1]
    rows = results.select("prefix_matching", "score", step=4)
    assert (first, step) == (0, 4)
    assert last["byrote/prefix_matching/score/strongest"] == rows["value"].max()
    assert (
        last["byrote/repeat_loss/later_blocks"]
        == results.select("repeat_loss", "later_blocks", step=4)["value"].item()
    )
    assert last.keys() - {"byrote/measure_s"} == {
        "byrote/prefix_matching/score/strongest",
        "byrote/repeat_loss/later_blocks",
    }
    assert "step 0: 2 probes measured in" in said[0] and "3 steps measured in" in said[-1]
    shown = CliRunner().invoke(cli, ["show", "results/model"])
    assert shown.exit_code == 0 and "repeat_loss" in shown.output


def test_resumed_training_goes_on_with_its_folder(tmp_path):
    model = start()
    optimizer = loop(model, first := br.Monitor(model, every=2, out=tmp_path, say=[].append, **SMALL))
    first.finish()
    losses = br.Results.open(tmp_path / "model").meta["series"]["loss_nats"]
    said: list[str] = []
    monitor = br.Monitor(model, every=2, out=tmp_path, say=said.append, **SMALL)
    loop(model, monitor, steps=range(4, 8), optimizer=optimizer)  # from the checkpoint of step 3
    results = monitor.finish()
    assert results.steps == [2, 4, 6, 7] and results.path == tmp_path / "model"
    assert any("resumed before 2 steps from 4 on that had been measured" in line for line in said)
    assert "loss_nats" in results.meta["series"] and losses.keys() == {"2", "4", "6"}
    other = br.Monitor(model, every=2, out=tmp_path, say=said.append, **SMALL)  # the script run again
    loop(model, other, steps=range(1, 3), optimizer=optimizer)
    assert other.results_path == tmp_path / "model-2" and "holds another run" in said[-2]
    assert br.Results.open(tmp_path / "model").steps == [2, 4, 6, 7]


def test_a_broken_rule_stops_the_run(tmp_path):
    gate = tmp_path / "gate.toml"
    gate.write_text(
        '[[expect]]\nprobe = "repeat_loss"\nstep = "every"\nfrom_step = 3\nmax = 0.1\n'
        '[[expect]]\nprobe = "previous_token"\nhead = "any"\nmin = 0.9\n'  # of the last step: not before the end
    )
    said: list[str] = []
    model = start()
    monitor = br.Monitor(
        model, every=1, out=tmp_path, expect=gate, say=said.append, **SMALL | {"probes": "prefix_matching"}
    )
    loop(model, monitor, steps=range(1, 100))
    assert monitor.should_stop and monitor._step == 4  # the loop looks at every second step
    assert [one.broken for one in monitor.checks] == [True, False]
    assert any(line.startswith("training should stop: FAIL") and "repeat_loss" in line for line in said)
    monitor.finish()
    assert [one.passed for one in monitor.checks] == [False, False]


def test_what_fails_is_a_gap_and_nothing_else(tmp_path):
    model, said = start(), []

    @br.probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")
    def fails_at_first(pattern):
        """Fails as long as a list is empty."""
        if not ready:
            raise RuntimeError("out of something")
        return pattern.diagonal(dim1=-2, dim2=-1).mean(-1)

    ready: list[int] = []
    log = {}.__getitem__  # takes one argument, not two
    monitor = br.Monitor(
        model, every=1, out=tmp_path, say=said.append, log=log, **SMALL | {"probes": fails_at_first}
    )
    optimizer = loop(model, monitor, steps=range(1, 4))
    assert (monitor.measured, monitor.failed) == (0, 3) and not monitor.should_stop
    assert len([line for line in said if "could not be measured, training continues" in line]) == 1
    ready.append(1)
    loop(model, monitor, steps=range(4, 6), optimizer=optimizer)
    results = monitor.finish()
    assert results.steps == [4, 5] and [gap["step"] for gap in results.gaps] == [1, 2, 3]
    assert "out of something" in results.gaps[0]["reason"] and results.meta["status"] == "partial"
    assert len([line for line in said if "was measured, but not logged: TypeError" in line]) == 1


def test_a_disk_that_refuses_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    model, said = start(), []
    monitor = br.Monitor(model, every=1, out=tmp_path / "file", say=said.append, **SMALL)
    loop(model, monitor, steps=range(1, 3))
    assert monitor.failed == 2 and "cannot write results to" in said[0] and monitor.finish() is None


def test_the_budget_bounds_what_measuring_takes(tmp_path, monkeypatch):
    from byrote.integrations import monitor as module

    clock = {"now": 0.0}
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock["now"])
    model, said = start(), []
    monitor = br.Monitor(model, every=1, out=tmp_path, say=said.append, **SMALL | {"budget_frac": 0.1})
    monitor.begin()
    measure = monitor._run.measure

    def takes_two_seconds(step, **facts):
        clock["now"] += 2.0
        return measure(step, **facts)

    monkeypatch.setattr(monitor._run, "measure", takes_two_seconds)
    for step in range(61):  # a step of training takes a second
        monitor(step)
        clock["now"] += 1.0
    results = monitor.finish()
    # 2 s are spent at step 0; two measurements are a tenth of 40 s, three of 60
    assert results.steps == [0, 40, 60] and monitor.skipped == 58
    assert len([line for line in said if "is skipped: measuring takes 2.00 s" in line]) == 1
    assert "58 steps were not measured, to stay within 10%" in results.meta["notes"][-1]
    assert "3 steps measured in 6.0 s, 9.8% of the time of training; 58 skipped" in said[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every=0 would measure nothing"),
        ({"every": []}, "every contains no steps"),
        ({"budget_frac": 2}, "budget_frac=2 is not a fraction"),
        ({"device": "cuda"}, "no setting 'device'"),
        ({"probes": "prefix_machting"}, "did you mean 'prefix_matching'"),
        ({"expect": "nowhere.toml"}, "nowhere.toml does not exist"),
        ({"name": "a/b"}, "is not a valid run name"),
        ({"tokenizer": "nowhere.json"}, r"no tokenizer\.json"),
    ],
)
def test_what_cannot_be_requested_is_said_before_training(settings, message, tmp_path):
    with pytest.raises(br.ByroteError, match=message):
        br.Monitor(start(), out=tmp_path, **settings).begin()


def test_what_is_not_measured_is_said_in_the_names_of_settings(tmp_path):
    said: list[str] = []
    model, chosen = start(), {"probes": ("induction", "held_out_loss"), "n_seq": 8, "budget_frac": None}
    with br.Monitor(model, every=1, out=tmp_path, say=said.append, **chosen) as monitor:
        monitor(0)
    assert any("give sequences=16 or more" in line for line in said), "\n".join(said)
    assert any("held_out_loss is not measured" in line and "add text=FILE" in line for line in said), said
