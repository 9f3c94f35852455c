"""`byrote dashboard` when something fails: the server's own words are shown."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit_client import visit

from byrote.dashboard import launch

pytestmark = pytest.mark.processes  # `make test` has the server of tests/safety/test_server.py
BROKEN = "import sys\nprint('a page is drawn', file=sys.stderr)\nraise ValueError('the page is broken')\n"


@pytest.fixture
def failing(tmp_path: Path):
    """`byrote dashboard` with a page, or a server, that fails, in a process of its own."""

    def start(change: str) -> subprocess.Popen:
        port = launch.free_port(None)
        code = (
            "import sys\nfrom pathlib import Path\nfrom byrote.dashboard import launch\n"
            f"{change}\nfrom byrote.cli.main import cli\n"
            f"sys.argv = ['byrote', 'dashboard', '--no-browser', '--port', '{port}']\ncli()\n"
        )
        (tmp_path / "page.py").write_text(BROKEN)
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.port = port  # type: ignore[attr-defined]
        return process

    return start


def test_a_server_that_does_not_start_says_why(failing):
    process = failing("launch.command = lambda: [sys.executable, '-c', 'raise ValueError(\"no server\")']")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "ended with code 1" in said
    assert "ValueError: no server" in said


def test_a_page_that_fails_shows_the_end_of_its_log(failing, tmp_path):
    program = tmp_path / "server.py"
    program.write_text(launch.PROGRAM.read_text().replace("launch.SCRIPT.name", "'page.py'"))
    process = failing(f"launch.PROGRAM = Path({str(program)!r})")
    address = process.stdout.readline().strip()
    assert address.startswith(f"http://localhost:{process.port}/?token=")
    visit(address)
    said = ""
    while "the page is broken" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert "a page failed" in said
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
