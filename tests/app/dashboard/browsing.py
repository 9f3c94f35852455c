"""The dashboard as a person has it: its own server process, and Debian's Chromium, which may reach nothing else."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from planted_series import keep_attention, whole, write_results

from byrote.dashboard.launch import ADDRESS, Server, answers, start

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
STARTS_WITHIN_S = 60
PATIENCE_MS = 30_000  # a machine under load is slow, not broken
# Streamlit's own page asks for these below the page's address before it asks at the root, and Chromium logs the 404.
PROBED = ("/_stcore/health", "/_stcore/host-config")
DONE = "[data-testid=stApp][data-test-script-state=notRunning]"

STEPS = (0, *range(10, 330, 10))
SHAPE = (2, 4)
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
WORDS = ["<bos>", " a", " cat", EVIL, " a", " cat", " <b>sat</b>", "\n"]
LINK = {"run": "repeated", "probe": "prefix_matching", "step": 160, "head": "L1H3", "base": "unique"}


def write_pages(root: Path) -> Path:
    """A repeated run whose L1H3 appears late and which remembers, a unique one, and one with a hostile name."""
    late = whole(steps=STEPS, shape=SHAPE, at=160)
    early = whole(steps=STEPS, shape=SHAPE, at=80, remembers=False)
    arm = {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64}
    folder = write_results(root, "repeated", late, shape=SHAPE, arm=arm)
    keep_attention(folder, 160, WORDS, shape=SHAPE, stimulus="repeated_random")
    write_results(root, "unique", early, shape=SHAPE, arm={"kind": "unique"})
    write_results(root, EVIL, {320: late[320]}, shape=SHAPE, folder="evil")
    return root


@contextmanager
def served(*paths: Path) -> Iterator[str]:
    """A server on these results; yields the address that opens it."""
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        port = free.getsockname()[1]
    server = start(paths, port=port, output=subprocess.DEVNULL)
    try:
        _wait(server)
        yield server.address
    finally:
        server.process.terminate()
        server.process.wait(timeout=20)


def _wait(server: Server) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until:
        assert server.process.poll() is None, "the server ended before it answered"
        if answers(server.port):
            return
        time.sleep(0.1)
    raise AssertionError(f"no answer from {server.address} within {STARTS_WITHIN_S} s")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """One browser profile on one server: a tab, and everything that went wrong in it.

    Attributes:
        site: the server's address.
        tab: Playwright's page.
        faults: console errors, exceptions, and requests that left this machine.
    """

    site: str
    tab: Any
    faults: list[str] = field(default_factory=list)

    def open(self, page: str = "", **params: Any) -> None:
        """A page by its address, drawn to the end."""
        self.go(f"{self.site}/{page}?{urlencode(params)}")

    def go(self, address: str) -> None:
        """An address, drawn to the end."""
        self.tab.goto(address)
        self.settled()

    def settled(self) -> None:
        """The script has run."""
        self.tab.locator("h1").first.wait_for()
        self.tab.locator(DONE).wait_for()

    def back(self) -> None:
        """One step back, and the page drawn. A second step before the server has answered the first is undone by it."""
        self.tab.go_back()
        self.tab.wait_for_timeout(300)  # until the page has asked
        self.settled()

    def drawn(self) -> None:
        """Every figure and table is there too: they come in parts."""
        self.tab.wait_for_function(
            """() => !document.querySelector("[data-testid=stSkeleton]")
                && [...document.querySelectorAll("[data-testid=stPlotlyChart]")].every((c) => c.querySelector(".main-svg"))
                && [...document.querySelectorAll("[data-testid=stDataFrame]")].every((t) => t.querySelector("canvas"))"""
        )

    def find(self, selector: str) -> Any:
        """A locator; it looks into components too."""
        return self.tab.locator(selector)

    def params(self) -> dict[str, str]:
        """What the address says now."""
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.tab.url).query).items()}

    def link(self, name: str) -> Any:
        """A link of the page itself, not of the menu."""
        return self.find("[data-testid=stMain] a").filter(has_text=name)

    def until_address(self, **params: str | None) -> None:
        """Wait until the address says this; None for a part that is not in it."""
        said = [
            f"new URLSearchParams(location.search).get({name!r}) === {json.dumps(value)}"
            for name, value in params.items()
        ]
        self.tab.wait_for_function(" && ".join(said))

    def arrived(self, path: str) -> None:
        """Wait until this page is drawn."""
        self.tab.wait_for_function(f"location.pathname === {path!r}")
        self.settled()

    def says(self, selector: str, text: str) -> None:
        """Wait until the first of these holds the text."""
        self._expect(selector).to_contain_text(text)

    def has(self, selector: str, **attributes: str) -> None:
        """Wait until the first of these has the attributes; `aria_pressed` is aria-pressed."""
        for name, value in attributes.items():
            self._expect(selector).to_have_attribute(name.replace("_", "-"), value)

    def _expect(self, selector: str) -> Any:
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE_MS)
        return expect(self.find(selector).first)


@contextmanager
def profile(browser: Any, **settings: Any) -> Iterator[Any]:
    """A fresh browser profile; `visit` opens a server's address in it, which gives it the key.

    Args:
        browser: Playwright's.
        settings: such as color_scheme, viewport or reduced_motion.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context
    finally:
        context.close()


@contextmanager
def visit(context: Any, site: str) -> Iterator[Visit]:
    """A fresh tab of a profile; on leaving, nothing may have gone wrong in it."""
    here = Visit("http://" + urlsplit(site).netloc, context.new_page())
    _listen(here)
    if context.request.get(here.site).status == 403:  # a profile that has not been here yet
        assert context.request.get(site, max_redirects=1).ok
    try:
        yield here
    finally:
        here.tab.close()
    assert here.faults == []


def _listen(here: Visit) -> None:
    def asked(request: Any) -> None:
        if not request.url.startswith((here.site, "data:", "blob:")):
            here.faults.append(f"left this machine: {request.url}")

    here.tab.on("request", asked)
    here.tab.on("pageerror", lambda error: here.faults.append(f"exception: {error}"))

    def said(message: Any) -> None:
        probing = urlsplit(message.location.get("url", "")).path.endswith(PROBED)
        if message.type == "error" and not probing:
            here.faults.append(f"console: {message.text}")

    here.tab.on("console", said)
    here.tab.on("dialog", lambda dialog: (here.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))


def steps_of(visit_: Visit, component: str, *, during_ms: int) -> Sequence[tuple[float, str]]:
    """(time in ms, step) of every change a playing component shows."""
    return visit_.find(component).first.evaluate(
        """(node, ms) => new Promise((done) => {
            const seen = [], begun = performance.now();
            new MutationObserver(() => seen.push([performance.now() - begun, node.dataset.step]))
                .observe(node, { attributes: true, attributeFilter: ["data-step"] });
            setTimeout(() => done(seen), ms);
        })""",
        during_ms,
    )
