"""The running server: this machine alone, nothing told to anybody, no torch, new checkpoints as they come, nothing written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from interruptible import heed_interrupts
from planted_series import STEPS, rising, write_results, write_step
from streamlit_client import visit

from byrote.dashboard import jobs, launch
from byrote.dashboard.library import _READ, look, open_library
from byrote.dashboard.views import PAGES

SCRIPT_NAME = "byrote_dashboard_script.py"


@pytest.fixture
def server(two_runs, tmp_path) -> Iterator[tuple[subprocess.Popen, int]]:
    """`byrote dashboard` as a person starts it, on a free port, with a home of its own."""
    with socket.socket() as probe:
        probe.bind((launch.ADDRESS, 0))
        port = probe.getsockname()[1]
    command = ["-m", "byrote", "dashboard", str(two_runs), "--no-browser", "--port", str(port), "-v"]
    env = {**os.environ, "HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env=env,
        preexec_fn=heed_interrupts,
    )
    try:
        assert process.stdout is not None
        assert f"http://localhost:{port}" in _line_with(process, "http")
        yield process, port
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def _line_with(process: subprocess.Popen, word: str) -> str:
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError("the server said no address")


def addresses_of(port: int) -> set[str]:
    """Local addresses somebody listens on at a port, from the kernel's own table."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            host, _, number = local.rpartition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(host)
    return found


@pytest.mark.skipif(
    not Path("/proc/net/tcp").is_file(), reason="no /proc: the kernel's table of sockets is not readable"
)
def test_the_server_listens_on_this_machine_alone_and_stops_with_the_command(server, tmp_path):
    process, port = server
    assert addresses_of(port) == {"0100007F"}  # 127.0.0.1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=10) as answer:
        assert answer.read() == b"ok"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    modules = Path(f"/proc/{children[0]}/maps").read_text()
    assert "libtorch" not in modules  # the process that draws the pages
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert addresses_of(port) == set()
    assert not list((tmp_path / "home").rglob("*"))  # neither a configuration nor an installation id


EVIL = (
    "from pathlib import Path; Path(__file__).with_suffix('.imported').touch(); raise ImportError(__file__)"
)


@pytest.fixture
def users_folder(tmp_path) -> Path:
    """A working directory whose modules and configuration must stay unread."""
    folder = tmp_path / "users folder"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".streamlit").mkdir()
    (folder / ".streamlit" / "config.toml").write_text("[server]\nenableXsrfProtection = 'no boolean'\n")
    names = (
        "app",
        "streamlit",
        "probes",
        "byrote",
        "jobs",
        "export",
        "main",
        "numpy",
        "checkpoints/__init__",
    )
    for name in names:
        (folder / f"{name}.py").write_text(EVIL)
    return folder


def test_modules_in_the_users_folder_and_beside_the_script_are_not_imported(users_folder, two_runs):
    """Streamlit puts the folder of its script first on the path; relative paths are still the user's."""
    code = """
import os, sys
from pathlib import Path
from streamlit.testing.v1 import AppTest
from streamlit.web.bootstrap import _fix_sys_path
from byrote.dashboard.launch import SCRIPT
_fix_sys_path(str(SCRIPT))
at = AppTest.from_file(SCRIPT, default_timeout=60).run()
assert not at.exception, at.exception
print(os.getcwd())
print(sorted(name for name in sys.modules if getattr(sys.modules[name], "__file__", None)
             and Path(sys.modules[name].__file__).parent == SCRIPT.parent))
"""
    env = launch.environment([two_runs], here=users_folder)
    done = subprocess.run(
        [*launch.command(port=1)[:2], "-c", code], cwd=launch.SCRIPT.parent, env=env, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(users_folder), "['__main__']"]
    assert {p.name for p in launch.SCRIPT.parent.glob("*.py")} == {"__init__.py", SCRIPT_NAME}
    assert not list(users_folder.rglob("*.imported"))


def test_the_server_starts_elsewhere_and_draws_its_pages_in_the_users_folder(
    users_folder, two_runs, monkeypatch
):
    monkeypatch.chdir(users_folder)
    port = launch.free_port(None)
    process = launch.start([two_runs], port=port, output=subprocess.DEVNULL)
    where = Path(f"/proc/{process.pid}/cwd")
    try:
        _until_it_answers(process, port)
        assert where.resolve() == launch.SCRIPT.parent
        seen = visit(port)
        assert seen.finished and seen.errors == [] and "plotly_chart" in seen.elements
        assert where.resolve() == users_folder
        assert not list(users_folder.rglob("*.imported"))
    finally:
        process.terminate()
        process.wait(timeout=20)


def _until_it_answers(process: subprocess.Popen, port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health"):
            return
        time.sleep(0.05)
    raise AssertionError(f"the server does not answer; it ended with {process.poll()}")


def test_nothing_is_told_to_anybody():
    options = launch.flags(port=1)
    assert "--browser.gatherUsageStats=false" in options
    assert "--server.headless=true" in options  # no question about an e-mail address
    assert not [o for o in options if "http://" in o or "https://" in o]


def test_a_port_in_use_is_said_and_another_is_found():
    with socket.socket() as held:
        held.bind((launch.ADDRESS, 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(Exception, match=f"port {port} is in use"):
            launch.free_port(port)
    assert launch.free_port(None) >= launch.DEFAULT_PORT


def test_new_checkpoints_appear_without_a_restart(open_page, tmp_path):
    units = rising()
    folder = write_results(tmp_path, "live", {0: units[0], 10: units[10]}, status="running")
    at = open_page("trajectory", tmp_path)
    assert at.session_state["w_step"] == 10
    write_step(folder, "live", 20, units[20])
    at.run()  # the page looks every few seconds; a test asks it to
    assert not at.exception
    assert at.session_state["byrote_state"].step == 20  # nobody chose a step: the last one is shown
    at = open_page("trajectory", tmp_path, step=10)
    write_step(folder, "live", 40, units[40])
    at.run()
    assert at.session_state["byrote_state"].step == 10  # a chosen step stays
    assert 40 in open_library([tmp_path]).runs["live"].steps


def test_a_folder_that_changes_is_kept_once(tmp_path):
    units = rising()
    folder = write_results(tmp_path, "growing", {0: units[0]}, rebuild=False)
    seen = set()
    for step in STEPS[1:]:
        write_step(folder, "growing", step, units[step])
        run = open_library([tmp_path]).runs["growing"]
        seen.add(id(run))
        assert run.measured_steps[-1] == step
    assert [r for r in _READ.values() if r.path == folder] == [run]


def test_looking_is_cheap_and_sees_every_change(tmp_path):
    folder = write_results(tmp_path, "watched", rising())
    before = look([tmp_path])
    assert look([tmp_path]) == before
    (folder / "run.json").touch()
    assert look([tmp_path]) != before


def test_looking_at_every_page_writes_nothing(open_page, tmp_path):
    root = tmp_path / "results"
    write_results(root, "still", {s: u for s, u in rising().items() if s < 40}, rebuild=False)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    for page in PAGES:
        assert not open_page(page, root).exception
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    assert not (root / jobs.FOLDER).exists()
