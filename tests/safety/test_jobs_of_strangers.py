"""Jobs that somebody else wrote: in a results folder, in the user's own folder by a mistake, with parts of another kind."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import FileRefused
from byrote.dashboard import jobs, trash
from byrote.dashboard.library import PATHS_VARIABLE
from byrote.dashboard.state import OF, make_place, place_of, state_root
from byrote.dashboard.tasks import Task, run_task

EVIL = ["-m", "timeit", "-n1", "-r1", "open('ran', 'w')"]
GOOD = {
    "verb": "run",
    "paths": ["runs/a"],
    "options": {"probe": ["induction"], "out": "results", "dry_run": False},
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder as a colleague sends it, and a state folder of one's own."""
    monkeypatch.setenv("BYROTE_STATE", str(tmp_path / "state"))
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def stored(results: Path, name: str, facts: Any, *, within: tuple[str, ...] = jobs.JOBS) -> Path:
    """A job's folder in the user's own place, with this job.json."""
    folder = make_place(results, *within) / name
    folder.mkdir(mode=0o700)
    (folder / "job.json").write_text(json.dumps(facts))
    return folder


def runs_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    def script() -> None:
        from byrote.dashboard.layout import main

        main(only="runs")

    monkeypatch.setenv(PATHS_VARIABLE, str(results))
    return AppTest.from_function(script, default_timeout=60).run()


def test_a_job_in_a_results_folder_is_not_seen_and_never_run(results, tmp_path, monkeypatch):
    for place in (results / ".jobs", results / "run" / ".jobs"):
        folder = place / "20260101-000000-00"
        folder.mkdir(parents=True)
        for facts in (
            {"arguments": EVIL, "started_s": 1},
            {"task": {**GOOD, "paths": ["x"]}, "started_s": 1},
        ):
            (folder / "job.json").write_text(json.dumps(facts))
    monkeypatch.chdir(tmp_path)
    at = runs_page(results, monkeypatch)
    assert not at.exception
    assert not [button for button in at.button if "Resume" in button.label or "Cancel" in button.label]
    assert any(
        "from version 0.1" in caption.value for caption in at.caption
    )  # why the jobs of 0.1 are not listed
    assert jobs.all_jobs(results) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "facts",
    (
        {"arguments": EVIL, "started_s": 1},
        {"task": EVIL, "started_s": 1},
        {"task": {**GOOD, "verb": "-m"}, "started_s": 1},
        {"task": {**GOOD, "verb": "lab"}, "started_s": 1},
        {"task": {**GOOD, "verb": ["run"]}, "started_s": 1},
        {"task": {**GOOD, "paths": []}, "started_s": 1},
        {"task": {**GOOD, "paths": "runs/a"}, "started_s": 1},
        {"task": {**GOOD, "paths": ["--plugin=evil.py"]}, "started_s": 1},
        {"task": {**GOOD, "paths": ["--", "x"]}, "started_s": 1},
        {"task": {**GOOD, "paths": [["x"]]}, "started_s": 1},
        {"task": {**GOOD, "paths": ["a\0b"]}, "started_s": 1},
        {"task": {**GOOD, "paths": ["x" * 10_000]}, "started_s": 1},
        {"task": {**GOOD, "paths": ["x"] * 10_000}, "started_s": 1},
        {"task": {**GOOD, "options": {"plugin": ["evil.py"]}}, "started_s": 1},
        {"task": {**GOOD, "options": {"allow_download": True}}, "started_s": 1},
        {"task": {**GOOD, "options": {"fresh": True}}, "started_s": 1},
        {"task": {**GOOD, "options": {"trace": "/etc/x"}}, "started_s": 1},
        {"task": {**GOOD, "options": {"probe": "induction"}}, "started_s": 1},
        {"task": {**GOOD, "options": {"probe": ["--plugin"]}}, "started_s": 1},
        {"task": {**GOOD, "options": {"probe": [1]}}, "started_s": 1},
        {"task": {**GOOD, "options": {"out": ["x"]}}, "started_s": 1},
        {"task": {**GOOD, "options": {"out": __file__}}, "started_s": 1},
        {"task": {**GOOD, "options": {"dry_run": "yes"}}, "started_s": 1},
        {"task": {**GOOD, "options": []}, "started_s": 1},
        {"task": {**GOOD, "command": EVIL}, "started_s": 1},
        {"task": {"verb": "text", "paths": ["x"], "options": {"step": "1", "text": "a", "most_tokens": 3}}, "started_s": 1},
        {"task": {"verb": "text", "paths": ["x"], "options": {"step": True, "text": "a", "most_tokens": 3}}, "started_s": 1},
        {"task": {"verb": "text", "paths": ["x"], "options": {"text": "a"}}, "started_s": 1},
        {"task": GOOD, "started_s": "soon"},
        {"task": GOOD},
        [GOOD],
        "run",
    ),
)  # fmt: skip
def test_what_the_pages_could_not_have_started_is_no_job(results, facts):
    stored(results, "20260101-000000-00", facts)
    assert jobs.all_jobs(results) == []
    if isinstance(facts, dict) and "task" in facts and facts["task"] is not GOOD:
        with pytest.raises(ByroteError):
            Task.read(facts["task"])


