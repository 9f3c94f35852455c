"""The one writer and the one lock."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import stat
import subprocess
import sys
import time

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
    assert file.read_text(encoding="utf-8").startswith("eins")
    atomic.write_json(file, {"b": 1, "a": "ä"}, sort_keys=True)
    assert file.read_text() == '{\n "a": "\\u00e4",\n "b": 1\n}\n'
    assert names(tmp_path) == ["a.json"]


class Recorded(atomic.FileLayer):
    """The calls, in order, with the names of their files; one of them may fail."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails_at = fails_at

    def __getattribute__(self, name):
        call = super().__getattribute__(name)
        if name not in vars(atomic.FileLayer) or name.startswith("__"):
            return call

        def recorded(path, *more):
            if len(self.calls) == self.fails_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            self.calls.append((name, re.sub(r"\d+-[0-9a-f]{8}-\d+", "N", path.name)))
            return call(path, *more)

        return recorded


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_call_ends(
    tmp_path, monkeypatch
):
    monkeypatch.delenv(atomic.SYNC_VARIABLE, raising=False)
    monkeypatch.setattr(atomic, "layer", calls := Recorded())
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.write_bytes(tmp_path / "a" / "b" / "c", b"1")
    temporary = ".c.N.tmp"
    assert calls.calls == [
        ("make_folder", "a"), ("sync", tmp_path.name), ("make_folder", "b"), ("sync", "a"),
        ("create", temporary), ("sync", temporary), ("rename", temporary), ("sync", "b"),
    ]  # fmt: skip
    calls.calls.clear()
    atomic.remove(tmp_path / "a")
    assert [name for name, _ in calls.calls] == ["unlink", "remove_folder", "remove_folder", "sync"]


