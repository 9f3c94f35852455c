"""The running server: this machine alone, nothing told to anybody, no torch, new checkpoints as they come, nothing written."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from interruptible import heed_interrupts
from planted_series import STEPS, rising, write_results, write_step
from streamlit_client import addresses_of, visit

from byrote.dashboard import launch
from byrote.dashboard.library import _READ, PATHS_VARIABLE, look, of_variable, open_library
from byrote.dashboard.state import place_of
from byrote.dashboard.views import PAGES

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


@pytest.fixture
def server(two_runs, users_folder, tmp_path) -> Iterator[tuple[subprocess.Popen, str]]:
    """`byrote dashboard` as a person starts it in a folder of theirs, on a free port, with a home of its own."""
    port = launch.free_port(None)
    code = "import sys; from byrote.cli.main import main; sys.exit(main())"  # as the installed command does
    command = ["dashboard", str(two_runs), "--no-browser", "--port", str(port), "-v"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=users_folder,
        env={**os.environ, "HOME": str(tmp_path / "home")},
        preexec_fn=heed_interrupts,
    )
    try:
        assert process.stdout is not None
        address = _line_with(process, "http").strip()
        assert address.startswith(f"http://localhost:{port}/?token=")
        yield process, address
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def _line_with(process: subprocess.Popen, word: str) -> str:
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError("the server said no address")


@pytest.mark.processes  # `make test` has the server of tests/safety/test_server.py
@pytest.mark.skipif(
    not Path("/proc/net/tcp").is_file(), reason="no /proc: the kernel's table of sockets is not readable"
)
def test_the_server_is_this_machines_and_reads_nothing_in_the_users_folder(server, users_folder, tmp_path):
    process, address = server
    port = int(urlsplit(address).port or 0)
    assert addresses_of(port) == {"0100007F"}  # 127.0.0.1
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    where = Path(f"/proc/{child}/cwd")
    assert where.resolve() == launch.SCRIPT.parent  # Streamlit looks for modules and settings where it starts
    seen = visit(address)
    assert seen.finished and seen.errors == [] and "plotly_chart" in seen.elements
    assert where.resolve() == users_folder  # relative paths are meant from here
    assert "libtorch" not in Path(f"/proc/{child}/maps").read_text()  # the process that draws the pages
    assert not list(users_folder.rglob("*.imported"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    assert addresses_of(port) == set()
    assert not list((tmp_path / "home").rglob("*"))  # neither a configuration nor an installation id


def test_beside_the_script_no_module_can_shadow_another():
    """Streamlit puts the folder of its script first on the path of imports."""
    names = {p.name for p in launch.SCRIPT.parent.glob("*.py")} - {"__init__.py"}
    assert names == {launch.SCRIPT.name, launch.PROGRAM.name}
    assert all(name.startswith("byrote_") for name in names)


def test_nothing_is_told_to_anybody():
    options = launch.options(port=1)
    assert options["browser.gatherUsageStats"] is False
    assert options["server.headless"] is True  # no question about an e-mail address
    assert options["logger.hideWelcomeMessage"] is True  # which would look up this machine's external address
    assert "https://" not in str(options)


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
        assert run.steps[-1] == step
    assert [r for _, r in _READ.values() if r.path == folder] == [run]


def test_a_path_may_hold_any_character(tmp_path):
    root = tmp_path / "a:b;c [d] \udcff"
    write_results(root, "still", {0: rising()[0]})
    env = launch.environment([root, tmp_path])
    assert of_variable(env[PATHS_VARIABLE]) == (root, tmp_path)
    assert list(open_library(of_variable(env[PATHS_VARIABLE])[:1]).runs) == ["still"]


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
    assert not place_of(root).exists()
