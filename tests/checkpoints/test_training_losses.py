"""Training losses that other tools logged: exports as those tools write them, and files that nobody should trust."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from byrote.checkpoints import event_files, open_series, training_losses
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.training_losses import read_losses, with_losses

# As W&B's page exports a panel: one column of steps, three of each run.
WANDB = """"Step","lively-fire-3 - train/loss","lively-fire-3 - train/loss__MIN","lively-fire-3 - train/loss__MAX"
"10","4.5","4.5","4.5"
"20","4.0","3.9","4.1"
"30","","",""
"""
LIGHTNING = "epoch,step,train_loss,val_loss\n0,10,4.5,\n0,20,4.0,\n0,20,,4.2\n1,30,nan,\n"
HISTORY = [  # as `run.history()` gives it: `_step` counts calls of log
    {"_step": 0, "train/global_step": 10, "train/loss": 4.5, "eval/loss": 9},
    {"_step": 1, "train/global_step": 20, "train/loss": 4.0},
    {"_step": 2, "train/global_step": 20, "eval/loss": 9.0},
]
TRAINER = {
    "global_step": 20,
    "log_history": [
        {"step": 10, "loss": 4.5, "epoch": 1},
        {"step": 20, "loss": 4.0},
        {"step": 20, "eval_loss": 9},
    ],
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("export.csv", WANDB),
        ("metrics.csv", LIGHTNING),
        ("history.json", json.dumps(HISTORY)),
        ("history.jsonl", "\n".join(map(json.dumps, HISTORY))),
        (
            "frame.json",
            json.dumps({key: {str(i): row.get(key) for i, row in enumerate(HISTORY)} for key in HISTORY[0]}),
        ),
        ("trainer_state.json", json.dumps(TRAINER)),
    ],
)
def test_what_tools_export(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_losses(tmp_path / name)
    assert (found.steps, found.nats, found.source) == ((10, 20), (4.5, 4.0), name)
    assert [found.at(step) for step in (9, 10, 19, 20, 99)] == [None, 4.5, 4.5, 4.0, 4.0]


def test_a_checkpoint_gets_what_was_logged_last_before_it(tmp_path, lab_series):
    (tmp_path / "export.csv").write_text(WANDB)
    series = with_losses(open_series(lab_series((0, 10, 25))), read_losses(tmp_path / "export.csv"))
    assert series.loss_nats == (3.0, 4.5, 4.0)  # before the first logged step its own stays
    assert series.notes[-1] == "training loss: lively-fire-3 - train/loss of export.csv"


def test_a_loss_by_its_name(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(LIGHTNING)
    assert read_losses(path, name="val_loss").nats == (4.2,)
    with pytest.raises(ByroteError) as caught:
        read_losses(path, name="val_los")
    assert caught.value.help == "did you mean 'val_loss'?"
    path.write_text("step,accuracy\n1,0.5\n")
    with pytest.raises(ByroteError, match="no training loss by step") as caught:
        read_losses(path)
    assert caught.value.help == "name it with --loss-name; the file has 'accuracy'"
    path.write_text('step,"a - train/loss","b - train/loss"\n1,4,5\n')
    with pytest.raises(ByroteError, match="train/loss of 2 runs"):
        read_losses(path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"loss\n1\n", "names no steps: it has 'loss'"),
        ("a.csv", b"\xff\xfe", "is not UTF-8"),
        ("a.csv", b"step," + b"x," * 20_000 + b"loss\n", "columns; at most"),
        ("a.csv", b"step,loss\n1," + b"9" * 200_000 + b"\n", "cannot be read as CSV"),
        ("a.json", b"{}", "holds no rows"),
        ("a.json", b"3", "holds no rows"),
        ("a.json", b"[" * 5000, "nested more than"),
        ("a.jsonl", b'{"step": 1}\n{', "line 2 of"),
        (
            "a.json",
            b'[{"step": 1, "loss": "high"}, {"step": -1, "loss": 2}, {"loss": 2}]',
            "no training loss by step",
        ),
    ],
)
def test_what_is_no_log_is_refused_in_one_sentence(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ByroteError, match=match) as caught:
        read_losses(tmp_path / name)
    assert caught.value.help


def test_what_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(training_losses, "MAX_BYTES", 20)
    (tmp_path / "a.csv").write_text(WANDB)
    with pytest.raises(ByroteError, match="at most 20 are read"):
        read_losses(tmp_path / "a.csv")
    with pytest.raises(ByroteError, match="does not exist"):
        read_losses(tmp_path / "b.csv")


# Event files


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Event files as torch's writer makes them: two tags, and a picture's worth of other data."""
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "runs")) as writer:
        for step, loss in ((10, 4.5), (20, 4.0)):
            writer.add_scalar("train/loss", loss, step)
            writer.add_scalar("eval/loss", 9.0, step)
        writer.add_text("note", "words", 20)
    return tmp_path / "runs"


def the_file(board: Path) -> Path:
    (file,) = board.iterdir()
    return file


def test_event_files(board):
    for path in (board, the_file(board)):
        found = read_losses(path)
        assert (found.steps, found.nats, found.name, found.warnings) == (
            (10, 20),
            (4.5, 4.0),
            "train/loss",
            (),
        )
    assert read_losses(board, name="eval/loss").nats == (9.0, 9.0)
    (board / "none").mkdir()
    with pytest.raises(ByroteError, match="holds no event files"):
        read_losses(board / "none")


def test_a_damaged_or_cut_event_file_is_one_warning(board):
    file = the_file(board)
    whole = file.read_bytes()
    for content in (whole[:-3], whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]):
        file.write_bytes(content)
        found = read_losses(board)
        assert len(found.warnings) == 1 and "is damaged or cut off after" in found.warnings[0]
        assert found.nats[0] == 4.5  # what comes before is there
    file.write_bytes(b"no event file at all, but words")
    with pytest.raises(ByroteError, match="no training loss by step"):
        read_losses(board)


def test_an_event_file_cannot_ask_for_memory(board):
    """A record whose length says 2^62 bytes, with the right sum; a tensor that says it has 10^12 elements."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    def record(data: bytes, length: int | None = None) -> bytes:
        head = struct.pack("<Q", len(data) if length is None else length)
        return head + struct.pack("<I", masked_crc32c(head)) + data + struct.pack("<I", masked_crc32c(data))

    event = Event(step=1)
    value = event.summary.value.add(tag="train/loss")
    value.tensor.dtype = 1
    value.tensor.tensor_shape.dim.add(size=10**6), value.tensor.tensor_shape.dim.add(size=10**6)
    value.tensor.float_val.append(1.0)
    the_file(board).write_bytes(record(event.SerializeToString()) + record(b"x", length=1 << 62))
    with pytest.raises(ByroteError, match="no training loss by step"):
        read_losses(board)


def test_event_files_that_are_too_large_are_not_opened(board, monkeypatch):
    monkeypatch.setattr(event_files, "MAX_BYTES", 100)
    with pytest.raises(ByroteError, match="at most 100"):
        read_losses(board)


def test_without_tensorboard_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    import sys

    event_files._tensorboard.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    with pytest.raises(ByroteError, match="not installed") as caught:
        read_losses(tmp_path)
    assert caught.value.help == "pip install 'byrote[tensorboard]'"
    event_files._tensorboard.cache_clear()
