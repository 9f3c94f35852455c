"""The same sweep gives the same bytes in every file, and whoever only looks at results leaves them as they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_models import write_lab_series

from byrote.checkpoints import CheckpointSeries, atomic, open_series
from byrote.cli.main import cli
from byrote.probes.results import Results
from byrote.probes.results.unit_files import unit_paths
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

CONFIG = SweepConfig(("prefix_matching", "previous_token", "induction"), n_seq=8, save_attention=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path, byte for byte."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder, the folder itself among them."""
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in (folder, *folder.rglob("*"))}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> CheckpointSeries:
    return open_series(write_lab_series(tmp_path_factory.mktemp("same") / "tiny", (0, 8, 64)))


@pytest.fixture(scope="module")
def whole(series) -> Path:
    return sweep(series, CONFIG, out=series.path.parent / "once").path


def test_two_runs_of_a_sweep_and_the_same_command_again_are_the_same_bytes(series, whole):
    other = sweep(series, CONFIG, out=series.path.parent / "twice")
    assert contents(other.path) == contents(whole)
    before = marks(whole / "units")
    assert sweep(series, CONFIG, out=whole.parent).measured == 0
    assert contents(whole) == contents(other.path)
    assert marks(whole / "units") == before


class Stopped(BaseException):
    """As a kill: nothing of byrote's handles it."""


class Killed(atomic.FileLayer):
    """Stops at the n-th rename."""

    def __init__(self, after: int) -> None:
        self.left = after

    def rename(self, source: Path, target: Path) -> None:
        if self.left == 0:
            raise Stopped
        self.left -= 1
        super().rename(source, target)


@pytest.mark.parametrize("after", [0, 1, 3, 5, 8, 10])
def test_a_sweep_that_was_killed_and_resumed_is_the_same_bytes(series, whole, tmp_path, monkeypatch, after):
    out = series.path.parent / f"killed{after}"
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "layer", Killed(after))
        with pytest.raises(Stopped):
            sweep(series, CONFIG, out=out)
    sweep(series, CONFIG, out=out)
    assert contents(out / "tiny") == contents(whole)


class NothingIn(atomic.FileLayer):
    """Refuses every change below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _refuse(self, path: Path, *rest: object) -> None:
        if self.folder in path.resolve().parents:
            raise AssertionError(f"{path} was to be changed")

    def create(self, path, data):
        self._refuse(path)
        super().create(path, data)

    def append(self, path, data):
        self._refuse(path)
        super().append(path, data)

    def make_folder(self, path):
        self._refuse(path)
        super().make_folder(path)

    def rename(self, source, target):
        self._refuse(source)
        self._refuse(target)
        super().rename(source, target)


@pytest.mark.parametrize("stale", [False, True])
def test_readers_leave_a_results_folder_as_it_was(whole, tmp_path, monkeypatch, stale):
    """Also where observations.parquet is missing or is not what the units give, which a sweep sets right."""
    root = tmp_path / "results"
    for name in ("tiny", "other"):
        shutil.copytree(whole, root / name)
    if stale:
        (root / "tiny" / "observations.parquet").unlink()
        unit_paths(root / "other")[0].unlink()
    before = marks(root)
    monkeypatch.setattr(atomic, "layer", NothingIn(root.resolve()))
    for words in (
        ["show", str(root / "tiny")],
        ["show", str(root / "tiny"), "--events"],
        ["compare", str(root / "tiny"), str(root / "other")],
        ["verify", str(root / "tiny")],
        ["report", str(root / "tiny"), "-o", str(tmp_path / "page.html"), "--light"],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code in (0, 1), (words, done.stderr)
    assert len(Results.open(root / "tiny").frame)
    assert marks(root) == before
