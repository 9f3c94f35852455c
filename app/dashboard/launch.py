"""Start the server: on this machine alone, without network requests, in the project's colours. No Streamlit import.

What is in the folder a person happens to stand in must not steer it, whoever put it there: the server starts in a folder
of byrote's own, imports nothing from the working folder or from results, and gets every setting that protects it here.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.guard import TOKEN, origins_of
from byrote.dashboard.library import (
    DIRECTORY_VARIABLE,
    PATHS_VARIABLE,
    as_variable,
    is_run_folder,
    run_folders,
)
from byrote.probes.figures.theme import TOKENS
from byrote.probes.results.series_place import where_results_are

ADDRESS, OTHER_ADDRESS = "127.0.0.1", "::1"
DEFAULT_PORT = 8501
ANSWERS_WITHIN_S = 5.0
# Every run of a page is a thread, which would keep a heap of its own, and makes messages and tables of megabytes that
# are let go at once: those are mapped one by one and given back, instead of leaving holes in a heap.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
SCRIPT = Path(__file__).with_name("entry") / "byrote_dashboard_script.py"
PROGRAM = SCRIPT.with_name("byrote_dashboard_server.py")
# Places that Python takes code from: a person may set them, the working folder and results may not be among them.
_SEARCH_PATH = "PYTHONPATH"
_PLACES = ("PYTHONHOME", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONEXECUTABLE")
_STREAMLITS_OWN = "STREAMLIT_"
_NO_SECRETS = str(SCRIPT.with_name("byrote_no_secrets.toml"))  # is not there


@dataclass(frozen=True)
class Server:
    """A server that was started.

    Attributes:
        process: it.
        port: on this machine.
        token: what opens its pages.
        once: what opens them one time.
    """

    process: subprocess.Popen[bytes]
    port: int
    token: str
    once: str

    @property
    def address(self) -> str:
        """What to open in a browser once; its pages have addresses without the token from then on."""
        return self._address(self.token)

    @property
    def address_once(self) -> str:
        """The same for one time: the command line of a browser can be read by everybody on this machine."""
        return self._address(self.once)

    def _address(self, token: str) -> str:
        return f"http://localhost:{self.port}/?{urlencode({TOKEN: token})}"


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
            raise ByroteError(f"{path} is not a folder", help="`byrote run PATH -o results` creates one")
        if not run_folders([path]) and not is_run_folder(path) and _holds_something(path):
            raise ByroteError(
                f"{path} contains no results",
                help=where_results_are(path),
            )
    return [path.resolve() for path in given]


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError as error:
        raise ByroteError(
            f"{folder} cannot be read ({error.strerror})", help="check its permissions"
        ) from None


def start(
    paths: Sequence[Path], *, port: int, output: IO[bytes] | int | None, origins: Sequence[str] = ()
) -> Server:
    """Start the server, from a folder in which it can find no module and no configuration of the user's.

    Args:
        paths: results folders to open.
        port: on this machine.
        output: where what it says goes; None for where this process's own words go.
        origins: further addresses under which a browser finds it, such as the near end of a tunnel.

    Raises:
        ByroteError: one of the origins is none.
    """
    origins_of(port, origins)
    token, once = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    settings = {"port": port, "token": token, "once": once, "origins": [*origins]}
    process = subprocess.Popen(
        command(), env=environment(paths), cwd=SCRIPT.parent, stdin=subprocess.PIPE, stdout=output, stderr=output
    )  # fmt: skip
    assert process.stdin is not None
    try:  # a command line can be read by everybody on this machine, and a variable by every process it starts
        with process.stdin as line:
            line.write(json.dumps(settings).encode() + b"\n")
    except BrokenPipeError:
        pass  # it has ended already; who waits for its answer will see that
    process.stdin = None  # said is said
    return Server(process, port, token, once)


def answers(port: int) -> bool:
    """Whether a server on this port of this machine answers a request, with a refusal or otherwise."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=ANSWERS_WITHIN_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def command() -> list[str]:
    """The server's command line."""
    return [sys.executable, "-P", str(PROGRAM)]


