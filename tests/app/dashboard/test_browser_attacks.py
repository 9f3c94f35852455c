"""Pages of others in the browser of a person who has the dashboard open: what a real browser lets them do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest
from browsing import CHROMIUM, profile

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


ATTACK = """async (target) => {
    const said = {};
    said.socket = await new Promise((done) => {
        const socket = new WebSocket(`ws://${target}/_stcore/stream`, ["streamlit"]);
        socket.onopen = () => done("open");
        socket.onerror = () => done("refused");
    });
    said.fetch = await fetch(`http://${target}/`, { credentials: "include", mode: "no-cors" }).then(() => "read", () => "refused");
    said.image = await new Promise((done) => {
        const image = new Image();
        image.onload = () => done("shown");
        image.onerror = () => done("refused");
        image.src = `http://${target}/favicon.png`;
    });
    const opened = window.open(`http://${target}/`);
    await new Promise((done) => setTimeout(done, 1000));
    said.opened = opened === null || opened.closed ? "out of reach" : "in reach";
    return said;
}"""


@contextmanager
def elsewhere(page: str) -> Iterator[int]:
    """A server of somebody else's that answers everything with one page; its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_page_of_another_port_gets_nothing_though_it_has_the_cookie(browser, site):
    """To a browser, all ports of localhost are one site: its cookies go to all of them."""
    target = urlsplit(site).netloc
    page = f"<!doctype html><iframe src='http://{target}/'></iframe>"
    with elsewhere(page) as port, profile(browser) as context:
        assert context.request.get(site, max_redirects=1).ok
        tab = context.new_page()
        tab.goto(f"http://localhost:{port}/")
        (frame,) = tab.frames[1:]
        assert not frame.url.startswith("http")  # the browser's own page of errors
        said = tab.evaluate(ATTACK, target)
    assert said == {"socket": "refused", "fetch": "refused", "image": "refused", "opened": "out of reach"}


def test_the_printed_address_is_exchanged_for_a_cookie(browser, site):
    with profile(browser) as context:
        tab = context.new_page()
        tab.goto(f"http://{urlsplit(site).netloc}/trajectory")
        assert tab.locator("body").inner_text().startswith("Open the address that `byrote dashboard` printed")
        tab.goto(site)
        tab.locator("h1").first.wait_for()
        assert "token" not in tab.url and "token" not in tab.evaluate(
            "document.cookie + history.length + document.referrer"
        )
        (key,) = (cookie for cookie in context.cookies() if cookie["name"].startswith("byrote_"))
        assert key["httpOnly"] and key["sameSite"] == "Strict"


@pytest.mark.parametrize("printed", [False, True])
def test_a_link_on_a_page_of_others_leads_to_the_dashboard(browser, site, printed):
    """The browser keeps a strict cookie back when another site leads here, so the page is asked for once more."""
    shared = site.replace("127.0.0.1", "localhost")
    link = shared if printed else f"http://{urlsplit(shared).netloc}/trajectory"
    with elsewhere(f'<!doctype html><a href="{link}">see</a>') as port, profile(browser) as context:
        tab = context.new_page()
        if not printed:
            tab.goto(shared)
            tab.locator("h1").first.wait_for()
        tab.goto(f"http://127.0.0.1:{port}/")
        tab.locator("a").click()
        tab.locator("h1").first.wait_for()
        assert "token" not in tab.url


def test_without_a_key_a_link_asks_once_and_not_for_ever(browser, site):
    shared = site.replace("127.0.0.1", "localhost")
    with (
        elsewhere(
            f'<!doctype html><a href="http://{urlsplit(shared).netloc}/?x=%22%3E%3Cb%3E">see</a>'
        ) as port,
        profile(browser) as context,
    ):
        tab = context.new_page()
        tab.goto(f"http://127.0.0.1:{port}/")
        tab.locator("a").click()
        tab.get_by_text("Open the address that `byrote dashboard` printed").wait_for()
        assert tab.locator("b").count() == 0
