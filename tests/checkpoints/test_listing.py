"""Folders are listed once while a series is opened, and anew at the next opening."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_models import write_hf_series

from byrote.checkpoints import open_series
from byrote.checkpoints.listing import children, listed_once


def test_only_within_a_block(tmp_path):
    (tmp_path / "b").mkdir()
    with listed_once(), listed_once():
        assert [child.name for child in children(tmp_path)] == ["b"]
        (tmp_path / "a").mkdir()
        assert [child.name for child in children(tmp_path)] == ["b"]
    assert [child.name for child in children(tmp_path)] == ["a", "b"]


def test_a_folder_of_steps_is_listed_once_per_opening(tmp_path, monkeypatch):
    """However many formats ask for its names: they were 18 times, which a series of thousands of steps waits for."""
    run = write_hf_series(tmp_path / "run", "gpt2", (1, 2))
    listed: list[str] = []
    real = os.listdir

    def counted(path: str | Path = ".") -> list[str]:
        listed.append(str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", counted)
    monkeypatch.setattr(Path, "iterdir", lambda self: (self / name for name in counted(self)))
    assert open_series(run).steps == (1, 2)
    assert listed.count(str(run)) <= 3
    write_hf_series(tmp_path / "run", "gpt2", (1, 2, 3))
    assert open_series(run).steps == (1, 2, 3)


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_files_linked_from_elsewhere_are_noted(tmp_path, linked):
    away, run = write_hf_series(tmp_path / "away", "gpt2", (1,)), tmp_path / "run"
    (there,) = (p for p in away.iterdir() if p.is_dir())
    run.mkdir()
    if linked == "folder":
        (run / there.name).symlink_to(there)
    else:
        (run / there.name).mkdir()
        for file in there.iterdir():
            (run / there.name / file.name).symlink_to(file)
    assert any("lie outside the folder" in note for note in open_series(run).notes)
