"""`make torture` finds what it is there for: protections are taken away, one by one, and a check has to notice.

Each patch is small, as a careless change would be. The checks are the very functions that `make torture` calls.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import test_attacker
import test_bit_flips
import test_failing_disk
import test_power_cut
from commands import measured, series_of
from forgetful_disk import Recorder
from looking import REFUSED, rows
from torture_cases import Cases

from byrote.checkpoints import atomic, safe_read, seal
from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import guard
from byrote.probes.results import parquet_files, unit_files
from byrote.probes.verify import verify

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

    for module in modules_with(atomic.write_bytes):
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


def key_left_out(patched: pytest.MonkeyPatch) -> None:
    """The dashboard answers whoever knows its port."""
    patched.setattr(guard.Guard, "_has_cookie", lambda self, headers: True)


def origin_left_out(patched: pytest.MonkeyPatch) -> None:
    """The dashboard answers other pages of the same browser."""
    patched.setattr(guard.Guard, "_is_ours", lambda self, scope, headers: True)


def hashes_not_compared(patched: pytest.MonkeyPatch) -> None:
    """Whatever stands in a file is taken for what was written."""

    class LikeAny(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    for name in ("seal_of", "seal_of_file"):
        for module in modules_with(getattr(seal, name)):
            patched.setattr(module, name, lambda *a, **k: seal.Seal.WHOLE)
    patched.setattr(unit_files, "content_hash", lambda *a: LikeAny("0" * 32))
    real = parquet_files.pq.ParquetFile
    unchecked = {"page_checksum_verification": False}
    patched.setattr(parquet_files.pq, "ParquetFile", lambda *a, **k: real(*a, **{**k, **unchecked}))


def json_without_limits(patched: pytest.MonkeyPatch) -> None:
    """JSON is read as it comes."""
    for module in modules_with(safe_read.read_json):
        patched.setattr(module, "read_json", lambda path, **more: json.loads(Path(path).read_text()))


def locks_opened_for_writing(patched: pytest.MonkeyPatch) -> None:
    """A lock file is made anew, through whatever link stands there."""

    @contextmanager
    def locked(file: Path, **more: Any) -> Iterator[None]:
        file.open("w").close()
        yield

    for module in modules_with(atomic.locked):
        patched.setattr(module, "locked", locked)


def modules_with(function: Callable[..., Any]) -> list[Any]:
    """Modules of ours that have a function by its name."""
    found = [module for name, module in list(sys.modules.items()) if name.startswith("byrote.")]
    return [module for module in found if getattr(module, function.__name__, None) is function]


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


def flipped_unit(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    """Bits of the values of one unit, where a flip is most often another number and least often a page that cannot be read."""
    measured(series_of(path))
    root = path / "results" / "tiny"
    unit = next(root.glob("units/*/repeated_random.*.parquet"))
    good, wanted = unit.read_bytes(), rows(root)
    values = bytes_of_column(unit, "value")
    for case, rng in cases.drawn(least=20):
        data = bytearray(good)
        data[rng.randrange(*values)] ^= 1 << rng.randrange(8)
        unit.write_bytes(data)
        (root / "observations.parquet").unlink(missing_ok=True)
        with cases.case(case, "a bit of a unit"):
            shown = test_bit_flips.look(root)
            assert shown in (REFUSED, wanted) or verify(root).findings, "other numbers are shown"


def bytes_of_column(unit: Path, name: str) -> tuple[int, int]:
    """Where the different values of one column stand in a file: first byte of their page and the one past its last."""
    group = pq.read_metadata(unit).row_group(0)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == name)
    return column.dictionary_page_offset, column.data_page_offset


def deep_json(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    """A run.json nested a hundred thousand levels deep."""
    root = measured(series_of(path)).path
    (root / "run.json").write_text('{"a":' * 100_000)
    try:
        rows(root)
    except ByroteError:
        return
    except RecursionError as error:
        raise AssertionError("a traceback") from error
    raise AssertionError("it was read")


def linked_lock(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    """A lock that is a link to somebody's file."""
    (path / "precious").write_bytes(b"precious")
    root = measured(series_of(path)).path
    (root / atomic.LOCK).unlink()
    (root / atomic.LOCK).symlink_to(path / "precious")
    with suppress(ByroteError):
        measured(path, seed=1)
    assert (path / "precious").read_bytes() == b"precious", "something outside was changed"


def attacker(cases: Cases, path: Path, patched: pytest.MonkeyPatch) -> None:
    test_attacker.test_attacker(cases)


PLANTED = {
    planted.take_away.__name__: planted
    for planted in (
        Planted(no_sync_of_files, power_cut("sweep")),
        Planted(no_sync_of_folders, power_cut("sweep")),
        Planted(written_in_place, power_cut("training")),
        Planted(leftovers_stay, power_cut("sweep")),
        Planted(faults_are_swallowed, failing_disk("sweep")),
        Planted(key_left_out, attacker),
        Planted(origin_left_out, attacker),
        Planted(hashes_not_compared, flipped_unit),
        Planted(json_without_limits, deep_json),
        Planted(locks_opened_for_writing, linked_lock),
    )
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_regressions(name, tmp_path, monkeypatch):
    planted = PLANTED[name]
    with monkeypatch.context() as patched:
        planted.take_away(patched)
        with pytest.raises(AssertionError):
            planted.check(Cases(f"planted {name}", SECONDS), tmp_path, patched)


@pytest.mark.parametrize("check", [flipped_unit, deep_json, linked_lock])
def test_without_them_these_checks_are_content(check, tmp_path, monkeypatch):
    """The others are `make torture` itself."""
    problem = ""
    try:
        check(Cases(check.__name__, 1), tmp_path, monkeypatch)
    except AssertionError as error:
        problem = str(error)
    assert problem == ""
