"""Axe-core on every page, as its address draws it, and on what opens over it: no finding in what is ours."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, LINK, profile, visit

from byrote.dashboard.views import PAGES

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

# Rules that only Streamlit's own elements break, each with the elements and why it is out of our hands.
STREAMLITS: dict[str, str] = {}


@pytest.fixture(scope="module")
def profiles(browser: Any) -> Iterator[dict[str, Any]]:
    """Chromium in light and in dark."""
    with profile(browser) as light, profile(browser, color_scheme="dark") as dark:
        yield {"light": light, "dark": dark}


@pytest.fixture(scope="module")
def axe() -> str:
    """Axe-core's own script."""
    found = find_spec("axe_playwright_python")
    assert found is not None and found.origin is not None
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["", *list(PAGES)[1:]])
def test_no_page_has_a_finding(profiles, site, axe, page, scheme):
    with visit(profiles[scheme], site) as here:
        here.open(page, **LINK)
        here.find(".st-key-reproduce button").click()  # at once: what is above it still grows
        box = here.find("[role=dialog]").bounding_box()
        assert box["y"] >= 0 and 0 <= box["x"] <= 1280 - box["width"]
        here.find("[role=dialog]").get_by_text("In a notebook").wait_for()
        here.drawn()
        here.tab.evaluate(axe)
        found = here.tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        here.tab.keyboard.press("Escape")
        here.find("[role=dialog]").wait_for(state="detached")
        found += here.tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    ours = {
        rule["id"]: [(node["target"], node["failureSummary"]) for node in rule["nodes"]][:6] for rule in found
    }
    assert {name: where for name, where in ours.items() if name not in STREAMLITS} == {}
