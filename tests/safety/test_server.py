"""An attacker client: every wrong Host, Origin and key on every kind of address, from a working folder full of traps."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from streamlit_client import addresses_of, key_of, visit

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import launch
from byrote.dashboard.guard import FOREIGN, NO_KEY, origins_of

TRAP = "from pathlib import Path; Path(__file__).with_suffix('.imported').touch(); raise SystemExit(__file__)"
TRAPS = (
    "app", "streamlit", "byrote", "sitecustomize", "usercustomize", "tornado", "uvicorn", "starlette", "json", "numpy", "torch",
    "page", "jobs", "layout", "streamlit_app",
)  # fmt: skip
CONFIG = """
[server]
enableCORS = false
enableXsrfProtection = false
address = "0.0.0.0"
enableStaticServing = true
enableAgentApi = true
fileWatcherType = "poll"
[global]
developmentMode = true
[browser]
serverAddress = "evil.example"
gatherUsageStats = true
[client]
showErrorDetails = "full"
[runner]
magicEnabled = true
"""
VARIABLES = {
    "STREAMLIT_SERVER_ADDRESS": "0.0.0.0",
    "STREAMLIT_SERVER_ENABLE_CORS": "false",
    "STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION": "false",
    "STREAMLIT_SERVER_ENABLE_STATIC_SERVING": "true",
    "STREAMLIT_SERVER_COOKIE_SECRET": "known",
    "STREAMLIT_GLOBAL_DEVELOPMENT_MODE": "true",
    "STREAMLIT_SECRETS_FILES": "secrets.toml",
}
PATHS = (
    "/", "/trajectory", "/static/index.html", "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/media/x.png",
    "/component/x/index.html", "/_stcore/bidi-components/x/index.js", "/_stcore/agent/openapi.json", "/app/static/app.py",
    "/_stcore/stream", "/favicon.png", "//evil.example/", "/..%2f..%2fetc/passwd",
)  # fmt: skip
FOREIGN_HOSTS = (
    "evil.example", "evil.example:{port}", "localhost", "127.0.0.1", "localhost:1", "localhost:{port}.evil.example",
    "localhost.:{port}", "0.0.0.0:{port}", "127.1:{port}", "[::1]:{port}", "x@localhost:{port}", "",
)  # fmt: skip
FOREIGN_ORIGINS = (
    "http://evil.example", "http://evil.example:{port}", "null", "http://localhost:1", "http://localhost", "https://localhost:{port}",
    "http://127.0.0.1:{port}", "http://localhost:{port}.evil.example", "http://localhost:{port}@evil.example", "file://", "",
    "http://localhost:{port}/",
)  # fmt: skip


@pytest.fixture(scope="module")
def trap(tmp_path_factory) -> Path:
    """A working folder in which every name that Python or Streamlit might look for is a trap."""
    folder = tmp_path_factory.mktemp("trap")
    for name in TRAPS:
        (folder / f"{name}.py").write_text(TRAP)
    (folder / ".streamlit").mkdir()
    (folder / ".streamlit" / "config.toml").write_text(CONFIG)
    (folder / ".streamlit" / "secrets.toml").write_text(
        "[auth]\ncookie_secret = 'known'\nredirect_uri = 'http://evil'\n"
    )
    (folder / "results").mkdir()
    (folder / "results" / ".streamlit").symlink_to(folder / ".streamlit")
    return folder


@pytest.fixture(scope="module")
def server(trap) -> Iterator[launch.Server]:
    """A real server, started from there, with Python and Streamlit pointed there by every variable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trap)
        patch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(trap), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("PYTHONUSERBASE", "relative")
        patch.setenv("PYTHONPYCACHEPREFIX", str(trap))
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        started = launch.start([trap / "results"], port=launch.free_port(None), output=subprocess.PIPE)
    try:
        until_it_answers(started)
        yield started
    finally:
        started.process.terminate()
        said = started.process.communicate(timeout=20)[0].decode()
        assert "Traceback" not in said, said


def until_it_answers(server: launch.Server) -> None:
    end = time.monotonic() + 30
    while not launch.answers(server.port):
        assert server.process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def key(server) -> str:
    return key_of(server.address)


