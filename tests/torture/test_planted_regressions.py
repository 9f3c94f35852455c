"""`make torture` finds what it is there for: protections are taken away, one by one, and a check has to notice.

Each patch is small, as a careless change would be. The checks are the very functions that `make torture` calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_bit_flips
import test_failing_disk
import test_folder_life
import test_live_trainer
import test_power_cut
from forgetful_disk import Recorder
from torture_cases import Cases

from byrote.checkpoints import atomic

pytestmark = pytest.mark.torture(seconds=10)
SECONDS = 40.0  # at most, for a check to notice
Patch = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[Cases, Path, pytest.MonkeyPatch], None]


# --- protections taken away -------------------------------------------------------------------------------------------


def no_sync_of_files(patched: pytest.MonkeyPatch) -> None:
    """A file takes its name before its bytes are on the disk."""
    real = Recorder.sync
    patched.setattr(Recorder, "sync", lambda self, path: real(self, path) if path.is_dir() else None)


def no_sync_of_folders(patched: pytest.MonkeyPatch) -> None:
    """A file's new name may be lost."""
    patched.setattr(atomic, "_sync_folder", lambda folder: None)


def written_in_place(patched: pytest.MonkeyPatch) -> None:
    """A file is overwritten where it lies."""

    def write(path: Path, data: Any) -> None:
        if os.path.lexists(path):
            atomic.layer.unlink(path)
        atomic.layer.create(path, data)
        atomic.layer.sync(path)
        atomic.layer.sync(path.parent)

    for module in _users_of("write_bytes"):
        patched.setattr(module, "write_bytes", write)


def leftovers_stay(patched: pytest.MonkeyPatch) -> None:
    """What a killed process leaves is left."""
    from byrote.probes.sweep import folder

    patched.setattr(folder, "remove_leftovers", lambda root: None)


def faults_are_swallowed(patched: pytest.MonkeyPatch) -> None:
    """A run.json that could not be written is nobody's concern."""
    from byrote.probes.sweep import run

    real = run.write_run_json

    def write(*arguments: Any, **more: Any) -> None:
        try:
            real(*arguments, **more)
        except OSError as error:
            raise RuntimeError("could not write") from error

    patched.setattr(run, "write_run_json", write)


def _users_of(name: str) -> list[Any]:
    """Modules of ours that have a function of `checkpoints.atomic` by its name."""
    import sys

    wanted = getattr(atomic, name)
    return [
        module
        for found, module in list(sys.modules.items())
        if found.startswith("byrote.") and getattr(module, name, None) is wanted
    ]


# --- and who notices --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """A protection that is taken away, and the check that has to notice."""

    take_away: Patch
    check: Check


def power_cut(command: str) -> Check:
    return lambda cases, path, patched: test_power_cut.test_power_cut(command, cases, path, patched)


def failing_disk(command: str) -> Check:
    return lambda cases, path, patched: test_failing_disk.test_failing_disk(command, cases, path, patched)


def folder_life(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    test_folder_life.test_folder_life(cases)


def live_trainer(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    test_live_trainer.test_live_trainer(cases, path)


def flipped_results(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    test_bit_flips.test_bit_flips_in_results(cases, path)


PLANTED = {
    planted.take_away.__name__: planted
    for planted in (
        Planted(no_sync_of_files, power_cut("sweep")),
        Planted(no_sync_of_folders, power_cut("sweep")),
        Planted(written_in_place, power_cut("training")),
        Planted(leftovers_stay, power_cut("sweep")),
        Planted(faults_are_swallowed, failing_disk("sweep")),
    )
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_regressions(name, tmp_path, monkeypatch):
    planted = PLANTED[name]
    with monkeypatch.context() as patched:
        planted.take_away(patched)
        with pytest.raises(AssertionError):
            planted.check(Cases(f"planted {name}", SECONDS), tmp_path, patched)
