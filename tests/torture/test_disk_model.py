"""What the model of a disk calls safe: bytes after their sync, a name after its folder's."""

from __future__ import annotations

import random

from forgetful_disk import Change, Disk


def left(disk: Disk) -> set[tuple[tuple[str, bytes | None], ...]]:
    """Everything that a power cut can leave."""
    return {tuple(sorted(tree.items())) for tree in disk.after_a_power_cut(random.Random(0))}


def test_a_file_that_takes_its_name_unsynced_may_be_anything():
    disk = Disk({"a": b"old"})
    disk.do(Change("create", ".t", data=b"newest"))
    disk.do(Change("rename", ".t", "a"))
    contents = {dict(tree)["a"] for tree in left(disk)}
    assert contents == {b"old", b"", b"newest", bytes(6), b"new", b"\0\0\0est"}
    disk.do(Change("sync", "."))
    assert {dict(tree)["a"] for tree in left(disk)} == contents - {b"old"}


def test_a_synced_file_is_there_as_it_was_or_as_it_is_until_its_folder_is_synced():
    disk = Disk({"a": b"old"})
    for change in (Change("create", ".t", data=b"newest"), Change("sync", ".t"), Change("rename", ".t", "a")):
        disk.do(change)
    assert left(disk) == {(("a", b"old"),), (("a", b"newest"),), ((".t", b"newest"), ("a", b"old"))}
    disk.do(Change("sync", "."))
    assert left(disk) == {(("a", b"newest"),)}


def test_folders_appends_and_removals():
    disk = Disk({"a": b"old"})
    for change in (
        Change("make_folder", "d"), Change("create", "d/b", data=b"1"), Change("sync", "d/b"), Change("sync", "d"),
        Change("append", "a", data=b"er"), Change("unlink", "a"),
    ):  # fmt: skip
        disk.do(change)
    assert disk.seen() == {"d": None, "d/b": b"1"}
    with_folder = {tree for tree in left(disk) if ("d", None) in tree}
    assert all(("d/b", b"1") in tree for tree in with_folder), (
        "a synced folder has its files, once it is there"
    )
    assert {dict(tree).get("a") for tree in left(disk)} == {
        None,
        b"old",
        b"older",
        b"old\0\0",
        b"olde",
        b"old\0r",
    }
