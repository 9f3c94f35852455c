"""Start the server: on this machine alone, without network requests, in the project's colours. No Streamlit import."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.library import DIRECTORY_VARIABLE, PATHS_VARIABLE, is_run_folder, run_folders
from byrote.probes.figures.theme import TOKENS

ADDRESS = "127.0.0.1"
DEFAULT_PORT = 8501
# Every run of a page is a thread, which would keep a heap of its own, and makes messages and tables of megabytes that
# are let go at once: those are mapped one by one and given back, instead of leaving holes in a heap.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "262144",
    "MALLOC_TRIM_THRESHOLD_": "262144",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
SCRIPT = Path(__file__).with_name("entry") / "byrote_dashboard_script.py"


def results_to_open(given: Sequence[Path], *, here: Path) -> list[Path]:
    """The folders named, or the results that are here.

    Args:
        given: what was named.
        here: the working directory.

    Raises:
        ByroteError: a path is not there, or is no results folder.
    """
    if not given:
        return [here / "results"]
    for path in given:
        if not path.is_dir():
            raise ByroteError(f"{path} is not a folder", help="`byrote run PATH -o results` makes one")
        if not run_folders([path]) and not is_run_folder(path) and any(path.iterdir()):
            raise ByroteError(
                f"{path} holds no results",
                help="name a results folder, or a folder of them: byrote dashboard results",
            )
    return [path.resolve() for path in given]


def start(paths: Sequence[Path], *, port: int, output: IO[bytes] | int | None) -> subprocess.Popen[bytes]:
    """Start the server, from a folder in which it can find no module and no configuration of the user's.

    Args:
        paths: results folders to open.
        port: on this machine.
        output: where what it says goes; None for where this process's own words go.
    """
    return subprocess.Popen(
        command(port=port), env=environment(paths), cwd=SCRIPT.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )  # fmt: skip


def command(*, port: int) -> list[str]:
    """The server's command line. Everything is said here, so that no configuration file can open it to the network."""
    return [sys.executable, "-P", "-m", "streamlit", "run", str(SCRIPT), *flags(port=port)]


def flags(*, port: int) -> list[str]:
    """Options of `streamlit run`."""
    options = {
        "global.developmentMode": "false",
        "server.address": ADDRESS,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.runOnSave": "false",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": "localhost",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        **theme(),
    }
    return [f"--{name}={value}" for name, value in options.items()]


def environment(paths: Sequence[Path], *, here: Path | None = None) -> dict[str, str]:
    """The server's environment: where the results and the user are, and how memory is given back."""
    env = dict(os.environ)
    for name, value in ALLOCATOR.items():
        env.setdefault(name, value)
    env[PATHS_VARIABLE] = os.pathsep.join(str(Path(p).resolve()) for p in paths)
    env[DIRECTORY_VARIABLE] = str(here or Path.cwd())
    return env


def theme() -> dict[str, str]:
    """Light and dark, both from the figures' own tokens."""
    options: dict[str, str] = {}
    for index, name in enumerate(("light", "dark")):
        paint = {token: pair[index] for token, pair in TOKENS.items()}
        colours = {
            "primaryColor": paint["series0"],
            "backgroundColor": paint["paper"],
            "secondaryBackgroundColor": paint["void"],
            "textColor": paint["ink"],
            "borderColor": paint["context"],
            "linkColor": paint["series0"],
        }
        options |= {f"theme.{name}.{key}": value for key, value in colours.items()}
        options[f"theme.{name}.sidebar.backgroundColor"] = paint["void"]
        options[f"theme.{name}.sidebar.secondaryBackgroundColor"] = paint["paper"]
    return options | {
        "theme.headingFontSizes": '["1.65rem", "1.3rem", "1.15rem"]',
        "theme.metricValueFontSize": "1.6rem",
        "theme.baseRadius": "6px",
        "theme.showWidgetBorder": "true",
    }


def free_port(wanted: int | None) -> int:
    """The port requested, or the first free one from the usual on.

    Raises:
        ByroteError: the port requested is taken.
    """
    candidates = [wanted] if wanted is not None else range(DEFAULT_PORT, DEFAULT_PORT + 50)
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ADDRESS, port))
            except OSError:
                continue
            return port
    raise ByroteError(
        f"port {wanted or DEFAULT_PORT} is in use", help="name another: byrote dashboard --port 8600"
    )
