"""One bad results folder breaks no page of the others: it is listed with its reason, in one line, at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hostile_results import BAD, write_good
from streamlit.testing.v1 import AppTest

from byrote.dashboard.library import PATHS_VARIABLE, open_library
from byrote.dashboard.views import PAGES
from byrote.probes.wording import shell_line, visible

WITHIN_S = 5.0  # a pipe or a device that somebody waits for takes for ever


def script(page: str) -> None:
    from byrote.dashboard.layout import main

    main(only=page)


def drawn(page: str, root: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv(PATHS_VARIABLE, str(root))
    at = AppTest.from_function(script, kwargs={"page": page}, default_timeout=60)
    at.query_params["run"] = run
    return at.run()


def beside_a_good_one(root: Path, name: str) -> None:
    write_good(root, "good")
    BAD[name][1](write_good(root, "bad"))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_named_and_the_good_one_is_there(tmp_path, name):
    beside_a_good_one(tmp_path, name)
    began = time.monotonic()
    library = open_library([tmp_path])
    assert time.monotonic() - began < WITHIN_S
    assert library.runs["good"].steps == [0, 10, 20, 40]
    words = BAD[name][0]
    if words:
        (broken,) = library.broken
        assert words in f"{broken.reason} {broken.help}", broken
    for broken in library.broken:
        assert "\n" not in broken.reason and 0 < len(broken.reason) < 1000 and broken.help
        assert "Error:" not in broken.reason, broken  # foreseen, and said in words
    assert open_library([tmp_path]).broken == library.broken


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """A good run beside all the bad ones."""
    root = tmp_path_factory.mktemp("zoo")
    write_good(root, "good")
    for i, name in enumerate(BAD):
        BAD[name][1](write_good(root, f"bad{i:03d}"))
    return root


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_a_good_run_is_drawn_beside_all_the_bad_ones(zoo, page, monkeypatch):
    at = drawn(page, zoo, "good", monkeypatch)
    assert not at.exception and at.title[0].value
    if page == "runs":
        table = next(frame.value for frame in at.dataframe if "status" in frame.value.columns)
        broken = table[table["status"] == "cannot be read"]
        assert len(broken) > 40 and (broken["reason"].str.len() > 0).all()


@pytest.mark.parametrize("page", ("overview", "runs"))
def test_where_no_folder_can_be_read_each_is_named(tmp_path, page, monkeypatch):
    names = ("run_json_is_a_pipe", "run_json_is_cut", "run_json_gaps=[7]", "units_are_a_link")
    for name in names:
        BAD[name][1](write_good(tmp_path, f"of {name}"))
    at = drawn(page, tmp_path, "", monkeypatch)
    assert not at.exception and len(at.error) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", [name for name, (words, _) in BAD.items() if not words])
def test_every_page_of_a_run_that_can_be_opened_in_spite_of_it_is_drawn(tmp_path, name, page, monkeypatch):
    beside_a_good_one(tmp_path, name)
    for run in set(open_library([tmp_path]).runs) - {"good"}:
        assert not drawn(page, tmp_path, run, monkeypatch).exception, run


def test_a_folder_that_may_not_be_read_is_left(tmp_path, monkeypatch):
    write_good(tmp_path, "good")
    (tmp_path / "closed").mkdir()

    def refuse(path: str, *args: object, **kwargs: object) -> os.stat_result:
        if "closed" in str(path) and str(path) != str(tmp_path / "closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    real = os.stat
    monkeypatch.setattr(os, "stat", refuse)
    assert list(open_library([tmp_path]).runs) == ["good"]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash on this machine")
@pytest.mark.parametrize(
    "name", (b"plain", b"a b$(x)'`", b"\xff\xfe", b"a\nb\x1b[31m\\'q", "ö\u202e".encode(), b"$'x'")
)
def test_a_command_that_is_shown_is_the_one_that_is_meant(name):
    line = shell_line(["printf", "%s", os.fsdecode(name)])
    assert visible(line) == line  # nothing in it is obeyed by the terminal it is pasted into
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == name
