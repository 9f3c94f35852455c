"""The file that plays: whole, closed, and of the same facts as the report."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import EVIL, STEPS, WORDS, write_pages
from planted_series import whole, write_results

import byrote as br
from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import play
from byrote.dashboard.components.base import LEVELS
from byrote.probes.results import Results
from byrote.report.alerts import alerts_of, status_of
from byrote.report.content import title_of
from byrote.report.report_inputs import report_inputs

DATE = "2026-01-01 00:00 UTC"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A repeated run with attention, a unique one, and one with a hostile name."""
    return write_pages(tmp_path_factory.mktemp("play") / "results")


@pytest.fixture(scope="module")
def page(pages) -> str:
    """The repeated run beside the unique one."""
    return written(pages, run="repeated", base="unique", heads=["L1H3", "L0H1"], step=160)


def written(results: Any, **chosen: Any) -> str:
    out = br.export(
        results,
        (results if isinstance(results, Path) else Path(results[0])).parent / "out.html",
        date=DATE,
        **chosen,
    )
    return out.read_text(encoding="utf-8")


def shown(page: str) -> dict[str, Any]:
    """What the browser gets."""
    packed = re.search(r'id="program-data">([^<]*)<', page)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


class Inside(HTMLParser):
    """Texts of scripts and styles, and every attribute."""

    CDATA_CONTENT_ELEMENTS = ("script", "style")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tag, self.texts, self.attributes = "", {"script": [], "style": []}, []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *one) for one in attrs]
        self.tag = tag if ("type", "application/gzip") not in attrs else ""

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""

    def handle_data(self, data: str) -> None:
        if self.tag in self.texts:
            self.texts[self.tag].append(data)


def test_nothing_runs_but_what_the_policy_names(page):
    found = Inside(page)
    policy = next(
        v for tag, name, v in found.attributes if tag == "meta" and name == "content" and "src" in v
    )
    rules = {rule.split()[0]: set(rule.split()[1:]) for rule in policy.split(";")}
    assert rules["default-src"] == {"'none'"} and rules["img-src"] == {"data:"}
    for kind, rule in (("script", "script-src"), ("style", "style-src")):
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'"
            for t in found.texts[kind]
        ]
        assert set(hashes) == rules[rule]
    assert not [one for one in found.attributes if one[1].startswith("on") or one[1] in ("src", "style")]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_the_grid_holds_the_numbers_of_both_runs(page, pages):
    grid = shown(page)["parts"][0]["data"]
    assert [panel["title"] for panel in grid["panels"]] == ["repeated", "unique, baseline"]
    for panel, name in zip(grid["panels"], ("repeated", "unique"), strict=True):
        codes = np.frombuffer(base64.b64decode(panel["codes"]), dtype="<u2").reshape(len(STEPS), 2, 4)
        values = grid["lo"] + codes / LEVELS * (grid["hi"] - grid["lo"])
        cube = Results.open(pages / name).cube("prefix_matching", "score")
        np.testing.assert_allclose(values, cube.value, atol=1e-4)
    assert grid["steps"][grid["index"]] == 160 and grid["selected"] == "L1H3"


def test_attention_is_that_of_the_pinned_heads(page):
    parts = {part["name"]: part for part in shown(page)["parts"]}
    assert {name for name in parts if name.startswith("attention")} == {"attention-L1H3", "attention-L0H1"}
    (frame,) = parts["attention-L1H3"]["frames"]  # it was saved at one step
    assert STEPS[frame["index"]] == 160 and "step 160" in frame["label"]
    assert len(base64.b64decode(frame["codes"])) == len(WORDS) ** 2
    assert parts["attention-L1H3"]["data"]["tokens"][3].startswith(
        "<img"
    )  # text, which the page writes as text


def test_it_says_what_the_report_says(page, pages):
    inputs = report_inputs([Results.open(pages / name) for name in ("unique", "repeated")], base="unique")
    alerts = alerts_of(inputs)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert title_of(inputs) in text and status_of(inputs, alerts) in text and alerts
    assert all(alert.text in text for alert in alerts)
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_names_of_strangers_are_text(pages):
    page = written(pages, run=EVIL, base="")
    assert "<img" not in page and "<script>alert" not in page
    assert "&lt;img src=x" in page


def test_the_same_results_make_the_same_file(page, pages):
    assert written(pages, run="repeated", base="unique", heads="L1H3,L0H1", step=160) == page


