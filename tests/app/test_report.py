"""The report: one file that says everything, to anyone, offline, and the same twice."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from paper_runs import COLUMNS, planted_comparison, planted_run, rebuilt, without

from byrote.checkpoints.errors import ByroteError
from byrote.probes.figures.theme import TOKENS
from byrote.probes.results import Results
from byrote.probes.results.schema import from_frame
from byrote.report import ReportFiles, build_report
from byrote.report.alerts import alerts_of, status_of
from byrote.report.background import intervals_section
from byrote.report.content import report_content
from byrote.report.files import json_text, page_file_of
from byrote.report.html import render
from byrote.report.index import build_reports
from byrote.report.report_inputs import report_inputs

DATE = "2026-11-21 09:00 UTC"
FEW_STEPS = (0, 256, 320, 512, 2400)
OPEN = ("finding", "verdict", "timeline", "intervals", "words")
SECTIONS = (
    "finding", "verdict", "timeline", "summary", "events", "heads", "curves", "memory", "comparison", "intervals", "words", "methods",
    "provenance", "reproduce", "errors",
)  # fmt: skip
HOSTILE = "</script><img src=x onerror=alert(1)>"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """What is in a page: tags with attributes, ids, links, and text by enclosing tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.tags if attrs.get("id")]


@pytest.fixture(scope="module")
def full_runs() -> list[Results]:
    """Two runs of the demo's shape: 28 steps each."""
    return [planted_run(), planted_run("repeated", learns=False, seed=1)]


@pytest.fixture(scope="module")
def unique() -> Results:
    return planted_run(steps=FEW_STEPS)


@pytest.fixture(scope="module")
def repeated() -> Results:
    return planted_run("repeated", learns=False, seed=1, steps=FEW_STEPS)


@pytest.fixture(scope="module")
def built(
    full_runs: list[Results],
    unique: Results,
    repeated: Results,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, ReportFiles]:
    """The page without scripts of the long runs, the one with them of the same runs at a few steps."""
    out = tmp_path_factory.mktemp("reports")
    return {
        name: build_report(
            runs, comparison=planted_comparison(*runs), out=out / name, light=name == "light", date=DATE
        )
        for name, runs in (("full", [unique, repeated]), ("light", full_runs))
    }


