"""The callback of Hugging Face's `Trainer`: its training is the same, its log is whole, it stops and resumes."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import tiny_hf_model

import byrote as br
from byrote.integrations import TransformersCallback, attach

SMALL = {"probes": ("prefix_matching", "repeat_loss"), "n_seq": 8, "budget_frac": None}


def rows():
    tokens = torch.randint(1, 61, (64, 16), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in tokens]


def trainer_of(folder, **settings):
    """A Trainer of a model with dropout; the model is drawn from one seed, and so is what training draws."""
    from transformers import Trainer, TrainingArguments

    fields = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 2, "save_steps": 3}
    fields |= {"learning_rate": 1e-2, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 1}
    args = TrainingArguments(str(folder / "out"), **fields, dataloader_pin_memory=False, **settings)
    return Trainer(tiny_hf_model("gpt2", seed=4), args, train_dataset=rows())


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Training without any callback of ours."""
    trainer = trainer_of(tmp_path_factory.mktemp("alone"))
    trainer.train()
    return weights(trainer), [entry for entry in trainer.state.log_history if "loss" in entry]


def test_it_trains_alike_logs_all_and_resumes(alone, tmp_path):
    trainer = trainer_of(tmp_path)
    callback = attach(trainer, every=2, out=tmp_path / "results", **SMALL)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer), alone[0], strict=True))
    history = trainer.state.log_history
    losses = [entry for entry in history if "loss" in entry]
    assert [(e["step"], e["loss"]) for e in losses] == [(e["step"], e["loss"]) for e in alone[1]]
    results = br.Results.open(tmp_path / "results" / "model")
    logged = {e["step"]: e["byrote/repeat_loss/later_blocks"] for e in history if "byrote/measure_s" in e}
    assert (
        logged
        == results["repeat_loss"].rows.query("metric == 'later_blocks'").set_index("step")["value"].to_dict()
    )
    assert list(logged) == [0, 2, 4, 6] == results.steps and callback.monitor.measured == 4
    stored = json.loads((tmp_path / "out" / "checkpoint-6" / "trainer_state.json").read_text())
    assert any("byrote/measure_s" in entry for entry in stored["log_history"])
    assert {int(s) for s in results.meta["series"]["loss_nats"]} == {0, 2, 4, 6}
    before = results.frame

    again = trainer_of(tmp_path)
    attach(again, every=2, out=tmp_path / "results", **SMALL)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert all(torch.equal(a, b) for a, b in zip(weights(again), alone[0], strict=True))
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["model"]
    after = br.Results.open(tmp_path / "results" / "model")
    assert after.frame.equals(before) and after.meta["status"] == "complete"


@pytest.mark.slow
def test_a_broken_rule_stops_the_trainer(tmp_path):
    gate = tmp_path / "gate.toml"
    gate.write_text('[[expect]]\nprobe = "repeat_loss"\nstep = "every"\nfrom_step = 4\nmax = 0.1\n')
    trainer = trainer_of(tmp_path)
    callback = TransformersCallback(every=2, out=tmp_path / "results", expect=gate, **SMALL)
    trainer.add_callback(callback)
    trainer.train()
    assert trainer.state.global_step == 4 and callback.monitor.checks[0].broken
    assert br.Results.open(callback.monitor.results_path).steps == [0, 2, 4]
    assert not any("byrote/measure_s" in entry for entry in trainer.state.log_history)


@pytest.mark.slow
def test_the_best_weights_are_not_measured_as_the_last(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True, "max_steps": 3}
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(
        str(tmp_path / "out"), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, save_steps=3, **settings
    )  # fmt: skip
    trainer = Trainer(tiny_hf_model("gpt2", seed=4), args, train_dataset=rows()[:16], eval_dataset=rows()[:4])
    callback = attach(trainer, every=[1], out=tmp_path / "results", **SMALL)
    trainer.train()
    assert br.Results.open(callback.monitor.results_path).steps == [
        1,
        3,
    ]  # 3 as training ended, before they were loaded


def test_what_is_wrong_is_said_when_the_callback_is_made(tmp_path):
    with pytest.raises(br.ByroteError, match="no setting 'evry'"):
        TransformersCallback(evry=3)
    with pytest.raises(br.ByroteError, match=r"nowhere\.toml does not exist"):
        TransformersCallback(expect=tmp_path / "nowhere.toml")
