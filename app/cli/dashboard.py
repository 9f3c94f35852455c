"""`byrote dashboard`: results in the browser, on this machine."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
import webbrowser
from pathlib import Path
from types import FrameType
from typing import IO

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli import options
from byrote.cli.command import argument, flag, option, verb
from byrote.cli.session import Session

WAIT_S = 30.0
_LINES_SHOWN = 12
_STOPPED = (-signal.SIGINT, -signal.SIGTERM)  # by a person, who meant it


@verb(
    "byrote dashboard results",
    "byrote dashboard results/unique results/repeated --port 8600 --no-browser",
)
def dashboard(
    session: Session,
    *,
    paths: tuple[Path, ...] = argument("[RESULT...]", nargs=-1, type=options.PATH),
    port: int | None = option(
        "Port on this machine; if left out, the first free one from 8501.",
        type=click.IntRange(1, 65535),
        metavar="N",
    ),
    no_browser: bool = flag("Print the address without opening a browser."),
    allow_origin: tuple[str, ...] = option(
        "Also accept requests for this address, such as http://localhost:9000 with `ssh -L 9000:localhost:8501`; repeat for more.",
        multiple=True,
        metavar="URL",
    ),
) -> int:
    """Open RESULT... in the browser: results folders, or folders of them; ./results if left out.

    The server answers only this machine, and only the browser in which the printed address was opened. It loads no
    model, sends nothing anywhere, and shows new checkpoints as they are measured. Ctrl-C stops it.
    """
    from byrote.dashboard import launch

    results = launch.results_to_open(paths, here=Path.cwd())
    chosen = launch.free_port(port)
    signal.signal(signal.SIGTERM, _end)  # a stopped command must not leave its server behind
    with tempfile.NamedTemporaryFile("r", errors="replace") as log, Path(log.name).open("wb") as sink:
        server = launch.start(
            results, port=chosen, output=None if session.verbose else sink, origins=allow_origin
        )
        try:
            _wait_until_up(server.process, chosen, log)
            session.data(server.address)
            session.note("Ctrl-C stops the server; results are saved, and running jobs continue")
            if not no_browser and not webbrowser.open(server.address_once):
                session.warn("no browser could be started; open the address by hand")
            return _watch(session, server.process, log)
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(server.process)


def _end(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    """Until it answers.

    Raises:
        ByroteError: it ended, or does not answer; with the last lines it wrote.
    """
    from byrote.dashboard.launch import answers

    end = time.monotonic() + WAIT_S
    failed = f"the dashboard did not answer within {WAIT_S:.0f} s"
    while time.monotonic() < end:
        if server.poll() is not None:
            failed = f"the dashboard's server ended with code {server.returncode}"
            break
        if answers(port):
            return
        time.sleep(0.1)
    raise ByroteError(failed, help=f"run it again with -v to see why. {_tail(log.read())}".rstrip())


def _watch(session: Session, server: subprocess.Popen[bytes], log: IO[str]) -> int:
    """The server's exit code. A page that fails says nothing in the browser: its error is shown here."""
    written = ""
    while True:
        try:
            code = server.wait(timeout=0.5)
            return 0 if code in _STOPPED else code
        except subprocess.TimeoutExpired:
            more = log.read()
        if not more and "Traceback" in written:  # complete: nothing was added since
            session.warn("a page failed; the last lines of the server's log:")
            for line in _tail(written).splitlines():
                session.warn(f"  {line}")
        written = written + more if more else ""


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LINES_SHOWN:])


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()  # nothing where it has ended
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
