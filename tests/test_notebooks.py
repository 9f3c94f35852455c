"""Every notebook in docs/notebooks runs from top to bottom, on the demo's grid cut short."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

from byrote.checkpoints.lab.grid_training import train_grid
from byrote.checkpoints.lab.run_grid import grid_file

pytestmark = pytest.mark.processes
BOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
SHORTER = {"seeds = 5": "seeds = 2", "steps = 1000": "steps = 16", "checkpoints = 12": "checkpoints = 3"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's layout: docs/notebooks, and the series `make demo` trains, cut short."""
    root = tmp_path_factory.mktemp("clone")
    text = grid_file("demo").read_text(encoding="utf-8")
    for whole, short in SHORTER.items():
        assert whole in text
        text = text.replace(whole, short)
    (root / "demo.toml").write_text(text, encoding="utf-8")
    train_grid(root / "demo.toml", root / "runs" / "demo", jobs=1)
    (root / "docs" / "notebooks").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def kernel(place: Path) -> Iterator[Any]:
    """One kernel for all: importing torch and TransformerLens takes longer than most notebooks do."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(place / "docs" / "notebooks"))
    yield manager
    manager.shutdown_kernel(now=True)


def outputs(book: Any) -> list[Any]:
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def test_there_are_five() -> None:
    assert len(BOOKS) == 5


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
def test_notebook_runs_as_it_is_written(book: Path, place: Path, kernel: Any) -> None:
    folder = place / "docs" / "notebooks"
    shutil.copy(book, folder)
    read = nbformat.read(folder / book.name, as_version=4)
    assert not outputs(read), "notebooks are kept without outputs"
    opened_from = (
        place if BOOKS.index(book) % 2 else folder
    )  # an editor may start the kernel at the top of the project
    forgetting = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"%cd -q {opened_from}\n%reset -f")]
    )
    for cells in (forgetting, read):  # no name of the one before is left
        client = NotebookClient(cells, km=kernel, timeout=240)
        client.execute()
        client.kc.stop_channels()
    shown = outputs(read)
    assert any("application/vnd.plotly.v1+json" in o.get("data", {}) for o in shown), "no figure was drawn"
    warned = [o["text"] for o in shown if o.get("name") == "stderr"]
    assert not warned, "a notebook that warns looks broken"
    of_series = any("br.open_" in cell.source for cell in read.cells)
    assert not of_series or any("units measured in" in str(o.get("data")) for o in shown), (
        "measuring left no line behind"
    )
