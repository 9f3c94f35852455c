"""What a trained series holds, and whether its losses are what they are called."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native.model import NativeModel

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train
from byrote.checkpoints.lab import loop as lab_loop
from byrote.checkpoints.lab.model import (
    build_model,
    learning_rate,
    loss_parts,
    mean_loss,
    mechanism_losses,
    position_losses,
)
from byrote.checkpoints.lab.source import ArmStream, draw
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.trainer import locked

ROOT = Path(__file__).parents[2]
SMALL = {
    "source": SourceConfig(d_vocab=32, n_ctx=16, block_min=4, block_max=6),
    "d_model": 16,
    "n_heads": 2,
    "d_head": 8,
    "batch": 8,
    "n_held_out": 24,
}
REPEATED = LabConfig(
    **SMALL, arm=Arm("repeated", 0.5, 3), steps=80, every=20, warmup_steps=5, lr=1e-2, seed=1
)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """A complete series of the repeated arm, and the events of its training."""
    events = []
    path = train(tmp_path_factory.mktemp("lab") / "arm", REPEATED, on_event=events.append)
    return path, events


def rebuilt(path, step) -> NativeModel:
    """The model of a written step, from config.json and the weights alone."""
    fields = json.loads((path / "config.json").read_text())
    fields.pop("model_type")
    fields.pop("bos_token_id")
    model = NativeModel(TransformerBridgeConfig(**fields))
    model.load_state_dict(load_file(path / f"step_{step:08d}" / "model.safetensors"), strict=True)
    return model


def test_layout_opens_as_a_series(repeated):
    path, _ = repeated
    series = open_series(path)
    assert series.name == "arm"
    assert series.steps == REPEATED.schedule == (0, 1, 2, 4, 8, 16, 20, 40, 60, 80)
    assert series.tokens_seen == tuple(s * 8 * 16 for s in series.steps)
    assert not series.gaps
    assert {p.name for p in path.iterdir()} == {
        "manifest.json",
        "config.json",
        "log.jsonl",
        ".lock",
        "data",
        *(f"step_{s:08d}" for s in series.steps),
    }


def test_manifest_says_what_was_trained(repeated):
    manifest = json.loads((repeated[0] / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["seed"] == 1
    assert manifest["arm"] == {
        "kind": "repeated",
        "repeat_frac": 0.5,
        "pool_size": 3,
        "repeats_per_sequence": 4 * 80 / 3,
    }
    assert manifest["data"]["block_max"] == 6
    assert manifest["train"]["lr"] == 1e-2
    assert manifest["schedule"] == list(REPEATED.schedule)


def test_members_twins_and_held_out(repeated):
    data = {p.stem: load_file(p) for p in (repeated[0] / "data").iterdir()}
    arms = ArmStream(REPEATED.source, REPEATED.arm, seed=1, batch=8)
    assert data["members"]["tokens"].tolist() == arms.pool.tokens.tolist()
    assert data["members"]["repeat_count"].tolist() == arms.repeat_counts(80).tolist()
    assert data["members"]["repeat_count"].sum() == 320
    assert data["twins"]["tokens"].shape == (3, 16)
    assert data["held_out"]["tokens"].shape == (24, 16)
    assert data["held_out"]["tokens"].dtype == torch.int64


def test_losses_in_the_manifest_follow_from_the_files(repeated):
    """Recomputed without the lab's own loss code, position by position."""
    path, _ = repeated
    model = rebuilt(path, 80)
    whole, copied, first = [], [], []
    held_out = draw(REPEATED.source, seed=0, stream="held_out", index=0, n=24)
    stored = load_file(path / "data" / "held_out.safetensors")
    assert stored["tokens"].tolist() == held_out.tokens.tolist()
    assert stored["second_block_start"].tolist() == held_out.second_block_start.tolist()
    for row, start in zip(stored["tokens"], stored["second_block_start"].tolist(), strict=True):
        log_probs = F.log_softmax(model(row[None])[0], dim=-1)
        losses = [-log_probs[t, row[t + 1]].item() for t in range(15)]
        whole += losses
        copied += losses[start:]
    members = draw(REPEATED.source, seed=1, stream="pool", index=0, n=3)
    for row, start in zip(torch.tensor(members.tokens), members.second_block_start.tolist(), strict=True):
        log_probs = F.log_softmax(model(row[None])[0], dim=-1)
        first += [-log_probs[t, row[t + 1]].item() for t in range(start - 1)]
    entry = json.loads((path / "manifest.json").read_text())["checkpoints"][-1]
    assert entry["test_loss_nats"] == pytest.approx(sum(whole) / len(whole), rel=1e-4)
    assert entry["copy_loss_nats"] == pytest.approx(sum(copied) / len(copied), rel=1e-4)
    assert entry["pool_loss_nats"] == pytest.approx(sum(first) / len(first), rel=1e-4)


