"""`byrote dashboard`: results in the browser, on this machine."""

from __future__ import annotations

import signal
import subprocess
import time
import webbrowser
from pathlib import Path
from types import FrameType

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli.command import Verb
from byrote.cli.session import Session

WAIT_S = 30.0


@click.command(
    cls=Verb,
    examples=(
        "byrote dashboard results",
        "byrote dashboard results/unique results/repeated --port 8600 --no-browser",
    ),
    short_help="Look at results in the browser: heads and circuits across training steps.",
)
@click.argument("paths", metavar="[RESULT...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Port on this machine; the first free one from 8501 on if left out.",
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
@click.pass_obj
def dashboard(session: Session, *, paths: tuple[Path, ...], port: int | None, no_browser: bool) -> int:
    """Open RESULT... in the browser: results folders, or folders of them; ./results if left out.

    The server answers this machine alone, loads no model, sends nothing anywhere, and shows new checkpoints as they
    are measured. Ctrl-C stops it.
    """
    from byrote.dashboard import launch

    results = launch.results_to_open(paths, here=Path.cwd())
    chosen = launch.free_port(port)
    log = None if session.verbose else subprocess.DEVNULL
    signal.signal(signal.SIGTERM, _end)  # a stopped command must not leave its server behind
    server = subprocess.Popen(
        launch.command(port=chosen), env=launch.environment(results), stdout=log, stderr=log
    )
    try:
        _wait_until_up(server, chosen)
        address = f"http://localhost:{chosen}"
        session.data(address)
        session.note("Ctrl-C stops the server; measured and running jobs are kept")
        if not no_browser and not webbrowser.open(address):
            session.warn(f"no browser could be started; open {address} yourself")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(server)


def _end(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_until_up(server: subprocess.Popen, port: int) -> None:
    """Until it answers.

    Raises:
        ByroteError: it ended, or does not answer.
    """
    import socket

    from byrote.dashboard.launch import ADDRESS

    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise ByroteError(
                f"the dashboard's server ended with code {server.returncode}",
                help="run it again with -v to see why",
            )
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex((ADDRESS, port)) == 0:
                return
        time.sleep(0.1)
    raise ByroteError(
        f"the dashboard did not answer within {WAIT_S:.0f} s", help="run it again with -v to see why"
    )


def _stop(server: subprocess.Popen) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
