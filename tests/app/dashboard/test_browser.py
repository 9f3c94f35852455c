"""The dashboard in a real browser: what is pressed, what the address says, and that nothing leaves the machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import (
    CHROMIUM,
    EVIL,
    LINK,
    SHAPE,
    Visit,
    profile,
    steps_of,
    visit,
)
from planted_series import whole, write_results

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

Start = Callable[..., Visit]


@pytest.fixture(scope="module")
def usual(browser: Any) -> Iterator[Any]:
    """The profile most tests share, so that Streamlit's own files are fetched once."""
    with profile(browser) as context:
        yield context


@pytest.fixture
def start(browser: Any, usual: Any, site: str) -> Iterator[Start]:
    """`start()`: a tab. `start(color_scheme="dark")`: one in a profile of its own. Nothing may go wrong in any."""
    with ExitStack() as opened:

        def call(**settings: Any) -> Visit:
            context = opened.enter_context(profile(browser, **settings)) if settings else usual
            return opened.enter_context(visit(context, site))

        yield call


def test_play_is_steady_shows_both_runs_and_tells_the_server_only_at_rest(start):
    here = start()
    sent: list[int] = []
    here.tab.on("websocket", lambda socket: socket.on("framereceived", lambda data: sent.append(len(data))))
    here.open("trajectory", **{**LINK, "step": 0})
    here.has(".byrote", data_step="0")
    sent.clear()
    here.find("button.play").click()
    seen = steps_of(here, ".byrote", during_ms=2500)
    assert sum(sent) < 30_000  # the look at the folder every few seconds, and no data
    frames = [b - a for (a, _), (b, _) in pairwise(seen)]
    assert len(frames) >= 12
    assert sorted(frames)[len(frames) // 2] < 1000 / 6
    assert [int(step) for _, step in seen] == sorted({int(step) for _, step in seen})
    assert here.params()["step"] == "0"
    here.find("button.play").click()
    resting = here.find(".byrote").first.get_attribute("data-step")
    here.until_address(step=resting)
    assert int(resting) > 100
    assert here.find(".panel.base .cell").count() == here.find(".panel.run .cell").count() == 8


def test_from_a_click_to_the_attention_and_the_circuit_and_back(start):
    here = start()
    here.open("trajectory", **{**LINK, "head": "L0H0"})
    here.find(".panel.run .cell").nth(7).click()
    here.until_address(head="L1H3")
    here.link("Open L1H3").click()
    here.arrived("/head")
    here.find(".tokens button").nth(5).click()
    here.until_address(q="5")
    here.says(".live", "cat (5) attends to")
    here.link("In the circuit").click()
    here.arrived("/circuit")
    here.says("h1", "which earlier")
    here.says(".live", "reads L0H1 (z 7.50)")
    address = here.tab.url
    here.back()
    here.arrived("/head")
    here.says(".live", "cat (5) attends to")
    here.back()
    here.until_address(q=None)
    here.back()
    here.arrived("/trajectory")
    here.has(".panel.run .cell[aria-label^=L1H3]", aria_selected="true")
    here.back()
    here.until_address(head="L0H0")
    here.has(".panel.run .cell[aria-label^=L0H0]", aria_selected="true")
    other = start(locale="en-GB")
    other.go(address)
    other.says("h1", "which earlier")
    assert other.tab.url == address


def test_copy_link_copies_the_address(start):
    here = start(permissions=["clipboard-read", "clipboard-write"])
    here.open("trajectory", **LINK, pin="L0H1")
    here.find(".st-key-share button").click()
    here.says(".st-key-share [role=status]", "Copied")
    copied = here.tab.evaluate("navigator.clipboard.readText()")
    assert copied == here.tab.url and urlsplit(copied).port and "token" not in copied


def test_a_browser_that_forbids_the_clipboard_shows_the_address(start):
    here = start()
    here.tab.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    here.open("trajectory", **LINK)
    here.find(".st-key-share button").click()
    assert here.find(".st-key-share input").input_value() == here.tab.url


def test_the_first_tab_leads_past_menu_and_controls_to_play(start):
    here = start()
    here.open("trajectory", **LINK)
    here.has(".byrote", data_step="160")
    here.tab.keyboard.press("Tab")
    assert here.tab.evaluate("document.activeElement.dataset.testid") == "stSkipToContent"
    assert here.find("a").filter(has_text="Skip to").count() == 1
    here.tab.keyboard.press("Enter")
    for _ in range(3):
        here.tab.keyboard.press("Tab")
        if here.tab.evaluate("document.activeElement.shadowRoot?.activeElement?.className") == "play":
            break
    else:
        pytest.fail("three tabs from the link, and not at the play button")


@pytest.mark.parametrize("width", [400, 1024])
def test_controls_are_a_slim_bar_above_the_page_where_it_is_narrow(start, width):
    here = start(viewport={"width": width, "height": 900})
    here.open("head", **LINK)
    here.drawn()
    bar, page = (
        here.find(part).bounding_box() for part in ("[data-testid=stSidebar]", "[data-testid=stMain]")
    )
    assert bar["height"] < 190 and bar["y"] + bar["height"] <= page["y"] + 1 and page["width"] == width
    assert page["y"] + page["height"] <= 901  # its end can be scrolled to
    assert here.find("[data-testid=stMain]").evaluate("node => node.scrollWidth - node.clientWidth") == 0
    cells = here.find(".st-key-figure_attention .heatmaplayer image").first.bounding_box()
    assert cells["width"] > 150  # in version 0.1 the matrix was a line
    here.find(".st-key-menu a:visible").filter(has_text="Circuit").first.click()
    here.arrived("/circuit")


def test_a_bad_link_explains_itself_and_can_be_fixed(start):
    here = start()
    here.open("head", run="repeatd", step="banana", head="L7H7")
    said = here.find(".st-key-complaints").inner_text()
    for part in (
        "run=repeatd is not among the runs here",
        "step=banana is not a step",
        "head=L7H7 is not in unique",
    ):
        assert part in said
    here.find(".st-key-fix_link button").click()
    here.until_address(run="unique", head="L1H3")
    here.find(".st-key-complaints").wait_for(state="detached")


def test_the_keyboard_alone_plays_steps_selects_and_opens(start):
    here = start()
    press = here.tab.keyboard.press
    here.open("trajectory", **LINK)
    here.find(".panel.run .cell[tabindex='0']").focus()
    press("ArrowLeft")
    press("ArrowUp")
    press("Enter")
    here.until_address(head="L0H2")
    press("PageUp")
    here.until_address(step="150")
    press(" ")
    here.has("button.play", aria_pressed="true")
    press(" ")
    here.has("button.play", aria_pressed="false")
    here.find(".panel.run .cell[aria-selected=true]").focus()
    press("Enter")
    here.arrived("/head")
    assert here.params()["head"] == "L0H2"


def test_tab_reaches_the_play_button_and_shows_where_it_is(start):
    here = start()
    here.open("trajectory", **LINK)
    here.has(".byrote", data_step="160")
    here.find("h1").first.click()
    for _ in range(3):
        here.tab.keyboard.press("Tab")
        if here.tab.evaluate("document.activeElement.shadowRoot?.activeElement?.className") == "play":
            break
    else:
        pytest.fail("three tabs from the title, and not at the play button")
    outline = here.find("button.play").evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid"


def test_reduced_motion_offers_steps_and_no_play(start):
    here = start(reduced_motion="reduce")
    for page in ("trajectory", "circuit"):
        here.open(page, **LINK)
        here.has(".byrote", data_step="160")
        assert not here.find("button.play").is_visible()
        here.find("[aria-label='Next checkpoint']").click()
        here.until_address(step="170")


def test_the_circuit_plays_and_its_threshold_counts(start):
    here = start()
    here.open("circuit", **{**LINK, "step": 0})
    here.has(".byrote", data_step="0")
    here.find("button.play").click()
    seen = steps_of(here, ".byrote", during_ms=1200)
    here.find("button.play").click()
    assert len(seen) >= 5
    here.open("circuit", **LINK)
    here.find("input[aria-label='Smallest z drawn']").fill("5")
    here.says(".count", "showing 1 of 16 edges")
    here.until_address(z="5.0")


def test_dark_and_light_are_both_drawn(start):
    grounds = []
    for scheme in ("light", "dark"):
        here = start(color_scheme=scheme)
        here.open("trajectory", **LINK)
        here.find(".js-plotly-plot .xtick text").first.wait_for()
        style = "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]"
        page = here.find("[data-testid=stApp]").evaluate(style)
        ink = here.find(".js-plotly-plot .gtitle").first.evaluate("node => getComputedStyle(node).fill")
        assert ink == page[1]
        grounds.append(page[0])
    assert grounds[0] != grounds[1]


@pytest.mark.parametrize("width", [1440, 1024])
def test_the_header_hides_nothing_of_the_page(start, width):
    here = start(viewport={"width": width, "height": 900})
    here.open("trajectory", **LINK)
    here.find(".js-plotly-plot .xtick text").first.wait_for()
    seen = here.tab.evaluate(
        """() => {
          const page = document.querySelector("[data-testid=stMainBlockContainer]");
          const place = page.querySelector("[data-testid=stElementContainer] p").getBoundingClientRect();
          return page.contains(document.elementFromPoint(place.left + 4, place.top + place.height / 2));
        }"""
    )
    assert seen


@pytest.mark.parametrize("page", ["overview", "head", "compare"])
def test_hostile_names_and_tokens_are_text(start, page):
    here = start()
    here.open("" if page == "overview" else page, **{**LINK, "base": EVIL, "step": 160})
    if page == "head":
        here.says(".tokens", "<img·src=x·onerror=aler…")
    assert here.find("img[src=x]").count() == 0
    assert here.find("script").filter(has_text="alert(2)").count() == 0


def test_a_narrow_page_scrolls_only_downwards(start):
    here = start(viewport={"width": 420, "height": 900})
    for page in ("trajectory", "circuit", "compare", "memory"):
        here.open(page, **LINK)
        wide = here.find("[data-testid=stMain]").evaluate("node => node.scrollWidth - node.clientWidth")
        assert wide == 0, page
        here.find(".js-plotly-plot").first.wait_for() if page in ("compare", "memory") else None
        here.tab.wait_for_timeout(300)
        over = here.tab.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.getBoundingClientRect().right - innerWidth)"
        )
        assert all(past <= 0 for past in over), page  # a figure without room is drawn smaller, not cut


def test_results_that_appear_meanwhile_are_shown_without_a_reload(start, pages_results):
    here = start()
    here.open("", **LINK)
    here.says("h1", "repeated: induction heads form")
    later = write_results(pages_results, "later", whole(steps=(0, 10), shape=SHAPE), shape=SHAPE)
    here.says("h1", "of 4 runs")
    shutil.rmtree(later)  # the other tests look at the same folder
    here.says("h1", "repeated: induction heads form")
    assert here.params()["run"] == "repeated"
