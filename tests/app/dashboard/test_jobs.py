"""Jobs: real small sweeps started, watched, cancelled and resumed the way the page does it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interruptible import heed_interrupts

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import jobs
from byrote.dashboard.jobs import Job
from byrote.dashboard.state import make_place, state_root
from byrote.dashboard.tasks import Task
from byrote.dashboard.views.runs import ending_words, measuring_task
from byrote.probes.results import Results

SLEEP = "import time; print('asleep', flush=True); time.sleep(60)"
# In a process of its own: a job whose program is a line of Python, as no page can start it.
START = (
    "import sys, time; from pathlib import Path; from byrote.dashboard import jobs; from byrote.dashboard.tasks import Task; "
    "jobs.command_of = lambda task, folder: ['timeit', '-n1', '-r1', sys.argv[2]]; "
    "print(jobs.start(Path(sys.argv[1]), Task('run', ('nowhere',), {'dry_run': True})), flush=True)"
)


@pytest.fixture
def start(monkeypatch):
    """`start(results, code)`: a job whose program is a line of Python, as no page can start it."""

    def call(results: Path, code: str, path: str = "nowhere", **options) -> Path:
        monkeypatch.setattr(jobs, "command_of", lambda task, folder: ["timeit", "-n1", "-r1", code])
        return jobs.start(results, Task("run", (path,), {"dry_run": True}), **options)

    return call


def until(folder: Path, met: Callable[[Job], bool], *, within_s: float = 90) -> Job:
    """The job as soon as it is as wanted."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        job = jobs.read_job(folder)
        assert job is not None
        if met(job):
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job.state}: {job.lines} {job.errors}")


def ended(job: Job) -> bool:
    return not job.running


def asleep(job: Job) -> bool:
    return "asleep" in job.lines


