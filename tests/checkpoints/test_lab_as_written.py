"""What the lab wrote is what it resumes from, scans and measures: zeroed or exchanged files are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from byrote.checkpoints import ByroteError, CheckpointError, open_series
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train
from byrote.checkpoints.lab.as_written import damage_in
from byrote.checkpoints.token_sets import token_sets_of
from byrote.cli.main import cli

SOURCE = SourceConfig(d_vocab=16, n_ctx=12, block_min=3, block_max=4)
CONFIG = LabConfig(
    source=SOURCE, arm=Arm("repeated", 0.5, 4), d_model=8, n_heads=2, d_head=4, n_layers=1, batch=8, n_held_out=4,
    warmup_steps=1, steps=6, every=3,
)  # fmt: skip


class Killed(BaseException):
    """The process ends here."""


def stop_at_3(event) -> None:
    if event["event"] == "checkpoint" and event["step"] == 3:
        raise Killed


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"
    }


def zeroed(file: Path) -> None:
    """The same length, nothing but zeros behind the header."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little") if file.suffix == ".safetensors" else 0
    file.write_bytes(data[:start] + bytes(len(data) - start))


def without_hashes(path: Path) -> None:
    """As version 0.1 wrote it."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["files"]
    for entry in manifest["checkpoints"]:
        del entry["weights"], entry["moments"]
    file.write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("whole") / "s", CONFIG)


@pytest.fixture
def half(tmp_path) -> Path:
    with pytest.raises(Killed):
        train(tmp_path / "s", CONFIG, on_event=stop_at_3)
    return tmp_path / "s"


@pytest.fixture
def complete(whole, tmp_path) -> Path:
    import shutil

    return shutil.copytree(whole, tmp_path / "s")


HALF = (
    "resume/optimizer.safetensors", "step_00000002/model.safetensors", "config.json", "data/held_out.safetensors",
    "data/twins.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("name", HALF)
def test_zeroed_files_are_not_resumed_from(half, whole, name):
    zeroed(half / name)
    with pytest.raises(ByroteError, match=r"cannot be resumed: .* changed since .* written.*--fresh"):
        train(half, CONFIG)
    train(half, CONFIG, fresh=True)
    assert contents(half) == contents(whole)


@pytest.mark.parametrize("damage", [lambda f: zeroed(f), lambda f: f.unlink()])
def test_the_pools_counts_are_written_again(half, whole, damage):
    """They follow from the configuration, and a kill may leave those of the step before."""
    damage(half / "data" / "members.safetensors")
    assert contents(train(half, CONFIG)) == contents(whole)


COMPLETE = (
    "step_00000000/model.safetensors", "step_00000006/model.safetensors", "config.json", "data/held_out.safetensors",
    "data/twins.safetensors", "data/members.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("name", COMPLETE)
def test_zeroed_files_are_not_complete(complete, name):
    zeroed(complete / name)
    with pytest.raises(
        ByroteError, match=rf"is marked complete, but {name} has changed since it was written"
    ):
        train(complete, CONFIG)


@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "config.json"])
def test_scan_says_so(complete, name):
    assert CliRunner().invoke(cli, ["scan", str(complete)]).exit_code == 0
    zeroed(complete / name)
    result = CliRunner().invoke(cli, ["scan", str(complete)])
    assert result.exit_code == 3
    assert f"{name} has changed since it was written" in result.stderr


def test_a_config_of_other_numbers_is_refused_when_the_series_is_opened(complete):
    config = complete / "config.json"
    config.write_text(config.read_text().replace('"standard"', '"rotary"'))
    with pytest.raises(CheckpointError, match=r"config\.json has changed since it was written"):
        open_series(complete)


@pytest.mark.parametrize("name", ["held_out", "twins", "members"])
def test_zeroed_data_is_not_measured(complete, name):
    assert len(getattr(token_sets_of(open_series(complete)), {"held_out": "natural"}.get(name, name)))
    zeroed(complete / "data" / f"{name}.safetensors")
    with pytest.raises(ByroteError, match=rf"{name}\.safetensors has changed since it was written"):
        token_sets_of(open_series(complete))


def test_a_half_trained_series_is_measured_whatever_a_kill_left_of_the_counts(half):
    zeroed(half / "data" / "members.safetensors")  # stands for the counts of the step before
    assert token_sets_of(open_series(half)).members is not None


def test_series_without_hashes_are_resumed_and_said_to_be_unverified(half, whole):
    without_hashes(half)
    events = []
    train(half, CONFIG, on_event=events.append)
    assert "not verified" in next(e["reason"] for e in events if e["event"] == "unverified")
    weights = {name: data for name, data in contents(half).items() if name != "manifest.json"}
    assert weights == {name: data for name, data in contents(whole).items() if name != "manifest.json"}


def test_series_without_hashes_are_scanned_and_said_to_be_unverified(complete):
    without_hashes(complete)
    result = CliRunner().invoke(cli, ["scan", str(complete)])
    assert result.exit_code == 0
    assert "not verified" in result.stderr
    train(complete, CONFIG)
    assert len(token_sets_of(open_series(complete)).members)


def test_a_manifest_names_nothing_outside_its_folder(complete, tmp_path):
    (tmp_path / "secret").write_text("x")
    manifest = {
        "files": {"../secret": "0", "/etc/passwd": "0"},
        "checkpoints": [{"folder": "../..", "weights": "0"}],
    }
    assert all("secret" not in said and "passwd" not in said for said in damage_in(complete, manifest))


@pytest.mark.parametrize("listed", [{}, [1], [{"step": "0", "folder": "x"}], [{"step": 0}]])
def test_a_manifest_of_another_kind_is_refused(complete, listed):
    file = complete / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"checkpoints": listed}))
    with pytest.raises(ByroteError, match="without a step or a folder"):
        train(complete, CONFIG)


@pytest.mark.parametrize(
    "said",
    [
        {"n_ctx": 10**12}, {"n_ctx": 1 << 20}, {"d_vocab": 10**12}, {"block_max": 10**12}, {"bigram_successors": 10**12},
        {"n_ctx": float("inf")}, {"n_ctx": "12"}, {"n_ctx": True}, {"source": ["tiled_blocks"]}, {"bigram_frac": None},
    ],
)  # fmt: skip
def test_a_manifest_makes_nobody_draw_more_than_there_is(complete, said):
    file = complete / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"data": manifest["data"] | said}))
    found = token_sets_of(open_series(complete))
    assert (len(found.twins), found.candidates, found.reference) == (4, None, None)


@pytest.mark.parametrize("data", [[1], "x", 1, None])
def test_a_manifest_whose_data_is_no_object_names_no_source(complete, data):
    file = complete / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data": data}))
    assert token_sets_of(open_series(complete)).reference is None


@pytest.mark.parametrize(
    "name", ["n_layers", "d_model", "n_heads", "d_head", "steps", "batch", "n_held_out", "threads"]
)
def test_sizes_beyond_any_memory_are_refused_before_anything_is_made(name):
    with pytest.raises(ByroteError):
        LabConfig(**{name: 10**12})
