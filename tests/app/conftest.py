"""The command line called in process, and small runs to call it on: planted models whose answers are known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from byrote.cli.main import cli

MadeOnce = Callable[[str, Callable[[Path], None]], Path]
STEPS = (0, 10, 20)
PROBES = ("induction", "previous_token", "repeat_loss", "ov_copying")


@dataclass(frozen=True)
class Byrote:
    """Calls `byrote` in a folder, as from a shell there."""

    folder: Path

    def __call__(self, *args: str | Path, **env: str) -> Result:
        """One command line; `env` is set for it alone."""
        return CliRunner().invoke(cli, [str(arg) for arg in args], env=env)


@pytest.fixture
def byrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Byrote:
    """`byrote("scan", path)` in an empty working directory, without settings from outside."""
    import os

    for name in [*os.environ]:
        if (name.startswith("BYROTE_") and name != "BYROTE_STATE") or name in ("COLUMNS", "NO_COLOR", "CI"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Byrote(tmp_path)


@pytest.fixture(scope="session")
def planted_runs(made_once: MadeOnce) -> Path:
    """A folder `runs` with two series of three steps: `planted` (induction heads L1H0, L1H1) and `random` (none)."""

    def make(folder: Path) -> None:
        from byrote.checkpoints.lab.planted import PlantedConfig, write_planted

        for kind in ("planted", "random"):
            series = write_planted(folder / "runs" / kind, PlantedConfig(d_vocab=48, n_ctx=104), kind=kind)
            _three_steps(series)

    return made_once("series", make) / "runs"


@pytest.fixture(scope="session")
def planted_results(planted_runs: Path, made_once: MadeOnce) -> Path:
    """A folder `results` with what `byrote run` measured on `planted_runs`."""

    def make(folder: Path) -> None:
        probes = [word for name in PROBES for word in ("-p", name)]
        words = ["run", str(planted_runs), *probes, "--sequences", "16", "-o", str(folder / "results")]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.stderr

    return made_once("measured", make) / "results"


@pytest.fixture
def series_copy(planted_runs: Path, tmp_path: Path) -> Callable[..., Path]:
    """`series_copy("planted", "name")`: a series that a test may damage."""

    def copy(kind: str = "planted", name: str = "copy") -> Path:
        return Path(shutil.copytree(planted_runs / kind, tmp_path / name))

    return copy


@pytest.fixture
def results_copy(planted_results: Path, tmp_path: Path) -> Callable[..., Path]:
    """`results_copy("planted")`: results that a test may change, as far from their checkpoints as the originals."""
    beside = planted_results.parents[1] / f"copies-{tmp_path.parent.name}-{tmp_path.name}"

    def copy(run: str = "planted") -> Path:
        return Path(shutil.copytree(planted_results / run, beside / "changed" / run))

    return copy


def _three_steps(series: Path) -> None:
    """The one step of a planted series, three times: weights that stand still."""
    manifest = json.loads((series / "manifest.json").read_text())
    (entry,) = manifest["checkpoints"]
    manifest["checkpoints"] = []
    for step in STEPS:
        folder = f"step_{step:08d}"
        if step:
            shutil.copytree(series / entry["folder"], series / folder)
        losses = {"tokens_seen": 100 * step, "train_loss_nats": 4.0 - step / 10}
        manifest["checkpoints"].append({**entry, "step": step, "folder": folder, **losses})
    manifest["schedule"] = list(STEPS)
    (series / "manifest.json").write_text(json.dumps(manifest))
