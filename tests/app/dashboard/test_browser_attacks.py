"""Pages of others in the browser of a person who has the dashboard open: what a real browser lets them do."""

from __future__ import annotations

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


def test_a_page_of_another_port_gets_nothing_though_it_has_the_cookie(browser, site):
    """To a browser, all ports of localhost are one site: its cookies go to all of them."""
    target = urlsplit(site).netloc
    page = f"<!doctype html><iframe src='http://{target}/'></iframe>".encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as attacker, profile(browser) as context:
        Thread(target=attacker.serve_forever, daemon=True).start()
        assert context.request.get(site, max_redirects=1).ok
        tab = context.new_page()
        tab.goto(f"http://localhost:{attacker.server_port}/")
        (frame,) = tab.frames[1:]
        assert not frame.url.startswith("http")  # the browser's own page of errors
        said = tab.evaluate(ATTACK, target)
        attacker.shutdown()
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