def files_under(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.processes
def test_a_job_goes_on_when_the_process_that_started_it_ends(run_python, tmp_path):
    folder = Path(run_python(START, str(tmp_path), SLEEP))
    job = until(folder, asleep)
    assert job.running
    jobs.cancel(job, at_once=True)
    assert until(folder, ended).state == "cancelled"


def test_a_job_that_dies_says_how_and_keeps_its_last_lines(start, tmp_path):
    dying = "import os; print('last words', flush=True); os.kill(os.getpid(), 9)"
    job = until(start(tmp_path, dying), ended)
    assert (job.state, job.code, job.lines) == ("failed", -9, ("last words",))
    assert ending_words(job) == "The job was killed (SIGKILL), as happens when memory runs out."


def test_a_job_whose_worker_is_killed_stops_and_is_called_lost(start, tmp_path):
    folder = start(tmp_path, SLEEP)
    until(folder, asleep)
    (worker,) = (pid for pid, child in jobs._CHILDREN.items() if str(folder) in " ".join(child.args))
    os.kill(worker, signal.SIGKILL)
    job = until(folder, ended)
    assert (job.state, job.code) == ("lost", None)
    assert ending_words(job).startswith("The job ended without a message")
    assert "asleep" in job.lines


@pytest.mark.processes
def test_a_job_that_does_not_listen_is_killed_when_asked_again(start, tmp_path):
    deaf = (
        "import signal, time; signal.signal(2, signal.SIG_IGN); print('asleep', flush=True); time.sleep(60)"
    )
    folder = start(tmp_path, deaf)
    job = until(folder, asleep)
    jobs.cancel(job)
    job = until(folder, lambda job: job.stop_requests == 1)
    time.sleep(0.5)
    assert jobs.read_job(folder).running
    assert ending_words(job) == "Stopping after the current checkpoint."
    jobs.cancel(job)
    job = until(folder, ended, within_s=10)
    assert (job.state, job.code) == ("cancelled", -9)


@pytest.mark.processes
def test_a_job_past_its_limit_is_stopped(start, tmp_path):
    job = until(start(tmp_path, SLEEP, limit_s=1.0), ended, within_s=20)
    assert (job.state, job.errors) == ("failed", ("stopped: no answer within 1 s",))


def test_two_jobs_on_one_folder_are_refused(lab_series, tmp_path):
    series, root = lab_series(40), tmp_path / "results"
    folder = jobs.start(root, measuring_task(str(series), [], keep_attention=False, out=root))
    for path in (series, series.parent):
        again = measuring_task(str(path), ["repeat_loss"], keep_attention=False, out=root)
        with pytest.raises(ByroteError, match=r"a job on .* is already running"):
            jobs.start(root, again)
    with pytest.raises(ByroteError, match="this job is already running"):
        jobs.start(root, jobs.read_job(folder).task)
    jobs.cancel(jobs.read_job(folder), at_once=True)
    until(folder, ended)
    assert len(jobs.all_jobs(root)) == 1


def test_a_sweep_of_the_shell_and_a_job_do_not_write_into_one_folder(series_copy, tmp_path):
    import fcntl

    series, root = series_copy(), tmp_path / "results"
    (root / "planted").mkdir(parents=True)
    with (root / "planted" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = measuring_task(str(series), ["repeat_loss"], keep_attention=False, out=root)
        job = until(jobs.start(root, arguments), ended)
    assert job.state == "failed"
    assert "another sweep is writing to" in job.errors[0]
    assert ending_words(job) == "The job ended with code 2."


def test_what_a_user_types_is_an_argument_and_never_a_command(tmp_path):
    evil = "x; touch pwned $(touch pwned) `touch pwned` | touch pwned"
    job = until(jobs.start(tmp_path, measuring_task(evil, [], keep_attention=False, out=tmp_path)), ended)
    assert job.state == "failed"
    assert job.task.paths == (evil,)
    assert not list(tmp_path.rglob("pwned")) and not Path("pwned").exists()
    assert measuring_task("--help", [], keep_attention=False, out=tmp_path).paths == ("./--help",)
    with pytest.raises(ByroteError, match="cannot be shown"):
        measuring_task("a\0b", [], keep_attention=False, out=tmp_path)
    with pytest.raises(ByroteError, match="NUL"):
        jobs.start(tmp_path, Task("run", ("a\0b",)))
    with pytest.raises(ByroteError):
        measuring_task("runs", ["; rm"], keep_attention=False, out=tmp_path)


def test_a_state_folder_that_cannot_be_written_is_said(start, tmp_path, monkeypatch):
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("BYROTE_STATE", str(tmp_path / "state"))
    with pytest.raises(ByroteError, match="cannot write to") as refused:
        start(tmp_path / "results", SLEEP)
    assert "set BYROTE_STATE" in refused.value.help


def test_damaged_notes_of_a_job_do_not_stop_the_page(tmp_path):
    folder = make_place(tmp_path, *jobs.JOBS) / "20260101-000000-00"
    folder.mkdir()
    task = {"verb": "run", "paths": ["x"], "options": {}}
    (folder / "job.json").write_text(json.dumps({"task": task, "started_s": 1}))
    said = [
        '{"event": "checkpoint", "done": "x", "total": 3}',
        "[1",
        '{"a": ' * 5000,
        "\x1b[31mred",
        "error: no",
        "help: yes",
    ]
    (folder / "progress.jsonl").write_text("\n".join(said))
    (job,) = jobs.all_jobs(tmp_path)
    assert (job.state, job.current, job.errors) == ("lost", None, ("no (yes)",))
    (folder / "job.json").write_text("{")
    assert jobs.all_jobs(tmp_path) == []


def test_old_jobs_are_forgotten_and_running_ones_are_not(start, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "MAX_JOBS", 2)
    first = start(tmp_path, SLEEP)
    until(first, asleep)
    for i in range(3):
        until(start(tmp_path, f"print({i})", str(i)), ended)
    kept = [job.folder for job in jobs.all_jobs(tmp_path, most=9)]
    assert first in kept and len(kept) == 3
    jobs.cancel(jobs.read_job(first), at_once=True)
    until(first, ended)


@pytest.mark.processes
def test_the_page_starts_a_sweep_cancels_it_and_resumes_where_it_stopped(
    open_page, lab_series, two_runs, tmp_path, monkeypatch
):
    root, series = tmp_path / "results", lab_series(40)
    shutil.copytree(two_runs, root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = files_under(tmp_path)
    at = open_page("runs", root)
    next(b for b in at.button if b.label == "Start").click().run()
    assert "Name a folder of checkpoints first" in at.error[0].value
    at.text_input(key="job_path").set_value(str(series))
    at.multiselect(key="job_probes").set_value(["prefix_matching", "repeat_loss"])
    at.checkbox(key="job_attention").set_value(True)
    next(b for b in at.button if b.label == "Start").click().run()
    assert not at.exception
    (job,) = jobs.all_jobs(root)
    assert job.running  # from the first moment
    probes = ("-p", "prefix_matching", "-p", "repeat_loss")
    assert job.arguments == ("run", str(series), *probes, "--save-attention", "-o", str(root))
    until(job.folder, lambda job: job.current is not None)
    at.button(key=f"cancel_{job.folder.name}").click().run()
    assert not at.exception
    job = until(job.folder, ended)
    kept = job.current["done"]
    assert (job.state, job.code) == ("cancelled", 130)
    assert 0 < kept < 40
    assert ending_words(job) == (
        f"Stopped at step {job.current['step']}, {kept} of 40 checkpoints saved; Resume measures the rest."
    )
    at.run()
    assert any("Resume measures the rest" in c.value for c in at.caption)
    at.button(key=f"resume_{job.folder.name}").click().run()
    again = jobs.all_jobs(root)[0]
    assert again.arguments == job.arguments
    again = until(again.folder, ended)
    assert (again.state, again.code, again.errors, again.current["done"]) == ("done", 0, (), 40)
    assert len(Results.open(root / "tiny").steps) == 40
    assert [job.state for job in jobs.all_jobs(root)] == ["done", "cancelled"]  # newest first
    assert at.run().exception == []
    written = files_under(tmp_path) - before
    assert all(name.startswith("results/tiny/") for name in written), written
    assert state_root() in job.folder.parents and tmp_path not in job.folder.parents
    assert "results/tiny/arrays/step_00000020/attention.safetensors" in written


@pytest.mark.processes
def test_the_server_may_be_interrupted_and_the_job_goes_on(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-c", f"{START}; time.sleep(60)", str(tmp_path), SLEEP],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    folder = Path(server.stdout.readline().strip())
    until(folder, asleep)
    os.killpg(server.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    server.communicate(timeout=20)
    job = jobs.read_job(folder)
    assert job.running
    jobs.cancel(job, at_once=True)
    until(folder, ended)