@pytest.fixture(scope="module")
def mine(unique: Results, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """A report of one run under a name and a title of one's own."""
    place = tmp_path_factory.mktemp("mine") / "mine.html"
    return build_report([unique], out=place, light=True, title="Mine", date=DATE)


def read(files: ReportFiles) -> str:
    return files.html.read_text(encoding="utf-8")


def without_plotly(page: str) -> str:
    """The page less the inlined library, which is not ours to read."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.S)


def numbers_of(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from numbers_of(child)
    elif isinstance(node, float):
        yield node


def test_the_three_files_are_where_they_were_asked_for(
    built: dict[str, ReportFiles], mine: ReportFiles
) -> None:
    assert [p.name for p in (built["full"].html, built["full"].json, built["full"].csv)] == [
        "report.html", "report.json", "scores.csv"]  # fmt: skip
    assert [p.name for p in (mine.html, mine.json, mine.csv)] == ["mine.html", "mine.json", "mine.csv"]
    assert sorted(p.name for p in mine.html.parent.iterdir()) == ["mine.csv", "mine.html", "mine.json"]


@pytest.mark.parametrize("name", ["full", "light"])
def test_sections_stand_in_order_with_anchors_and_contents(built: dict[str, ReportFiles], name: str) -> None:
    page = Page(without_plotly(read(built[name])))
    assert page.open == []
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    links = [a["href"][1:] for a in page.named("a") if (a.get("href") or "").startswith("#")]
    assert set(links) <= set(page.ids) | {"main"} and set(SECTIONS) <= set(links)
    headings = [attrs for tag, attrs in page.tags if tag in ("h2", "h3")]
    assert all(attrs.get("id") for attrs in headings)


@pytest.mark.parametrize("name", ["full", "light"])
def test_the_page_can_be_read_without_eyes_or_mouse(built: dict[str, ReportFiles], name: str) -> None:
    page = Page(without_plotly(read(built[name])))
    assert (
        len(page.named("h1"))
        == len(page.named("main"))
        == len(page.named("header"))
        == len(page.named("footer"))
        == 1
    )
    assert page.named("nav")[0]["aria-label"] and page.named("html")[0]["lang"] == "en"
    assert page.tags[[t for t, _ in page.tags].index("body") + 1] == ("a", {"class": "skip", "href": "#main"})
    figures = page.named("figure")
    folds = [a for a in page.named("details") if a.get("class") == "fold"]
    tables = [a for a in page.named("details") if a.get("class") != "fold"]
    assert len(figures) == len(page.named("figcaption")) >= 10 and len(tables) >= len(figures)
    assert len(folds) == len(SECTIONS) - len(OPEN) and not any("open" in a for a in page.named("details"))
    stills = [a for a in page.named("svg") if a.get("class") == "still"]
    assert len(stills) == len(figures)
    said = dict(re.findall(r'<figcaption id="([^"]+)">(.*?)</figcaption>', read(built[name]), re.S))
    assert all(a["role"] == "img" and len(said[a["aria-labelledby"] or ""]) > 40 for a in stills)
    assert len(page.named("table")) == len(page.named("caption"))
    assert all(a.get("scope") for a in page.named("th"))


@pytest.mark.parametrize("name", ["full", "light"])
def test_the_page_asks_the_network_for_nothing(built: dict[str, ReportFiles], name: str) -> None:
    page = Page(without_plotly(read(built[name])))
    policy = next(
        a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';") and "http" not in policy
    assert ("script-src" in policy) == (name == "full")
    assert not [t for t, _ in page.tags if t in ("link", "img", "iframe", "object", "embed", "base", "form")]
    assert not [a for _, a in page.tags if a.get("src") or any(k.startswith("on") for k in a)]
    assert not re.search(r"url\((?!#)|@import", without_plotly(read(built[name])))


def test_the_light_page_is_small_and_has_no_script(built: dict[str, ReportFiles]) -> None:
    text = read(built["light"])
    assert len(text.encode()) < 300_000
    assert "<script" not in text and "javascript:" not in text
    assert built["light"].warnings == ()


def test_the_full_page_inlines_plotly_once_and_draws_every_figure_first(
    built: dict[str, ReportFiles],
) -> None:
    text = read(built["full"])
    assert text.count("plotly.js v") == 1
    page = Page(without_plotly(text))
    figures = len(page.named("figure"))
    assert len([a for a in page.named("div") if a.get("class") == "plot"]) == figures
    data = re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)
    assert len(data) == figures
    for block in data:
        spec = json.loads(block)
        assert spec["figure"]["data"] and spec["dark"]
        for path, color in spec["dark"]:
            node = spec["figure"]
            for key in path:
                node = node[key]
            assert node != color


def test_the_dark_patch_turns_the_light_figure_into_the_dark_one(built: dict[str, ReportFiles]) -> None:
    block = re.search(r'<script type="application/json">(.*?)</script>', read(built["full"]), re.S)[1]
    spec = json.loads(block)
    changed = {tuple(path): color for path, color in spec["dark"]}
    assert changed[("layout", "template", "layout", "paper_bgcolor")] == TOKENS["paper"][1]
    assert all(path[-1].endswith("color") for path in changed if isinstance(path[-1], str))


def test_the_title_is_the_finding_and_can_be_replaced(
    built: dict[str, ReportFiles], mine: ReportFiles
) -> None:
    finding = "unique: induction heads form between steps 256 and 320 (L1H0, L1H2); repeated: no lasting induction head forms"
    assert f"<h1>{finding}</h1>" in read(built["full"]) and f"<title>{finding}</title>" in read(
        built["light"]
    )
    assert "<h1>Mine</h1>" in read(mine)


def test_alerts_come_first_and_none_is_said(
    built: dict[str, ReportFiles], mine: ReportFiles, unique: Results, repeated: Results, tmp_path: Path
) -> None:
    assert "No alerts" in read(mine)
    note = "repeated against unique: the repeated arm sees 50% as many different sequences as the unique arm"
    assert note in html.unescape(read(built["light"]))
    holed = without(
        unique, probe="prefix_matching", step=2400, layer=1, head=3, reason="no query has a target"
    )
    gap = {
        "step": 1024,
        "path": "/home/ada/s/step_1024",
        "reason": "file is truncated",
        "help": "copy it again",
    }
    other = rebuilt(repeated, gaps=[gap], provenance={**repeated.meta["provenance"], "dtype": "bfloat16"})
    text = read(build_report([holed, other], out=tmp_path, light=True, date=DATE))
    head = text[: text.index("</header>")]
    for words in (
        "file is truncated",
        "no query has a target",
        "Dtype differs: unique: float32; repeated: bfloat16",
    ):
        assert words in head and head.index(words) < text.index('id="finding"')
    assert "◐ partial" in head
    assert "copy it again" in text and "ada" not in text
    assert "not measured: no query has a target" in text


def test_numbers_stand_with_interval_n_and_chance(built: dict[str, ReportFiles]) -> None:
    rows = section(json.loads(built["full"].json.read_text()), "summary")["blocks"][0]["rows"]
    first = rows[0]
    assert first["Measure"]["text"] == "Prefix matching" and "↑" in first["Measure"]["detail"]
    value = first["Value [95% interval]"]
    assert value["where"] == "L1H0" and value["lo"] < value["value"] < value["hi"] and value["n"] == 32
    assert value["chance"] == pytest.approx(0.0307)
    assert rows[1]["Change from unique"]["hi"] < 0 and rows[1]["In words"]["text"] == "lower"
    losses = [r for r in rows if r["Measure"]["text"] == "Repeat loss: first block"]
    assert losses[1]["In words"]["text"] == "no clear change"
    assert (
        "↓"
        in next(r for r in rows if r["Measure"]["text"] == "Repeat loss: later blocks")["Measure"]["detail"]
    )


def section(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(s for s in data["sections"] if s["name"] == name)


def test_the_verdict_and_its_onset_are_told_per_run(built: dict[str, ReportFiles]) -> None:
    blocks = section(json.loads(built["full"].json.read_text()), "verdict")["blocks"]
    assert (
        "between steps 256 and 320" in blocks[0]["items"][0] and "no induction head" in blocks[0]["items"][1]
    )
    called = [row["Head"] for row in blocks[1]["rows"] if row["Induction head"]["text"] == "yes"]
    assert called == ["L1H0", "L1H2"]


def test_what_the_intervals_do_not_cover_is_said(built: dict[str, ReportFiles], unique: Results) -> None:
    text = html.unescape(read(built["light"]))
    assert "It does not cover the training seed" in text
    assert "Each arm here is one trained run (training seed 0), so the seed-to-seed spread is unknown" in text
    twin = planted_run("again", seed=3, steps=FEW_STEPS)
    told = intervals_section(report_inputs([unique, twin])).blocks[0].items[-1]
    assert "2 of unique" in told and "unknown" not in told


def test_methods_give_formula_source_stimulus_and_chance(built: dict[str, ReportFiles]) -> None:
    cards = section(json.loads(built["full"].json.read_text()), "methods")["blocks"][0]["cards"]
    card = next(c for c in cards if c["title"] == "Prefix matching")
    facts = dict(card["facts"])
    assert facts["Stimulus"].startswith("repeated_random-r15m3-s0 (seed 0, n = 32)")
    assert "arXiv:2209.11895" in facts["Source"] and "uniform" in facts["Chance"] and facts["n"] == "32"
    assert len(cards) == 9


def test_the_report_says_how_to_make_it_again(built: dict[str, ReportFiles]) -> None:
    text = html.unescape(read(built["light"]))
    assert "byrote run ~/series/unique -o results" in text
    assert "byrote compare results/unique results/repeated" in text
    assert "byrote report results/unique results/repeated --base unique --light -o report.html" in text
    assert 'Results.open("results/unique")' in text


def test_the_same_results_give_the_same_bytes_except_one_date_line(
    built: dict[str, ReportFiles], tmp_path: Path
) -> None:
    again = [
        planted_run(steps=FEW_STEPS),
        planted_run("repeated", learns=False, seed=1, steps=FEW_STEPS),
    ]
    comparison = planted_comparison(*again)
    first = built["full"]
    second = build_report(again, comparison=comparison, out=tmp_path, date=DATE.replace("21", "22"))
    for a, b in ((first.html, second.html), (first.json, second.json)):
        differing = [
            (x, y)
            for x, y in zip(a.read_text().split("\n"), b.read_text().split("\n"), strict=True)
            if x != y
        ]
        assert len(differing) == 1 and "2026-11-21" in differing[0][0]
    assert first.csv.read_bytes() == second.csv.read_bytes()


def test_hostile_names_and_texts_are_only_ever_shown() -> None:
    hostile = planted_run(HOSTILE, steps=FEW_STEPS)
    hostile = without(
        hostile, probe="prefix_matching", step=512, layer=0, head=0, reason=f"token {HOSTILE} is unknown"
    )
    hostile = rebuilt(
        hostile,
        gaps=[{"step": 8, "path": f"/home/ada/{HOSTILE}", "reason": HOSTILE, "help": "`'\"<b>"}],
        notes=[HOSTILE],
        provenance={**hostile.meta["provenance"], "device": HOSTILE},
        model={**hostile.meta["model"], "architecture": HOSTILE},
    )
    other = planted_run("repeated", learns=False, steps=FEW_STEPS)
    comparison = planted_comparison(hostile, other)
    report = report_content([hostile, other], comparison=comparison, title=f"{HOSTILE}!", date=DATE)
    for light in (True, False):
        text = render(report, light=light)[0]
        page = Page(without_plotly(text))
        assert not page.named("img") and "<img src=x" not in text.lower()
        assert len(page.named("script")) == (0 if light else len(page.named("figure")) + 1)
        for block in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S):
            assert "<" not in block and ">" not in block
            json.loads(block)
        assert html.escape(f"token {HOSTILE} is unknown") in text


def test_json_holds_null_and_a_reason_never_nan(unique: Results, tmp_path: Path) -> None:
    holed = without(
        unique, probe="prefix_matching", step=2400, layer=1, head=3, reason="no query has a target"
    )
    text = build_report([holed], out=tmp_path, light=True, date=DATE).json.read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert data["schema"] == "byrote-report" and data["schema_version"] == 1
    assert data["status"] == "complete" and data["date"] == DATE
    assert [s["name"] for s in data["sections"]] == list(SECTIONS)
    grid = next(b for b in section(data, "heads")["blocks"] if b["kind"] == "figure")
    cell = next(row for row in grid["table"]["rows"] if row["Head"] == "L1H3")["step 2,400"]
    assert cell["value"] is None and cell["lo"] is None and cell["reason"] == "no query has a target"
    assert grid["finding"].endswith("(L1H3).")
    assert list(numbers_of(data))


def test_csv_is_tidy_and_complete(built: dict[str, ReportFiles], full_runs: list[Results]) -> None:
    rows = list(csv.DictReader(io.StringIO(built["light"].csv.read_text())))
    assert list(rows[0]) == ["run", "arm", *COLUMNS[1:], "seed", "training_seed"]
    assert {row["training_seed"] for row in rows} == {"0"}
    assert len(rows) == sum(len(r.frame) for r in full_runs)
    assert not any(value.lower() in ("nan", "inf", "none") for row in rows[:500] for value in row.values())


def empty(results: Results) -> Results:
    return rebuilt(
        results,
        frame=results.frame.head(0),
        status="interrupted",
        gaps=[{"step": 0, "path": "p", "reason": "r"}],
    )


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda r: [empty(r)], id="nothing measured"),
        pytest.param(lambda r: [empty(r), rebuilt(r, run="other")], id="one run empty"),
        pytest.param(lambda r: [only(r, "repeat_loss")], id="no head probe"),
        pytest.param(lambda r: [only(r, "previous_token")], id="one head probe"),
        pytest.param(lambda r: [rebuilt(r, frame=r.frame[r.frame["step"] == 0])], id="one step"),
        pytest.param(lambda r: [all_invalid(r)], id="all invalid"),
        pytest.param(lambda r: [bare(r)], id="bare"),
    ],
)
def test_every_section_is_there_whatever_is_missing(
    unique: Results, make: Callable[[Results], list[Results]]
) -> None:
    report = report_content(make(unique), date=DATE)
    json.loads(json_text(report), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    for light in (True, False):
        text = without_plotly(render(report, light=light)[0])
        assert [i for i in Page(text).ids if i in SECTIONS] == list(SECTIONS)
        assert not any(words in text.lower() for words in (">nan", ">none<", " nan ", "traceback"))


def bare(results: Results) -> Results:
    """A run.json with nothing in it but a name."""
    return Results(results.path, {"run": "bare"}, from_frame(results.frame.head(0)))


def only(results: Results, probe: str) -> Results:
    return rebuilt(results, frame=results.frame[results.frame["probe"] == probe])


def all_invalid(results: Results) -> Results:
    nothing = {
        "value": float("nan"),
        "lo": float("nan"),
        "hi": float("nan"),
        "valid": False,
        "reason": "the hook did not fire",
    }
    return rebuilt(results, frame=results.frame.assign(**nothing))


def test_the_status_word_follows_what_is_missing(unique: Results) -> None:
    def status(results: Results) -> str:
        inputs = report_inputs([results])
        return status_of(inputs, alerts_of(inputs))

    assert status(unique) == "complete"
    assert status(rebuilt(unique, gaps=[{"step": 1, "reason": "r"}])) == "partial"
    assert status(rebuilt(unique, status="interrupted")) == "partial"
    assert status(empty(unique)) == "failed"
    assert status(all_invalid(unique)) == "failed"


def test_a_wide_model_still_fits(tmp_path: Path) -> None:
    wide = planted_run("wide", steps=(0, 64, 256, 384, 448, 512, 1024, 2400))
    frame = wide.frame[wide.frame["probe"].isin(["prefix_matching", "previous_token", "induction"])]
    frame = frame[frame["metric"].isin(["score", "verdict"])]
    parts = [
        frame.assign(layer=frame["layer"] + 2 * i, head=frame["head"] + 4 * j)
        for i in range(6)
        for j in range(4)
    ]
    wide = rebuilt(wide, frame=pd.concat(parts), model={**wide.meta["model"], "n_layers": 12, "n_heads": 16})
    files = build_report([wide], out=tmp_path, light=True, date=DATE)
    assert files.html.stat().st_size < 300_000 and files.warnings == ()
    assert "more rows are in the CSV file" in read(files)


def test_mistakes_are_told_apart(unique: Results, repeated: Results, tmp_path: Path) -> None:
    def refused(call: Callable[[], object]) -> str:
        with pytest.raises(ByroteError) as caught:
            call()
        return str(caught.value)

    assert "at least one" in refused(lambda: build_report([], out=tmp_path))
    assert "both called 'unique'" in refused(lambda: build_report([unique, unique], out=tmp_path))
    assert "'unique'" in refused(lambda: build_report([unique, repeated], base="uniqe", out=tmp_path))
    blocked = tmp_path / "file"
    blocked.write_text("")
    losses = only(unique, "repeat_loss")
    assert "cannot write" in refused(lambda: build_report([losses], out=blocked / "r.html", light=True))
    said = refused(lambda: build_report([losses], out=tmp_path / "r.PDF", light=True))
    assert (
        "r.PDF would be a .pdf file, and an HTML file is written. name" in said
        and "r.html, or a folder" in said
    )
    assert "would be one file" in refused(lambda: build_reports([losses], out=tmp_path / "r.html"))
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    (tmp_path / "r.pdf").mkdir()
    assert page_file_of(tmp_path / "r.pdf", "x.html") == tmp_path / "r.pdf" / "x.html"
    assert page_file_of(tmp_path / "half-0.5", "x.html") == tmp_path / "half-0.5" / "x.html"


def test_a_comparison_that_is_refused_is_an_alert_not_a_crash(unique: Results, repeated: Results) -> None:
    unique, repeated = only(unique, "prefix_matching"), only(repeated, "prefix_matching")
    later = rebuilt(repeated, frame=repeated.frame.assign(step=repeated.frame["step"] + 100_000))
    report = report_content([unique, later], base="unique", date=DATE)
    assert any(a.text.startswith("Not compared:") and a.section == "comparison" for a in report.alerts)