def test_loss_parts_by_hand():
    """Block length 2: positions 0, 1 predict the block, 2 predicts its unannounced repeat, 3 on can copy."""
    losses = torch.tensor([[1.0, 2.0, 100.0, 4.0, 6.0]])
    codes = [CODES[name] for name in ("free", "table", "copy_start", "copy", "copy")]
    mechanism = torch.tensor([codes], dtype=torch.int8)
    parts = loss_parts(losses, mechanism)
    assert parts["all"] == pytest.approx(22.6)
    assert parts["first_block"] == 1.5
    assert parts["copy"] == 5.0
    assert mechanism_losses(losses, mechanism) == {"free": 1, "table": 2, "copy_start": 100, "copy": 5}
    assert loss_parts(losses[:, :2], mechanism[:, :2])["copy"] is None


def test_training_memorises_the_pool(repeated):
    entries = json.loads((repeated[0] / "manifest.json").read_text())["checkpoints"]
    assert entries[0]["pool_loss_nats"] == pytest.approx(math.log(32), abs=0.1)
    assert entries[-1]["pool_loss_nats"] < entries[0]["pool_loss_nats"] - 1.5
    assert entries[-1]["train_loss_nats"] < entries[0]["train_loss_nats"] - 0.5


def test_default_model_starts_at_chance():
    config = LabConfig()
    model = build_model(config)
    held_out = draw(config.source, seed=0, stream="held_out", index=0, n=64)
    loss = position_losses(model, torch.tensor(held_out.tokens)).mean().item()
    assert math.log(128) - 0.05 < loss < math.log(128) + 0.5
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 52_224


def test_step_0_is_the_seeds_and_not_the_arms():
    def weights(config):
        return build_model(config).state_dict()

    first, other_arm = weights(LabConfig(**SMALL)), weights(LabConfig(**SMALL, arm=Arm("control", 0.5)))
    other_seed = weights(LabConfig(**SMALL, seed=1))
    assert all(torch.equal(first[k], other_arm[k]) for k in first)
    assert not torch.equal(first["head.weight"], other_seed["head.weight"])


@pytest.mark.parametrize("attn_only", [True, False])
def test_biases_stay_zero_and_weights_have_the_stated_spread(tmp_path, attn_only):
    config = LabConfig(**SMALL, attn_only=attn_only, normalization_type="LN", steps=3, every=3)
    path = train(tmp_path / "ln", config)
    state = load_file(path / "step_00000003" / "model.safetensors")
    biases = [k for k in state if k.endswith("bias")]
    assert biases
    assert all(not state[k].any() for k in biases)
    assert any("mlp" in k for k in state) is not attn_only
    start = load_file(path / "step_00000000" / "model.safetensors")
    assert start["layers.0.attn.q.weight"].std().item() == pytest.approx(0.1, rel=0.15)
    assert (start["ln_out.weight"] == 1).all()
    assert not (state["ln_out.weight"] == 1).all()


def test_learning_rate_by_hand():
    config = LabConfig(**SMALL, steps=21, warmup_steps=10, lr=1.0, final_lr_frac=0.1)
    rates = [learning_rate(config, step) for step in range(21)]
    assert rates[:3] == [0.1, 0.2, pytest.approx(0.3)]
    assert rates[9] == rates[10] == 1.0
    assert rates[15] == pytest.approx(0.55)
    assert rates[20] == pytest.approx(0.1)


def test_training_is_the_plain_loop(tmp_path):
    """Two updates done here by hand give the weights of step 2."""
    config = LabConfig(**SMALL, steps=2, weight_decay=0.1)
    path = train(tmp_path / "two", config)
    model = build_model(config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.1)
    for step in range(2):
        tokens = torch.tensor(draw(config.source, seed=0, stream="train", index=8 * step, n=8).wide)
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        optimizer.zero_grad()
        F.cross_entropy(model(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:]).backward()
        optimizer.step()
    written = load_file(path / "step_00000002" / "model.safetensors")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(written[name], weight, rtol=1e-5, atol=1e-7)


def test_train_loss_is_that_of_the_batch_to_come(repeated):
    path, _ = repeated
    arms = ArmStream(REPEATED.source, REPEATED.arm, seed=1, batch=8)
    loss = mean_loss(rebuilt(path, 20), torch.from_numpy(arms.batches(20, 1)[0])).item()
    entry = next(
        c for c in json.loads((path / "manifest.json").read_text())["checkpoints"] if c["step"] == 20
    )
    logged = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert entry["train_loss_nats"] == pytest.approx(loss, rel=1e-5)
    assert [line["step"] for line in logged] == list(range(0, 80, 10))
    assert logged[2]["train_loss_nats"] == pytest.approx(loss, rel=1e-5)
    assert logged[2]["lr"] == learning_rate(REPEATED, 20)


