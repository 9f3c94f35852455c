"""Who may speak to the dashboard's server: the browser that got the key, under the server's own address. ASGI, no Streamlit.

Every page of the web that is open in a browser can send requests to this machine, under a name of its own that it points
here, or from another port; and other users of the machine can connect to any port. So a request is answered only where

- its Host is exactly ours, and its Origin, where there is one, is that of the same address; a WebSocket, and everything
  that is not just looking, needs one;
- the browser does not say that another site asks for a part of the page;
- it brings the cookie that the printed address was exchanged for.

This is the outermost layer: it sees requests before any part of Streamlit does, and whatever Streamlit would allow.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from byrote.checkpoints.errors import ByroteError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "token"
NO_KEY = "Open the address that `byrote dashboard` printed: it contains the key to these pages."
FOREIGN = "This request did not come from the dashboard's own address. Open the one that `byrote dashboard` printed."
POLICY_VIOLATION = 1008
_LOOKING = frozenset({"GET", "HEAD"})
_ELSEWHERE = frozenset({"cross-site", "same-site"})
_NAMES = ("localhost", "127.0.0.1")
_USUAL_PORT = {"http": 80, "https": 443}


def origins_of(port: int, also: Iterable[str] = ()) -> frozenset[str]:
    """The addresses under which a browser finds the server.

    Args:
        port: of the server.
        also: further ones, such as the near end of a tunnel: "http://localhost:9000".

    Raises:
        ByroteError: one of those is no scheme, host and port.
    """
    own = (f"http://{name}{'' if port == _USUAL_PORT['http'] else f':{port}'}" for name in _NAMES)
    return frozenset([*own, *map(_origin, also)])


def _origin(text: str) -> str:
    wrong = ByroteError(
        f"{text!r} is not an origin", help="write scheme, host and port, such as http://localhost:9000"
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    if (
        parts.scheme not in _USUAL_PORT
        or not parts.hostname
        or text.rstrip("/") != f"{parts.scheme}://{parts.netloc}"
    ):
        raise wrong
    if parts.username is not None or parts.password is not None or not parts.netloc.isascii():
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, _USUAL_PORT[parts.scheme]) else f":{port}")


class Guard:
    """Lets through what comes from the browser that has the key, and answers everything else itself.

    Args:
        app: what is guarded.
        port: of the server; cookies are shared by all ports of a machine, so that it is part of the cookie's name.
        token: what the printed address holds.
        once: what opens the pages one time, for the browser that the command opens; "" for nothing.
        origins: see `origins_of`.
    """

    def __init__(self, app: App, *, port: int, token: str, origins: frozenset[str], once: str = "") -> None:
        self._app, self._token, self._once, self._origins = app, token, once, origins
        self._hosts = frozenset(urlsplit(origin).netloc for origin in origins)
        self._cookie, self._secret = f"byrote_{port}", secrets.token_urlsafe(32)
        self._sources = " ".join(sorted(f"ws://{host} wss://{host}" for host in self._hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)  # the server's own start and end
            return
        send = self._with_headers(send)
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        if not self._is_ours(scope, headers):
            await _refuse(scope, receive, send, FOREIGN)
            return
        has_cookie = self._has_cookie(headers)
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in query if name == TOKEN]
        asks_for_page = scope["type"] == "http" and scope["method"] == "GET"
        if asks_for_page and shown and (has_cookie or any(map(self._opens, shown))):
            await self._exchange(scope, query, send)
            return
        if not has_cookie:
            if asks_for_page and not shown and _from_elsewhere(headers):
                await self._ask_again(scope, query, send)
            else:
                await _refuse(scope, receive, send, NO_KEY)
            return
        if scope["type"] == "http":
            # Streamlit would look up this machine's addresses for a foreign one; between equals it means nothing
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() != b"origin"]}
        await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope, headers: list[tuple[bytes, str]]) -> bool:
        hosts = [value.lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return False
        origins = [value.lower() for name, value in headers if name == b"origin"]
        only_looks = scope["type"] == "http" and scope["method"] in _LOOKING
        if not origins and not only_looks:
            return False
        if len(origins) > 1 or any(
            origin not in self._origins or urlsplit(origin).netloc != hosts[0] for origin in origins
        ):
            return False
        if not _from_elsewhere(headers):
            return True
        fetch = dict(headers)
        # a link on another page may lead here, and nothing there may include a part of these pages
        return only_looks and (fetch.get(b"sec-fetch-mode"), fetch.get(b"sec-fetch-dest")) == (
            "navigate",
            "document",
        )

    def _opens(self, value: str) -> bool:
        """Whether it is the token, or the one for one time, which it is no more then."""
        if self._once and _same(value, self._once):
            self._once = ""
            return True
        return _same(value, self._token)

    def _has_cookie(self, headers: list[tuple[bytes, str]]) -> bool:
        """Whether one of the cookies of our name holds the secret: others on this machine can add cookies of that name."""
        found = False
        for name, value in headers:
            for part in value.split(";") if name == b"cookie" else ():
                key, _, held = part.partition("=")
                found |= key.strip() == self._cookie and _same(held.strip(), self._secret)
        return found

    async def _exchange(self, scope: Scope, query: list[tuple[str, str]], send: Send) -> None:
        """The same address without the token, and the cookie."""
        headers = {
            "location": _address(scope, [(name, value) for name, value in query if name != TOKEN]),
            "set-cookie": f"{self._cookie}={self._secret}; Path=/; HttpOnly; SameSite=Strict",
            "cache-control": "no-store",
        }
        await _answer(send, 303, "", headers)

    async def _ask_again(self, scope: Scope, query: list[tuple[str, str]], send: Send) -> None:
        """A link on another page was followed: browsers keep the cookie back then, and send it from a page of ours.

        The address has an empty token, so that this is done once; the exchange takes it away.
        """
        there = html.escape(_address(scope, [*query, (TOKEN, "")]))
        page = (
            f'<!doctype html><meta http-equiv="refresh" content="0;url={there}"><title>byrote</title>'
            f'<p><a href="{there}">Open the dashboard</a>'
        )
        await _answer(
            send, 403, page, {"content-type": "text/html; charset=utf-8", "cache-control": "no-store"}
        )

    def _with_headers(self, send: Send) -> Send:
        """Every answer says that no other page may show it, read it, or learn where it was."""
        policy = (
            "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
            f"connect-src 'self' data: blob: {self._sources}; "
            "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
        )
        ours = {
            "content-security-policy": policy,
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
        }
        added = [(name.encode(), value.encode()) for name, value in ours.items()]

        async def call(message: MutableMapping[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                kept = [
                    (name, value) for name, value in message.get("headers", ())
                    if name.lower().decode("latin-1") not in ours and not name.lower().startswith(b"access-control-")
                ]  # fmt: skip
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        return call


async def prove_guarded(app: App, *, port: int) -> None:
    """Send what must be refused through an app, and see that it is.

    Args:
        app: the whole of what answers, guard and all.
        port: of the server.

    Raises:
        ByroteError: something was let through: the guard is not where it has to be.
    """
    own, foreign = f"localhost:{port}", f"evil.example:{port}"
    for host in (own, foreign):
        for kind in ("http", "websocket"):
            for path in ("/", "/_stcore/stream", "/_stcore/health"):
                answers = await _answers_of(app, kind, host, path)
                if not answers or not all(_refuses(answer) for answer in answers):
                    raise ByroteError(
                        "the dashboard's server would answer anybody, so it was not started",
                        help="this version of Streamlit does not pass requests through byrote's guard; "
                        "install the version in constraints.txt",
                    )


def _refuses(message: MutableMapping[str, Any]) -> bool:
    if message["type"] == "http.response.start":
        return bool(message["status"] == 403)
    return message["type"] in ("http.response.body", "websocket.close")


async def _answers_of(app: App, kind: str, host: str, path: str) -> list[MutableMapping[str, Any]]:
    """What an app says to a request without a key."""
    messages: list[MutableMapping[str, Any]] = []
    scope: Scope = {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 1),
        "headers": [(b"host", host.encode()), (b"origin", f"http://{host}".encode())], "subprotocols": [], "state": {},
    }  # fmt: skip
    if kind == "http":
        scope["method"] = "GET"

    event_type = {"http": "http.request", "websocket": "websocket.connect"}[kind]
    events = iter([{"type": event_type, "body": b"", "more_body": False}])

    async def receive() -> MutableMapping[str, Any]:
        return next(events, {"type": f"{kind}.disconnect", "code": POLICY_VIOLATION})

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)
        if not _refuses(message):
            raise ConnectionError("closed by the client")  # that it answers is all that has to be known

    with suppress(ConnectionError):
        await app(scope, receive, send)
    return messages


def _from_elsewhere(headers: list[tuple[bytes, str]]) -> bool:
    """Whether the browser says that another page leads here."""
    return dict(headers).get(b"sec-fetch-site") in _ELSEWHERE


def _address(scope: Scope, query: list[tuple[str, str]]) -> str:
    """Path and query parameters of a page of ours, for a header or an attribute."""
    path = "/" + quote(scope["path"].lstrip("/\\"), safe="/")
    return path + (f"?{urlencode(query)}" if query else "")


def _same(given: str, expected: str) -> bool:
    """Compared in a time that does not tell how much of it was right."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), expected.encode())


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # its request to connect
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})  # before it is accepted: 403
        return
    await _answer(send, 403, why + "\n", {"cache-control": "no-store"})


async def _answer(send: Send, status: int, text: str, headers: dict[str, str]) -> None:
    body = text.encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **headers}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