def test_of_a_large_series_the_events_stay(pages, monkeypatch):
    monkeypatch.setattr(play, "MAX_CELLS", 1)
    page = written(pages, run="repeated", base="unique", step=160)
    parts = {part["name"]: part for part in shown(page)["parts"]}
    grid, base = parts["grid"]["data"], parts["circuit-base"]
    steps = grid["steps"]
    assert 12 <= len(steps) < len(STEPS) and 160 in steps and steps[grid["index"]] == 160
    assert "are left out to limit the size of this file" in page
    assert all(steps[mark["index"]] in STEPS for mark in grid["marks"]) and any(
        m["kind"] == "event" for m in grid["marks"]
    )
    codes = np.frombuffer(base64.b64decode(grid["panels"][0]["codes"]), dtype="<u2").reshape(len(steps), 2, 4)
    cube = Results.open(pages / "repeated").cube("prefix_matching", "score")
    wanted = cube.value[[STEPS.index(step) for step in steps]]
    np.testing.assert_allclose(grid["lo"] + codes / LEVELS * (grid["hi"] - grid["lo"]), wanted, atol=1e-4)
    assert [base["data"]["steps"][at] for at in base["at"] if at >= 0] == [
        s for s, at in zip(steps, base["at"], strict=True) if at >= 0
    ]
    assert len(base["data"]["edges"]) == len(base["data"]["steps"])


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"run": "uniqe"}, "run=uniqe is not among the runs here"),
        ({"heads": "L9H9"}, "heads=L9H9 is not in repeated"),
        ({"heads": "L0H0,L0H1,L0H2,L0H3,L1H0,L1H1,L1H2"}, "heads contains 7 heads"),
        ({"probe": "nothing"}, "probe=nothing has no value per head"),
        ({"step": 7}, "step=7 was not measured"),
        ({"base": "repeated"}, "base=repeated is the run itself"),
    ],
)
def test_what_is_not_there_is_an_error(pages, chosen, said):
    with pytest.raises(ByroteError, match=re.escape(said)):
        written(pages, **{"run": "repeated", **chosen})


def test_folders_and_a_place_that_is_none(pages, tmp_path, byrote):
    done = byrote("export", str(pages / "unique"), str(pages / "repeated"), "-o", str(tmp_path))
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "play.html")
    assert len(shown((tmp_path / "play.html").read_text())["parts"][0]["data"]["panels"]) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(ByroteError, match="cannot write"):
        br.export(pages / "unique", tmp_path / "file" / "x.html")
    done = byrote("export", str(pages / "unique"), "-o", str(tmp_path / "x.pdf"))
    assert done.exit_code == 2 and "x.pdf would be a .pdf file, and an HTML file is written" in done.stderr
    assert not (tmp_path / "x.pdf").exists()


@pytest.mark.browser
def test_it_plays_from_disk_without_a_network(browser, page, tmp_path):
    file = tmp_path / "play.html"
    file.write_text(page, encoding="utf-8")
    faults: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 400, "height": 800}, color_scheme="dark")
    tab = context.new_page()
    tab.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith("file:") else faults.append(asked.url))
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-ready]")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    step = (
        "(name) => document.querySelector(`#${name} .stage`).shadowRoot.querySelector('.byrote').dataset.step"
    )
    cursor = "document.querySelector('.cursor').getAttribute('x1')"
    assert tab.evaluate(step, "grid") == "160"
    before = tab.evaluate(cursor)
    tab.locator("#grid .play").focus()
    tab.keyboard.press("Enter")
    tab.locator("#grid .byrote:not([data-step='160'])").wait_for()
    tab.keyboard.press("Enter")
    here = tab.evaluate(step, "grid")
    assert int(here) > 160 and tab.evaluate(cursor) != before
    assert tab.evaluate(step, "circuit") == tab.evaluate(step, "circuit-base") == here
    tab.locator("#circuit-base input[type=range]").first.focus()  # the others follow the baseline too
    tab.keyboard.press("Home")
    assert tab.evaluate(step, "grid") == tab.evaluate(step, "circuit") == "0"
    tab.locator("#grid .cell[aria-label^='L0H2']").first.click()
    assert "L0H2" in tab.locator("#circuit .node.selected").get_attribute("aria-label")
    tab.locator("#attention-L1H3 .tokens button").nth(5).click()
    assert "attends to" in tab.locator("#attention-L1H3 .live").inner_text()
    context.close()
    assert faults == []


_NAMES_UNDER_EDGES = """() => {
  const svg = document.querySelector('#circuit .stage').shadowRoot.querySelector('svg[role=group]');
  const names = [...svg.querySelectorAll('text')].map((name) => [name.textContent, name.getBBox()]);
  const under = new Set(), edges = [...svg.querySelectorAll('.edge')];
  for (const edge of edges) {
    for (let at = 0; at <= edge.getTotalLength(); at++) {
      const { x, y } = edge.getPointAtLength(at);
      for (const [text, box] of names) if (x > box.x && x < box.x + box.width && y > box.y && y < box.y + box.height) under.add(text);
    }
  }
  return [edges.length, names.length, [...under]];
}"""


@pytest.mark.browser
def test_no_edge_of_a_circuit_of_many_heads_crosses_a_name(browser, tmp_path):
    write_results(tmp_path, "many", whole(steps=(0, 40), shape=(12, 12)), shape=(12, 12))
    context = browser.new_context(offline=True, viewport={"width": 1440, "height": 900})
    tab = context.new_page()
    file = tmp_path / "play.html"
    file.write_text(written([tmp_path / "many"]), encoding="utf-8")
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-ready]")
    edges, names, under = tab.evaluate(_NAMES_UNDER_EDGES)
    context.close()
    assert edges >= 10 and names >= 15 and under == []
