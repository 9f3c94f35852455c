"""Every notebook in docs/notebooks runs from top to bottom, on two short lab series in the place of the demo's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from byrote.checkpoints.lab import Arm, LabConfig, train

BOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
N_STEPS = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's layout: docs/notebooks, and the series `make demo` trains, cut short."""
    root = tmp_path_factory.mktemp("clone")
    arms = {"unique": Arm(), "repeated": Arm("repeated", 0.5, 16)}
    for name, arm in arms.items():
        train(root / "runs" / name, LabConfig(arm=arm, steps=N_STEPS))
    (root / "docs" / "notebooks").mkdir(parents=True)
    return root


def outputs(book: Any) -> list[Any]:
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def test_there_are_four() -> None:
    assert len(BOOKS) == 4


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
def test_notebook_runs_as_it_is_written(book: Path, place: Path) -> None:
    folder = place / "docs" / "notebooks"
    shutil.copy(book, folder)
    read = nbformat.read(folder / book.name, as_version=4)
    assert not outputs(read), "notebooks are kept without outputs"
    NotebookClient(read, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    shown = outputs(read)
    assert any("application/vnd.plotly.v1+json" in o.get("data", {}) for o in shown), "no figure was drawn"
    warned = [o["text"] for o in shown if o.get("name") == "stderr"]
    assert not warned, "a notebook that warns looks broken"
    assert any("units measured in" in str(o.get("data")) for o in shown), "measuring left no line behind"
