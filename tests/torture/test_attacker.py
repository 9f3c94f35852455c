"""Requests that an attacker would send, made up at random: only those of who has the key, from our own pages, get through.

`tests/safety/test_server.py` sends chosen ones to a server of its own; here the guard in front of it gets thousands. The
oracle is written down a second time, from the promises alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from byrote.dashboard.guard import Guard, origins_of

PORT, TOKEN = 8765, "t0ken-of-the-printed-address"
OURS = ("localhost:8765", "127.0.0.1:8765")
HOSTS = (*OURS, *OURS, *OURS, "LOCALHOST:8765", "localhost", "localhost:1", "evil.example:8765", "localhost:8765.evil.example",
         "localhost.:8765", "127.1:8765", "[::1]:8765", "0.0.0.0:8765", "x@localhost:8765", "localhost:8765:1", "", " ")  # fmt: skip
ORIGINS = (*(f"http://{host}" for host in HOSTS), "null", "file://", "https://localhost:8765", "http://localhost:8765/",
           "http://evil.example", "HTTP://LOCALHOST:8765")  # fmt: skip
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "TRACE")
PATHS = (
    "/",
    "/_stcore/stream",
    "/_stcore/health",
    "/media/x",
    "//evil.example",
    "/..%2f..",
    "/\\evil.example",
)
SITES = ("same-origin", "none", "same-site", "cross-site")
CASES_AT_ONCE = 500


@dataclass(frozen=True)
class Request:
    """What is sent; `cookie` and `token` are in words, for the secret ones are made anew."""

    kind: str
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]


def made_up(rng: random.Random, cookie: tuple[str, str]) -> Request:
    """A request that is right in most parts."""
    headers = [("Host", rng.choice(HOSTS)) for _ in range(rng.choice((1, 1, 1, 1, 0, 2)))]
    if rng.random() < 0.7:
        own = f"http://{headers[0][1]}" if headers else "null"
        chosen = [rng.choice((own, own, rng.choice(ORIGINS))) for _ in range(rng.choice((1, 1, 1, 2)))]
        headers += [("Origin", one) for one in chosen]
    name, secret = cookie
    worn = rng.choice((
        f"{name}={secret}", f"{name}={secret}", f"a=b; {name}={secret}", f"{name}={TOKEN}", f"{name}=", f"{name}", "",
        f"{name}={secret[:-1]}", f"{name}={secret}x", f"byrote_1={secret}", f"{name.upper()}={secret}", f"{name}=é",
        f'{name}="{secret}"', f"{name}=x; {name}={secret}",
    ))  # fmt: skip
    headers += [("Cookie", worn)] if worn else []
    if rng.random() < 0.3:
        mode = rng.choice(
            (("navigate", "document"), ("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty"))
        )
        found = zip(
            ("Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"), (rng.choice(SITES), *mode), strict=True
        )
        headers += list(found)
    rng.shuffle(headers)
    query = rng.choice(
        ("", "", "run=x", "token=", "token=wrong", f"token={quote(TOKEN)}x", "token=%ff&token=é")
    )
    return Request(
        rng.choice(("http", "http", "websocket")),
        rng.choice(METHODS),
        rng.choice(PATHS),
        query,
        tuple(headers),
    )


def may_pass(request: Request, cookie: tuple[str, str]) -> bool:
    """The promises: our Host, our Origin, nobody else's page, and the key."""
    values: dict[str, list[str]] = {}
    for name, value in request.headers:
        values.setdefault(name.lower(), []).append(value)
    hosts = [host.lower() for host in values.get("host", [])]
    if len(hosts) != 1 or hosts[0] not in OURS:
        return False
    looks = request.kind == "http" and request.method in ("GET", "HEAD")
    origins = [origin.lower() for origin in values.get("origin", [])]
    if (
        any(origin != f"http://{hosts[0]}" for origin in origins)
        or len(origins) > 1
        or not (origins or looks)
    ):
        return False
    if values.get("sec-fetch-site", ["none"])[0] in ("same-site", "cross-site") and not (
        looks and values["sec-fetch-mode"] == ["navigate"] and values["sec-fetch-dest"] == ["document"]
    ):
        return False
    worn = [part.strip() for value in values.get("cookie", []) for part in value.split(";")]
    return "=".join(cookie) in worn


async def send(guard: Guard, request: Request) -> list[dict[str, Any]]:
    """What comes back."""
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if request.kind == "websocket" else "http.request", "body": b""}

    async def answer(message: Any) -> None:
        said.append(dict(message))

    scope = {
        "type": request.kind, "path": request.path, "raw_path": request.path.encode(), "query_string": request.query.encode(),
        "headers": [(name.encode(), value.encode("utf-8")) for name, value in request.headers],
        "method": request.method, "scheme": "http", "server": ("127.0.0.1", PORT), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await guard(scope, receive, answer)
    return said


class Reached:
    """Stands for Streamlit: notes that it was reached."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.times += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def the_cookie(guard: Guard) -> tuple[str, str]:
    """What the printed address is exchanged for."""
    (first, _) = await send(guard, Request("http", "GET", "/", f"token={TOKEN}", (("Host", OURS[0]),)))
    set_cookie = dict(first["headers"])[b"set-cookie"].decode()
    assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in set_cookie.split(";")}
    name, _, secret = set_cookie.split(";")[0].partition("=")
    return name, secret


def problems(rng: random.Random, n: int = CASES_AT_ONCE) -> list[str]:
    """Send `n` requests; those that got through and may not, or may and did not."""

    async def call() -> Iterable[str]:
        app = Reached()
        guard = Guard(app, port=PORT, token=TOKEN, origins=origins_of(PORT))
        cookie, wrong = await the_cookie(guard), []
        for _ in range(n):
            request, before = made_up(rng, cookie), app.times
            said = await send(guard, request)
            passed, wanted = app.times > before, may_pass(request, cookie)
            exchanged = said[0].get("status") == 303 and "token=" in request.query
            if passed != wanted and not (wanted and exchanged):
                wrong.append(f"{'passed' if passed else 'refused'}: {request}")
            if exchanged and not wanted:
                wrong.append(f"a wrong token was exchanged: {request}")
        return wrong

    return list(asyncio.run(call()))


@pytest.mark.torture
def test_attacker(cases):
    for case, rng in cases.drawn():
        with cases.case(case, "requests to the server"):
            assert problems(rng) == []
