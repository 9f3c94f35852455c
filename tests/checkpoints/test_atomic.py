"""The one writer and the one lock."""

from __future__ import annotations

import stat
import subprocess
import sys

import pytest

from byrote.checkpoints import atomic
from byrote.checkpoints.errors import ByroteError


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    file = tmp_path / "a.json"
    atomic.write_text(file, "eins\nzwei ä\n")
    assert file.read_bytes() == "eins\nzwei ä\n".encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(file, {"x": float("nan")})
    with pytest.raises(KeyboardInterrupt), atomic.replacing(file) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text(encoding="utf-8").startswith("eins")
    atomic.write_json(file, {"b": 1, "a": "ä"}, sort_keys=True)
    assert file.read_text() == '{\n "a": "\\u00e4",\n "b": 1\n}\n'
    assert names(tmp_path) == ["a.json"]


def test_it_has_the_permissions_of_any_new_file(tmp_path):
    atomic.write_bytes(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert len(modes) == 1


def test_a_folder_is_there_with_all_its_files_or_not_at_all(tmp_path):
    atomic.write_folder(tmp_path / "step", {"a": b"1", "b": b"2"})
    assert {p.name: p.read_bytes() for p in (tmp_path / "step").iterdir()} == {"a": b"1", "b": b"2"}
    with pytest.raises(OSError):
        atomic.write_folder(tmp_path / "step", {"c": b"3"})
    with pytest.raises(OSError):
        atomic.write_folder(tmp_path / "other", {"missing/c": b"3"})
    assert names(tmp_path) == ["step"]


def test_what_a_kill_leaves_behind_is_found_and_removed(tmp_path):
    code = (
        "import os, sys, pathlib; from byrote.checkpoints import atomic\n"
        "with atomic.replacing(pathlib.Path(sys.argv[1])) as t: t.write_text('half'); os._exit(9)"
    )
    (tmp_path / "deep").mkdir()
    subprocess.run([sys.executable, "-c", code, tmp_path / "deep" / "file"], check=False)
    (left,) = atomic.leftovers(tmp_path)
    assert left.parent == tmp_path / "deep" and atomic.is_leftover(left.name)
    assert not atomic.is_leftover("file.tmp")
    (tmp_path / ".folder.1-0.tmp").mkdir()
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["deep"] and names(tmp_path / "deep") == []


def hold(file, **more):
    return atomic.locked(
        file,
        busy=ByroteError("taken", help="wait"),
        refused=lambda e: ByroteError(str(e.strerror), help=""),
        **more,
    )


def test_one_holder_at_a_time(tmp_path):
    file = tmp_path / atomic.LOCK
    with hold(file), pytest.raises(ByroteError, match="taken"), hold(file):
        pass
    with hold(file), hold(tmp_path / "another"):
        pass
    with pytest.raises(ByroteError, match=r"directory|exists"), hold(file / atomic.LOCK):
        pass
    with pytest.raises(OSError, match="of the block"), hold(file):
        raise OSError("of the block")


def test_a_killed_process_lets_go(tmp_path):
    code = (
        "import sys, pathlib; from byrote.checkpoints import atomic\n"
        "with atomic.locked(pathlib.Path(sys.argv[1]), busy=Exception(), refused=Exception):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    file = tmp_path / atomic.LOCK
    with subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ByroteError, match="taken"), hold(file):
            pass
        other.kill()
        other.wait()
    with hold(file, wait=True):
        pass