def options(*, port: int) -> dict[str, Any]:
    """Streamlit's options. Everything that protects is said here, so that no configuration file can take it back."""
    return {
        "global.developmentMode": False,
        "server.address": ADDRESS,
        "server.port": port,
        "server.baseUrlPath": "",
        "server.headless": True,
        "server.allowedHosts": [],  # `guard` compares the whole of it, and knows of tunnels
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [],
        "server.enableXsrfProtection": True,
        "server.xsrfCookieSameSite": "strict",
        "server.trustedUserHeaders": {},
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.scriptHealthCheckEnabled": False,
        "server.customComponentBaseUrlPath": "",
        "server.fileWatcherType": "none",
        "server.folderWatchList": [],
        "server.runOnSave": False,
        "server.allowRunOnSave": False,
        "server.maxUploadSize": 1,  # in MB; no page takes files
        "secrets.files": [_NO_SECRETS],
        "runner.magicEnabled": False,
        "browser.gatherUsageStats": False,
        "browser.serverAddress": "localhost",  # else Streamlit asks a server on the internet for this machine's address
        "browser.serverPort": port,
        "logger.hideWelcomeMessage": True,
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "client.allowedOrigins": [
            f"http://localhost:{port}"
        ],  # else pages of Streamlit's cloud may send messages
        **theme(),
    }


def environment(
    paths: Sequence[Path], *, here: Path | None = None, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The server's environment: where the results and the user are, and how memory is given back.

    Args:
        paths: results folders to open.
        here: the working folder.
        given: this process's own environment.

    Returns:
        What is given, without Streamlit's variables and without places for Python code in `here` or in results.
    """
    here = (here or Path.cwd()).resolve()
    env = {name: value for name, value in given.items() if not name.startswith(_STREAMLITS_OWN)}
    for name, value in ALLOCATOR.items():
        env.setdefault(name, value)
    untrusted = (here, *(Path(path).resolve() for path in paths))
    entries = env.pop(_SEARCH_PATH, "").split(os.pathsep)
    if kept := [entry for entry in entries if _is_trusted(entry, untrusted)]:
        env[_SEARCH_PATH] = os.pathsep.join(kept)
    for name in _PLACES:
        if not _is_trusted(env.get(name, ""), untrusted):
            env.pop(name, None)
    env[PATHS_VARIABLE] = as_variable(paths)
    env[DIRECTORY_VARIABLE] = str(here)
    return env


def _is_trusted(entry: str, untrusted: Sequence[Path]) -> bool:
    """Whether a person meant this place, wherever they stand: neither relative nor one of these folders."""
    return Path(entry).is_absolute() and Path(entry).resolve() not in untrusted


def theme() -> dict[str, Any]:
    """Light and dark, both from the figures' own tokens."""
    options: dict[str, Any] = {}
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
        "theme.headingFontSizes": ["1.65rem", "1.15rem", "1.15rem"],
        "theme.metricValueFontSize": "1.6rem",
        "theme.baseRadius": "6px",
        "theme.showWidgetBorder": True,
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
                if (held := hold_other_address(port)) is not None:
                    held.close()
            except OSError:
                continue
            return port
    raise ByroteError(
        f"port {wanted or DEFAULT_PORT} is in use", help="name another: byrote dashboard --port 8600"
    )


def hold_other_address(port: int) -> socket.socket | None:
    """Take the port of this machine's IPv6 address, on which nobody answers.

    To a browser that is `localhost` too, and the first that it tries: another user of this machine who listened there
    would get the key. None where this machine has no IPv6.

    Raises:
        OSError: somebody has it.
    """
    try:
        held = socket.socket(socket.AF_INET6)
    except OSError:
        return None
    try:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.bind((OTHER_ADDRESS, port))
    except OSError as error:
        held.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return None
        raise
    return held