def test_a_stored_job_gives_back_the_command_that_was_started(results):
    task = run_task(("runs/a", "./-b"), ["induction", "repeat_loss"], keep_attention=True, out=results)
    stored(results, "20260101-000000-00", {"task": json.loads(json.dumps(task.facts)), "started_s": 1})
    (job,) = jobs.all_jobs(results)
    words = [
        "run",
        "runs/a",
        "./-b",
        "-p",
        "induction",
        "-p",
        "repeat_loss",
        "--save-attention",
        "-o",
        str(results),
    ]
    assert list(job.arguments) == words
    assert jobs.command_of(job.task, job.folder) == ["byrote", *words, "--progress", "jsonl", "--traceback"]
    assert job.task.dry().arguments() == [*words, "--dry-run"]


def test_jobs_are_kept_where_only_their_user_can_look(results, monkeypatch):
    monkeypatch.setattr(jobs, "command_of", lambda task, folder: ["timeit", "-n1", "-r1", "pass"])
    old = os.umask(0)
    try:
        folder = jobs.start(results, run_task(("x",), [], keep_attention=False, out=results))
        while jobs.read_job(folder).running:
            pass
    finally:
        os.umask(old)
    assert not list(results.iterdir())
    assert json.loads((place_of(results) / OF).read_text()) == {"results": str(results)}
    for path in (state_root(), *state_root().rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.name != ".starting":  # empty, in a folder of one's own
            assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))
    assert {"job.json", "lock", "progress.jsonl", "exit"} <= {path.name for path in folder.iterdir()}


def test_two_results_folders_have_jobs_of_their_own(results, tmp_path):
    other = tmp_path / "other"
    assert place_of(results) != place_of(other)
    (tmp_path / "link").symlink_to(results)
    assert place_of(tmp_path / "link") == place_of(results)


@pytest.mark.parametrize("kind", ("link", "open to others", "a file"))
def test_a_state_folder_of_somebody_else_is_refused(results, tmp_path, kind):
    place = make_place(results)
    place.joinpath(OF).unlink()
    if kind == "open to others":
        place.chmod(0o777)
    else:
        place.rmdir()
        (tmp_path / "theirs").mkdir()
        place.symlink_to(tmp_path / "theirs") if kind == "link" else place.write_text("")
    with pytest.raises(ByroteError):
        jobs.start(results, run_task(("x",), [], keep_attention=False, out=results))
    assert not (tmp_path / "theirs").exists() or not list((tmp_path / "theirs").iterdir())


def test_a_named_state_folder_may_be_looked_at_but_not_written_by_others(results, tmp_path):
    state_root().mkdir(mode=0o755)
    state_root().chmod(0o755)
    make_place(results)
    assert stat.S_IMODE(state_root().stat().st_mode) == 0o755
    state_root().chmod(0o777)
    with pytest.raises(FileRefused, match="not a folder that only you can access"):
        make_place(results)


@pytest.mark.parametrize("name", ("job.json", "lock", "progress.jsonl", "exit", "cancel"))
@pytest.mark.parametrize("kind", ("pipe", "link", "device", "folder", "link to nowhere"))
def test_pipes_and_links_among_a_jobs_files_hang_and_change_nothing(results, tmp_path, name, kind):
    folder = stored(results, "20260101-000000-00", {"task": GOOD, "started_s": 1})
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        target = {"link": victim, "device": Path("/dev/zero"), "link to nowhere": tmp_path / "made"}[kind]
        (folder / name).symlink_to(target)
    for job in jobs.all_jobs(results):
        assert job.state == "lost"
        jobs.cancel(job)
    assert victim.read_text() == "precious" and not (tmp_path / "made").exists()


def test_a_lock_that_is_a_link_truncates_nothing_and_a_pipe_does_not_hang(results, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    make_place(results, *jobs.JOBS).joinpath(".starting").symlink_to(victim)
    with pytest.raises(ByroteError, match="cannot write to"):
        jobs.start(results, run_task(("x",), [], keep_attention=False, out=results))
    run = results / "run"
    (run / "units").mkdir(parents=True)
    for make in (lambda path: path.symlink_to(victim), os.mkfifo):
        make(run / ".lock")
        with pytest.raises(ByroteError, match="cannot be locked"):
            trash.remove(run, [results])
        (run / ".lock").unlink()
    (results / ".removed").symlink_to(tmp_path)
    with pytest.raises(ByroteError, match="is a symbolic link"):
        trash.remove(run, [results])
    assert victim.read_text() == "precious" and run.is_dir()


def test_a_job_started_in_a_folder_full_of_traps_runs_none(results, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    for name in ("byrote", "app", "click", "json", "torch", "sitecustomize", "plugin"):
        (here / f"{name}.py").write_text("open(__file__ + '.ran', 'w')\n")
    (here / "pyproject.toml").write_text(
        "[tool.byrote.run]\nplugin = ['plugin.py']\nallow-download = true\nfresh = true\n"
    )
    monkeypatch.chdir(here)
    folder = jobs.start(results, run_task(("owner/name",), [], keep_attention=False, out=results).dry())
    while jobs.read_job(folder).running:
        time.sleep(0.05)
    job = jobs.read_job(folder)
    assert job.code in (2, 4) and any("not read from the working folder" in line for line in job.lines), job
    assert not list(here.glob("*.ran"))