def test_events(repeated):
    _, events = repeated
    written = [e["step"] for e in events if e["event"] == "checkpoint"]
    assert written == list(REPEATED.schedule)
    first = next(e for e in events if e["event"] == "step")
    assert first["total"] == 80
    assert first["steps_per_s"] > 0
    assert first["eta_s"] == pytest.approx((80 - first["step"]) / first["steps_per_s"])
    assert events[-1]["event"] == "done"
    assert not events[-1]["already_complete"]


def test_a_complete_series_is_left_alone(repeated):
    path, _ = repeated
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.name != ".lock"}
    events = []
    assert train(path, REPEATED, on_event=events.append) == path
    assert [e["event"] for e in events] == ["done"]
    assert events[0]["already_complete"]
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.name != ".lock"} == before


def test_another_configuration_is_refused_and_fresh_replaces_it(tmp_path):
    path = train(tmp_path / "s", LabConfig(**SMALL, steps=4))
    (path / "notes.txt").write_text("mine")
    other = LabConfig(**SMALL, steps=2, seed=3, arm=Arm("repeated", 0.5, 2))
    with pytest.raises(ByroteError) as refused:
        train(path, other)
    message = str(refused.value)
    for part in ("seed (there 0, requested 3)", "arm.kind (there 'unique', requested 'repeated')", "--fresh"):
        assert part in message
    assert "train.steps (there 4, requested 2)" in message
    assert "train.lr" not in message
    assert open_series(path).steps == (0, 1, 2, 4)
    train(path, other, fresh=True)
    assert open_series(path).steps == (0, 1, 2)
    assert open_series(path).manifest["seed"] == 3
    assert (path / "notes.txt").read_text() == "mine"
    assert (path / "data" / "members.safetensors").exists()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("content", [{"a.txt": "x"}, {"manifest.json": "{}"}, {"manifest.json": "{"}])
def test_a_folder_with_something_else_is_never_touched(tmp_path, content, fresh):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ByroteError, match="is not a lab series"):
        train(tmp_path, LabConfig(**SMALL, steps=2), fresh=fresh)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == content


def test_a_file_is_refused(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(ByroteError, match="is a file"):
        train(tmp_path / "f", LabConfig(**SMALL, steps=2))


@pytest.mark.parametrize(
    ("change", "said"), [({"version": 9}, "version 9"), ({"status": None}, "lacks status")]
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path, change, said):
    path = train(tmp_path / "s", LabConfig(**SMALL, steps=1))
    manifest = json.loads((path / "manifest.json").read_text()) | change
    text = json.dumps({k: v for k, v in manifest.items() if v is not None})
    (path / "manifest.json").write_text(text)
    with pytest.raises(ByroteError, match=said):
        train(path, LabConfig(**SMALL, steps=1))
    assert (path / "manifest.json").read_text() == text


def test_a_complete_series_without_its_weights_is_not_called_complete(tmp_path):
    config = LabConfig(**SMALL, steps=2)
    path = train(tmp_path / "s", config)
    (path / "step_00000001" / "model.safetensors").unlink()
    with pytest.raises(ByroteError, match=r"1 of its 3 steps are missing: 1\. pass --fresh"):
        train(path, config)


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(ByroteError, match="another process is training"):
        train(tmp_path, LabConfig(**SMALL, steps=1))
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_divergence_is_said_and_not_written(tmp_path):
    config = LabConfig(**SMALL, steps=30, lr=1e30, warmup_steps=0)
    with pytest.raises(ByroteError, match="training diverged: the loss at step"):
        train(tmp_path / "s", config)
    for entry in json.loads((tmp_path / "s" / "manifest.json").read_text())["checkpoints"]:
        assert math.isfinite(entry["test_loss_nats"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_said(tmp_path):
    with pytest.raises(ByroteError, match="no CUDA device"):
        train(tmp_path / "s", LabConfig(**SMALL, steps=1, device="cuda"))


def test_threads_and_random_state_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_loop, "EVENT_EVERY_S", 0.0)
    seen = []

    def interrupt(event):
        seen.append(torch.get_num_threads())
        if event["event"] == "step" and event["step"] == 3:
            raise KeyboardInterrupt

    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "s", LabConfig(**SMALL, steps=9, threads=before + 1), on_event=interrupt)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert open_series(tmp_path / "s").steps == (0, 1, 2)


def test_describing_a_run_needs_no_torch():
    code = (
        "import sys; from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train; "
        "LabConfig().schedule; print('torch' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert said.strip() == "False"
