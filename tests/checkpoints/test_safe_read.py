"""Files that anybody may have made: what is refused, and that nothing waits for ever."""

from __future__ import annotations

import json
import os
import socket

import pytest

from byrote.checkpoints.safe_read import (
    MAX_JSON_DEPTH,
    FileRefused,
    open_regular,
    own_path,
    read_bytes,
    read_json,
    read_text,
)


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, "ä"]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": [1, "ä"]}
    assert read_text(tmp_path / "a.json").endswith("}")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "b", max_bytes=1)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def pipe(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("what", "make"),
    {
        "a pipe": pipe,
        "a socket": listening,
        "a folder": lambda path: path.mkdir(),
        "a link": lambda path: path.symlink_to("good.json"),
        "a device": None,
    }.items(),
)
def test_nothing_but_a_regular_file_is_opened(what, make, tmp_path):
    (tmp_path / "good.json").write_text("{}")
    path = tmp_path / "f" if make else "/dev/zero"
    if make:
        make(path)
    for read in (read_json, open_regular):
        with pytest.raises(FileRefused, match=f"is {what}, not a regular file"):
            read(tmp_path / path)


def test_a_link_to_a_regular_file_is_followed_where_that_is_usual(tmp_path):
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to("blob")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert read_json(tmp_path / "config.json", follow_links=True) == {}
    with pytest.raises(FileRefused, match="a device"):
        read_json(tmp_path / "zero", follow_links=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (nested(MAX_JSON_DEPTH + 1), "nested more than"),
        (nested(100_000), "nested more than"),
        ("[1]", "no JSON object, but another kind: list"),
        ("7", "another kind of value: 7"),
        ("{", "cannot be read as JSON"),
        ("\x00", "cannot be read as JSON"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read as JSON"),
    ],
)
def test_json_that_is_not_what_it_should_be(text, why, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileRefused, match=why):
        read_json(tmp_path / "a.json")


def test_limits_are_met_exactly(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(nested(MAX_JSON_DEPTH))
    assert read_json(file, kind=list, max_bytes=file.stat().st_size)
    with pytest.raises(FileRefused, match="128 bytes; at most 127"):
        read_json(file, kind=list, max_bytes=file.stat().st_size - 1)
    file.write_text(json.dumps([[1]] * 200))
    assert len(read_json(file, kind=list)) == 200
    os.truncate(file, 1 << 40)  # a sparse terabyte costs its maker nothing
    with pytest.raises(FileRefused, match="1,099,511,627,776 bytes"):
        read_json(file)


def test_no_link_on_the_way_to_a_file_of_ours(tmp_path):
    (tmp_path / "real" / "units").mkdir(parents=True)
    (tmp_path / "results").symlink_to("real")
    assert own_path(tmp_path / "results", "units", "new") == tmp_path / "results" / "units" / "new"
    (tmp_path / "real" / "arrays").symlink_to("/")
    with pytest.raises(FileRefused, match="arrays is a symbolic link"):
        own_path(tmp_path / "results", "arrays", "etc")


def test_a_generous_limit_costs_no_memory(tmp_path):
    """Nothing as large as the limit is allocated for a small file."""
    import tracemalloc

    (tmp_path / "small").write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path / "small", max_bytes=1 << 30)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
