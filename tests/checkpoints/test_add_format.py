"""The recipe of docs/formats.md, run as it stands there: a format that an installed package adds."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_hf_model

from byrote.checkpoints import ByroteError, CheckpointError, formats, open_series
from byrote.checkpoints.entry_points import installed
from byrote.checkpoints.fingerprint import fingerprint, model_hashes
from byrote.checkpoints.lint import lint
from byrote.interp.loading import load_fresh

RECIPE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


def declare(folder, name, value, *, package="toy-format"):
    """A package's metadata, as pip leaves them in a folder of installed packages."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[byrote.formats]\n{name} = {value}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty folder of installed packages."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    formats.formats.cache_clear()
    yield folder
    sys.modules.pop("toy_format", None)
    formats.formats.cache_clear()


@pytest.fixture
def toy_run(tmp_path):
    """Two steps as the toy's trainer writes them, and the second step's model."""
    run = tmp_path / "run"
    for step in (10, 20):
        model = tiny_hf_model("llama", seed=step)
        model.save_pretrained(tmp_path / "saved")
        run.mkdir(exist_ok=True)
        (tmp_path / "saved" / "model.safetensors").rename(run / f"weights-{step}.safetensors")
        shutil.copy(tmp_path / "saved" / "config.json", run / "toy.json")
    return run, model


def test_the_recipe_reads_what_it_says(site, toy_run):
    run, model = toy_run
    (code,) = re.findall(r"```python\n(.*?)```", RECIPE, flags=re.DOTALL)
    name, value = re.findall(r'^(\w+) = "(toy_format:\w+)"$', RECIPE, flags=re.MULTILINE)[0]
    (site / "toy_format.py").write_text(code)
    declare(site, name, value)
    (run / "weights-last.safetensors").write_bytes(b"")
    series = open_series(run)
    assert (series.format, series.steps, series.name) == ("toy", (10, 20), "run")
    assert [gap.reason for gap in series.gaps] == ["its name has no step"]
    tokens = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(load_fresh(series.at(20)).logits(tokens), model(tokens).logits)
    assert fingerprint(model_hashes(series[0])) != fingerprint(model_hashes(series[1]))
    assert [fact.kind for fact in lint(series).facts] == ["unreadable"]
    with pytest.raises(CheckpointError, match="has no part 'x'"):
        open_series(run, part="x")
    shutil.copy(run / "toy.json", run / "config.json")
    assert open_series(run).format == "toy"  # asked before byrote's own


def test_the_working_folder_adds_nothing(site, tmp_path, monkeypatch):
    work = tmp_path / "site-packages"
    work.mkdir()
    (work / "toy_format.py").write_text("raise SystemExit('code of the working folder was run')")
    declare(work, "toy", "toy_format:FORMAT")
    (tmp_path / "other").mkdir()
    declare(tmp_path / "other", "toy", "toy_format:FORMAT")
    monkeypatch.chdir(work)
    for folder in ("", str(work), str(tmp_path / "other")):
        monkeypatch.syspath_prepend(folder)
    assert installed(formats.GROUP) == {}


def test_a_package_that_offers_nonsense_is_named(site):
    declare(site, "toy", "json:loads")
    with pytest.raises(ByroteError, match=r"'toy' of byrote\.formats is not a Format of that name"):
        formats.formats()
    declare(site, "toy", "json:dumps", package="second")
    with pytest.raises(
        ByroteError, match=r"(second and toy-format|toy-format and second) both declare 'toy'"
    ):
        formats.formats()
    shutil.rmtree(site / "second-1.0.dist-info")
    (site / "toy_format-1.0.dist-info" / "entry_points.txt").write_text("[byrote.formats]\nhf = missing:X\n")
    with pytest.raises(
        ByroteError, match=r"toy-format declares 'hf' for byrote\.formats, which cannot be imported"
    ):
        formats.formats()


def test_a_format_that_is_gone_is_said(toy_run):
    from byrote.checkpoints.series import Checkpoint

    lost = Checkpoint(1, toy_run[0], "toyy", files=())
    with pytest.raises(CheckpointError, match="step 1 has the format 'toyy', which is not installed"):
        formats.format_of(lost)