def test_folders_are_synced_once_a_block_and_never_where_that_is_switched_off(tmp_path, monkeypatch):
    monkeypatch.delenv(atomic.SYNC_VARIABLE, raising=False)
    monkeypatch.setattr(atomic, "layer", calls := Recorded())
    with atomic.folders_synced_once():
        for name in ("x", "y"):
            atomic.write_bytes(tmp_path / name, b"1")
    assert [path for name, path in calls.calls if name == "sync"] == [".x.N.tmp", ".y.N.tmp", tmp_path.name]
    monkeypatch.setenv(atomic.SYNC_VARIABLE, "0")
    calls.calls.clear()
    atomic.write_bytes(tmp_path / "z", b"1")
    assert [name for name, _ in calls.calls] == ["create", "rename"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no folder")
def test_a_sync_waits_for_the_very_file_or_folder(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    (tmp_path / "x").write_bytes(b"1")
    for path in (tmp_path / "x", tmp_path):
        atomic.FileLayer().sync(path)
    assert synced == [path.stat().st_ino for path in (tmp_path / "x", tmp_path)]


@pytest.mark.parametrize("fails_at", range(4))
def test_a_full_disk_at_any_call_leaves_the_file_as_it_was(fails_at, tmp_path, monkeypatch):
    monkeypatch.delenv(atomic.SYNC_VARIABLE, raising=False)
    (tmp_path / "a").write_bytes(b"before")
    monkeypatch.setattr(atomic, "layer", Recorded(fails_at))
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == (b"after" if fails_at == 3 else b"before")


def test_neither_a_write_nor_a_lock_follows_a_link(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    for name in ("file", "log", "lock"):
        (tmp_path / name).symlink_to(target)
    atomic.write_bytes(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_bytes() == b"ours" and not (tmp_path / "file").is_symlink()
    with pytest.raises(OSError):
        atomic.append(tmp_path / "log", b"ours")
    with pytest.raises(ByroteError, match="is a symbolic link"), hold(tmp_path / "lock"):
        pass
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ByroteError, match="a pipe"), hold(tmp_path / "pipe"):
        pass
    os.link(target, tmp_path / "second name")
    with hold(tmp_path / "second name"):
        pass
    assert target.read_bytes() == b"precious"


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
        "atomic.layer.rename = lambda source, target: os._exit(9)\n"
        "atomic.write_text(pathlib.Path(sys.argv[1]), 'half')"
    )
    (tmp_path / "deep").mkdir()
    subprocess.run([sys.executable, "-c", code, tmp_path / "deep" / "file"], check=False)
    (left,) = atomic.leftovers(tmp_path)
    assert left.parent == tmp_path / "deep" and atomic.is_leftover(left.name)
    assert not atomic.is_leftover("file.tmp")
    (tmp_path / ".folder.1-0.tmp").mkdir()
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["deep"] and names(tmp_path / "deep") == []


def test_what_killed_processes_left_of_one_file_is_removed_and_nothing_else(tmp_path):
    dead, alive = 2**22 + 1, os.getpid()
    there = [
        f".a.{dead}-0.tmp",
        f".a.{alive}-0.tmp",
        f".ab.{dead}-0.tmp",
        f".b.{dead}-0.tmp",
        ".a.x-0.tmp",
        "a",
    ]
    for name in there:
        (tmp_path / name).write_bytes(b"half")
    atomic.remove_leftovers_of(tmp_path / "a")
    assert names(tmp_path) == sorted(there[1:])


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
    with hold(file, wait_s=math.inf):
        pass


@pytest.fixture
def of_another_machine(tmp_path, monkeypatch):
    """A lock that stays held though nobody of this machine holds it, as a server does for a client that died."""
    monkeypatch.setattr(atomic, "_is_locked_here", lambda file: False)
    monkeypatch.setattr(atomic, "_LOOK_AGAIN_S", 0.01)
    file = tmp_path / atomic.LOCK
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield file


@pytest.mark.parametrize("wait_s", [0, math.inf])
def test_a_lock_that_a_dead_machine_left_is_replaced(of_another_machine, wait_s):
    old = of_another_machine.stat().st_mtime - atomic.DEAD_S - 1
    os.utime(of_another_machine, (old, old))
    before = of_another_machine.stat().st_ino, of_another_machine.open()  # its number is not given again
    with hold(of_another_machine, wait_s=wait_s):
        assert of_another_machine.stat().st_ino != before[0]
        with pytest.raises(ByroteError, match="taken"), hold(of_another_machine):
            pass
    before[1].close()
    assert names(of_another_machine.parent) == [atomic.LOCK]


def test_a_lock_that_was_touched_lately_is_not_replaced(of_another_machine):
    with pytest.raises(ByroteError, match="taken"), hold(of_another_machine):
        pass


def test_a_lock_that_is_touched_while_it_is_looked_at_is_not_replaced(of_another_machine, monkeypatch):
    old = of_another_machine.stat().st_mtime - atomic.DEAD_S - 1
    os.utime(of_another_machine, (old, old))
    monkeypatch.setattr(atomic.time, "sleep", lambda seconds: os.utime(of_another_machine))
    with pytest.raises(ByroteError, match="taken"), hold(of_another_machine):
        pass


def test_however_old_a_lock_of_this_machine_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "BEAT_S", 1000.0)
    file = tmp_path / atomic.LOCK
    with hold(file):
        os.utime(file, (0, 0))
        with pytest.raises(ByroteError, match="taken"), hold(file):
            pass


def test_a_holder_touches_its_lock_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "BEAT_S", 0.01)
    file = tmp_path / atomic.LOCK
    with hold(file):
        os.utime(file, (0, 0))
        deadline = time.monotonic() + 5
        while file.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert file.stat().st_mtime > 0
        other = tmp_path / "other"
        other.touch()
        os.utime(other, (0, 0))
        other.replace(file)
        time.sleep(0.05)
        assert file.stat().st_mtime == 0


def test_what_another_machine_is_writing_is_left_alone(tmp_path):
    dead = 2**22 + 1
    for name in (f".a.{dead}-{atomic._HOST}-0.tmp", f".a.{dead}-0badcafe-0.tmp"):
        (tmp_path / name).write_bytes(b"half")
    atomic.remove_leftovers_of(tmp_path / "a")
    assert names(tmp_path) == [f".a.{dead}-0badcafe-0.tmp"]


def test_a_full_disk_says_which_file_although_the_system_does_not(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write and fsync do

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic.write_bytes(tmp_path / "a.bin", b"x")
    assert caught.value.filename == str(tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []
