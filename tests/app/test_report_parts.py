"""The report's small parts, each by itself: redaction, colours, still drawings, the size warning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go
import pytest
from paper_runs import planted_run, rebuilt

from byrote.probes.figures.svg import figure_svg, readable_on
from byrote.probes.figures.theme import TOKENS
from byrote.probes.registry import REGISTRY
from byrote.probes.spec import Plugin
from byrote.probes.stored_probes import to_json
from byrote.probes.wording import of_runs
from byrote.report.content import report_content
from byrote.report.files import json_text, size_warnings
from byrote.report.front import without_repeats
from byrote.report.redact import redact


def test_a_page_past_the_limit_is_warned_about_with_its_largest_section() -> None:
    assert size_warnings(10, {"a": 4, "b": 6}, limit=10) == ()
    (warning,) = size_warnings(12_300_000, {"heads": 1_000_000, "timeline": 8_000_000}, limit=10_000_000)
    assert "12 MB" in warning and "“timeline” (8 MB)" in warning


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("a", "a"),
        ("ab", "a and b"),
        ("abc", "a, b and c"),
        ("abcd", "4 of 9 runs (a, b, c and 1 more)"),
        ("abcdefghi", "all 9 runs"),
    ],
)
def test_of_which_runs_something_holds(names: str, words: str) -> None:
    assert of_runs(names, 9) == words
    assert of_runs("a", 1) == "a"


def test_homes_and_user_names_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/grace")
    assert redact("/srv/people/grace/runs/a") == "~/runs/a"
    assert redact("open '/home/ada/x' and /Users/ada/y") == "open '~/x' and ~/y"
    assert redact(r"C:\Users\ada\runs") == r"~\runs"
    assert redact("/srv/people/graceful/a") == "/srv/people/graceful/a"


def test_still_figures_refuse_what_they_cannot_draw() -> None:
    fig = go.Figure(
        go.Pie(values=[1]),
        layout={"height": 100, "margin": {"t": 0, "b": 0, "l": 0, "r": 0}, "meta": {"alt": "a"}},
    )
    with pytest.raises(ValueError, match="pie"):
        figure_svg(fig, name="x")


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_theme_colours_can_be_told_from_the_paper() -> None:
    for theme in (0, 1):
        paper = TOKENS["paper"][theme]
        for name in ("ink", "muted"):
            assert contrast(TOKENS[name][theme], paper) >= 4.5, (name, theme)
        for name in ("base", "series0", "series1", "series2", "series3"):
            assert contrast(TOKENS[name][theme], paper) >= 3, (name, theme)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert readable_on("#fee838") == "#111111" and readable_on("#00224e") == "#ffffff"


@pytest.fixture
def own_registry() -> Iterator[None]:
    """Leaves the catalogue as it was: opening results makes their plugins' probes known."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.parametrize("described", [True, False])
def test_probes_of_plugins_appear_by_their_own_fields(own_registry: None, *, described: bool) -> None:
    head = replace(
        REGISTRY["prefix_matching"], name="self_attention", module="", plugin=Plugin("mine.py", "", "0")
    )
    model = replace(
        REGISTRY["repeat_loss"], name="doubling", module="", plugin=Plugin("mine.py", "", "0"), details=(),
        metrics={"n_blocks": "a number", "later_blocks": "loss"}, main_metric="n_blocks",
    )  # fmt: skip
    unique = planted_run(steps=(0, 256, 2400))
    frame = unique.frame
    ours = frame[frame["probe"].isin(["prefix_matching", "repeat_loss"])].copy()
    ours["probe"] = ours["probe"].map({"prefix_matching": "self_attention", "repeat_loss": "doubling"})
    ours["metric"] = ours["metric"].replace("first_block", "n_blocks")
    stored = [to_json(head), to_json(model)] if described else []
    results = rebuilt(unique, frame=pd.concat([frame, ours]), plugins=stored)
    data = json.loads(json_text(report_content([results], date="today")))
    sections = {one["name"]: one for one in data["sections"]}
    rows = next(b for b in sections["summary"]["blocks"] if b["kind"] == "table")["rows"]
    measures = {row["Measure"]["text"] for row in rows}
    assert {"Self attention", "Doubling: n blocks", "Doubling: later blocks"} <= measures
    methods = json.dumps(sections["methods"])
    assert ("method-self_attention" in methods) == described and "self_attention" in methods


def test_a_first_sentence_that_all_comparisons_share_is_stated_once():
    apart = ["No verdict. B is 0.5 worse.", "No verdict. C is 0.2 worse. So is D."]
    assert without_repeats(apart) == ["No verdict.", "B is 0.5 worse.", "C is 0.2 worse. So is D."]
    assert without_repeats(apart[:1]) == apart[:1]
    assert without_repeats([*apart, "Other."]) == [*apart, "Other."]