def ask(
    port: int, path: str, *headers: tuple[str, str], method: str = "GET"
) -> tuple[int, dict[str, str], str]:
    """One request with exactly these headers; (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return (
            answer.status,
            {k.lower(): v for k, v in answer.getheaders()},
            answer.read().decode("utf-8", "replace"),
        )
    finally:
        connection.close()


def shake_hands(port: int, *headers: tuple[str, str]) -> int:
    """The status of a request for the WebSocket; 101 opens it."""
    upgrade = (
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", "streamlit"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        lines = [f"{name}: {value}" for name, value in (*headers, *upgrade)]
        line.sendall("\r\n".join(["GET /_stcore/stream HTTP/1.1", *lines, "", ""]).encode("latin-1"))
        return int(line.recv(64).split()[1])


def own(port: int, name: str = "localhost") -> tuple[tuple[str, str], tuple[str, str]]:
    return ("Host", f"{name}:{port}"), ("Origin", f"http://{name}:{port}")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_every_address_is_refused(server, path):
    host, origin = own(server.port)
    cookie = f"byrote_{server.port}"
    for more in (
        (),
        (origin,),
        (("Cookie", f"{cookie}=wrong"),),
        (("Cookie", f"{cookie}="),),
        (("Cookie", "byrote_1=x"),),
    ):
        status, headers, said = ask(server.port, path, host, *more)
        assert (status, said) == (403, NO_KEY + "\n")
        assert "set-cookie" not in headers
    for token in ("", "wrong", server.token[:-1], "%00", "\xe9"):
        assert (
            ask(server.port, f"{path}?token={token.encode().hex() if token > '~' else token}", host)[0] == 403
        )


@pytest.mark.parametrize("path", PATHS)
def test_under_another_name_or_from_another_page_even_the_key_is_of_no_use(server, key, path):
    host, origin = own(server.port)
    cookie = ("Cookie", key)
    for foreign in FOREIGN_HOSTS:
        name = foreign.format(port=server.port)
        same = ("Origin", f"http://{name}")
        for more in (
            (),
            (origin,),
            (same,),
        ):  # a name that was rebound to this machine has the Origin of that name
            status, _, said = ask(server.port, path, ("Host", name), *more, cookie)
            assert status in (400, 403) and "Traceback" not in said, (name, more, status)
        assert ask(server.port, f"{path}?token={server.token}", ("Host", name))[0] in (400, 403)
    for foreign in FOREIGN_ORIGINS:
        status, _, said = ask(server.port, path, host, ("Origin", foreign.format(port=server.port)), cookie)
        assert (status, said) == (403, FOREIGN + "\n"), foreign
    assert ask(server.port, path, host, ("Host", "evil.example"), cookie)[0] in (400, 403)
    assert ask(server.port, path, host, origin, ("Origin", "http://evil.example"), cookie)[0] == 403


@pytest.mark.parametrize("site", ("cross-site", "same-site"))
def test_another_page_can_include_no_part_of_ours_and_may_link_to_it(server, key, site):
    host, cookie = own(server.port)[0], ("Cookie", key)
    for mode, into in (
        ("no-cors", "script"),
        ("no-cors", "image"),
        ("cors", "empty"),
        ("navigate", "iframe"),
        ("navigate", "object"),
    ):
        asks = (("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", into))
        assert ask(server.port, "/", host, *asks, cookie)[0] == 403
    asks = (("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"))
    assert ask(server.port, "/", host, *asks, cookie)[0] == 200
    assert ask(server.port, "/", host, *asks)[0] == 403


@pytest.mark.parametrize("method", ("PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"))
def test_whatever_changes_something_needs_an_origin(server, key, method):
    host, origin = own(server.port)
    path = "/_stcore/upload_file/session/file"
    foreign = ("Origin", "http://evil.example")
    for more in ((), (origin,), (foreign,), (("Cookie", key),), (foreign, ("Cookie", key))):
        status, headers, _ = ask(server.port, path, host, *more, method=method)
        assert status in (400, 403, 405), more
        assert not [name for name in headers if name.startswith("access-control-")]
    status, headers, _ = ask(server.port, path, host, origin, ("Cookie", key), method=method)
    assert status != 200 or method == "OPTIONS"
    assert not [name for name in headers if name.startswith("access-control-")]


def test_the_websocket_opens_for_the_key_under_its_own_name_alone(server, key):
    port, cookie = server.port, ("Cookie", key)
    for name in ("localhost", "127.0.0.1"):
        assert shake_hands(port, *own(port, name), cookie) == 101
        assert shake_hands(port, *own(port, name)) == 403
        assert shake_hands(port, *own(port, name), ("Cookie", f"byrote_{port}=wrong")) == 403
        assert shake_hands(port, own(port, name)[0], cookie) == 403  # browsers always say where they are
    host, origin = own(port)
    for foreign in FOREIGN_ORIGINS:
        assert shake_hands(port, host, ("Origin", foreign.format(port=port)), cookie) == 403
    for foreign in FOREIGN_HOSTS:
        name = foreign.format(port=port)
        for said in (origin, ("Origin", f"http://{name}")):
            assert shake_hands(port, ("Host", name), said, cookie) in (400, 403)
    for site in ("cross-site", "same-site"):
        assert shake_hands(port, host, origin, ("Sec-Fetch-Site", site), cookie) == 403
    assert (
        shake_hands(port, host, origin, ("Cookie", f"byrote_{port}=planted; {key}")) == 101
    )  # by another port


def test_the_printed_address_gives_the_key_and_leaves_no_trace_of_it(server):
    host = own(server.port)[0]
    query = f"run=a&token={server.token}&step=1"
    for path, to in (
        ("/", "/"),
        ("/trajectory", "/trajectory"),
        ("//evil.example/x", "/evil.example/x"),
        ("/%5cevil", "/evil"),
    ):
        status, headers, said = ask(server.port, f"{path}?{query}", host)
        assert (status, said, headers["location"]) == (303, "", f"{to}?run=a&step=1")
        cookie = headers["set-cookie"]
        assert cookie.startswith(f"byrote_{server.port}=") and server.token not in cookie
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert headers["cache-control"] == "no-store"
    assert f"token={server.token}" in server.address
    environ, line = (Path(f"/proc/{server.process.pid}/{name}") for name in ("environ", "cmdline"))
    if line.is_file():  # other users may read the one, programs that it starts the other
        assert server.token.encode() not in line.read_bytes() + environ.read_bytes()


def test_a_link_from_elsewhere_is_asked_for_once_more(server, key):
    host = own(server.port)[0]
    followed = (
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "document"),
    )
    status, headers, said = ask(server.port, "/head?run=a&name=%22%3E%3Cscript%3E", host, *followed)
    again = "/head?run=a&name=%22%3E%3Cscript%3E&token="
    assert status == 403 and headers["content-type"].startswith("text/html") and "set-cookie" not in headers
    assert f'content="0;url={escape(again)}"' in said and "<script" not in said
    assert ask(server.port, again, host)[0] == 403
    assert ask(server.port, again, host, *followed)[1]["content-type"].startswith(
        "text/plain"
    )  # not for ever
    status, headers, _ = ask(server.port, again, host, ("Cookie", key))
    assert (status, headers["location"]) == (303, "/head?run=a&name=%22%3E%3Cscript%3E")
    included = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"))
    assert ask(server.port, "/", host, *included)[1]["content-type"].startswith("text/plain")


def test_the_browser_that_the_command_opens_gets_a_key_for_one_time(server):
    """Other users of the machine can read the command line of a browser."""
    host = own(server.port)[0]
    path = server.address_once.partition(str(server.port))[2]
    assert server.once not in server.address and ask(server.port, path, host)[0] == 303
    assert ask(server.port, path, host)[0] == 403
    assert (
        ask(server.port, path, host, ("Cookie", key_of(server.address)))[0] == 303
    )  # a tab that is opened again


def test_every_answer_forbids_frames_sniffing_and_referrers(server, key):
    host, cookie = own(server.port)[0], ("Cookie", key)
    for path, more in (
        ("/", (cookie,)),
        ("/", ()),
        ("/_stcore/health", (cookie,)),
        ("/media/no", (cookie,)),
        (f"/?token={server.token}", ()),
    ):
        _, headers, _ = ask(server.port, path, host, *more)
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.skipif(
    not Path("/proc/net/tcp").is_file(), reason="no /proc: the kernel's table of sockets is not readable"
)
def test_it_is_this_machines_alone_and_the_process_that_draws_pages_has_no_torch(server):
    assert addresses_of(server.port) == {"0100007F"}  # 127.0.0.1
    assert visit(server.address).finished
    assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_the_page_is_drawn_for_who_has_the_key_and_no_trap_was_touched(server, trap):
    for port_of in ("localhost", "127.0.0.1"):
        seen = visit(server.address.replace("localhost", port_of))
        assert seen.finished and seen.errors == []
    assert not list(trap.rglob("*.imported"))
    assert not list(trap.rglob("__pycache__"))


def test_streamlit_serves_nothing_of_the_working_folder(server, key, trap):
    host, cookie = own(server.port)[0], ("Cookie", key)
    (trap / "static").mkdir(exist_ok=True)
    (trap / "static" / "x.txt").write_text("of the working folder")
    for path in (
        "/app/static/x.txt",
        "/app/static/../app.py",
        "/_stcore/agent/interact",
        "/_stcore/agent/mcp",
    ):
        status, _, said = ask(server.port, path, host, cookie)
        assert "of the working folder" not in said and "imported" not in said
        assert status != 200 or said.lstrip().startswith("<!"), path  # the page itself


def test_the_environment_loses_what_would_steer_the_server(tmp_path):
    mine, here, results = tmp_path / "mine", tmp_path / "here", tmp_path / "results"
    entries = ["", ".", "rel", str(here), f"{here}/", f"{here}/../here", str(mine), str(results)]
    given = {
        "PYTHONPATH": os.pathsep.join(entries), "PYTHONUSERBASE": "x", "PYTHONHOME": str(here), "PYTHONPYCACHEPREFIX": str(mine),
        "STREAMLIT_SERVER_PORT": "1", "HOME": "/home/me", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    env = launch.environment([results], here=here, given=given)
    assert env["PYTHONPATH"] == str(mine)
    assert env["PYTHONPYCACHEPREFIX"] == str(mine) and env["HOME"] == "/home/me"
    assert not {"PYTHONUSERBASE", "PYTHONHOME", "STREAMLIT_SERVER_PORT"} & set(env)
    assert "PYTHONPATH" not in launch.environment([], here=here, given={"PYTHONPATH": f"{here}{os.pathsep}"})


@pytest.mark.processes
def test_a_tunnel_is_answered_when_it_was_named_and_only_then(trap, monkeypatch):
    monkeypatch.chdir(trap)
    started = launch.start(
        [trap / "results"],
        port=launch.free_port(None),
        output=subprocess.DEVNULL,
        origins=["http://localhost:9000/"],
    )
    try:
        until_it_answers(started)
        cookie = ("Cookie", key_of(started.address))
        near = (("Host", "localhost:9000"), ("Origin", "http://localhost:9000"))
        assert ask(started.port, "/", *near, cookie)[0] == 200
        assert shake_hands(started.port, *near, cookie) == 101
        assert shake_hands(started.port, own(started.port)[0], near[1], cookie) == 403
        assert (
            shake_hands(started.port, ("Host", "localhost:9001"), ("Origin", "http://localhost:9001"), cookie)
            == 403
        )
    finally:
        started.process.terminate()
        started.process.wait(timeout=20)


@pytest.mark.parametrize(
    "origin",
    (
        "localhost:9000",
        "*",
        "http://",
        "ftp://x",
        "http://a/b",
        "http://a?b",
        "http://u@a",
        "http://a:x",
        "http://é",
        "",
    ),
)
def test_an_address_to_answer_under_is_an_origin(origin):
    with pytest.raises(ByroteError, match="is not an origin"):
        origins_of(8501, [origin])


def test_ports_that_browsers_leave_out():
    assert origins_of(80, ["https://hub.example:443"]) == {
        "http://localhost",
        "http://127.0.0.1",
        "https://hub.example",
    }


def test_nobody_else_can_listen_on_the_other_address_of_localhost(server):
    """A browser tries [::1] first: whoever listened there would be sent the key."""
    with socket.socket(socket.AF_INET6) as other:
        try:
            other.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        other.listen()
        with pytest.raises(ByroteError, match="is in use"):
            launch.free_port(other.getsockname()[1])
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("::1", server.port))
    with pytest.raises(
        ConnectionRefusedError
    ):  # and nobody answers there, so that browsers come to 127.0.0.1
        socket.create_connection(("::1", server.port), timeout=5)


UNGUARDED = """
import json, sys
from pathlib import Path
from byrote.dashboard import launch, server
server.Guard = lambda app, **kwargs: app
server.serve(launch.SCRIPT, port=int(sys.argv[1]), token="t", origins=[], options=launch.options(port=int(sys.argv[1])))
"""


@pytest.mark.processes
def test_a_server_that_streamlit_leaves_unguarded_does_not_start():
    port = launch.free_port(None)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", UNGUARDED, str(port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode not in (0, None)
    assert "would answer anybody, so it was not started" in ended.stderr
    assert not launch.answers(port)


def test_the_key_differs_at_every_start(server):
    assert len(server.token) >= 43  # 256 bits
    assert urlsplit(server.address).port == server.port
