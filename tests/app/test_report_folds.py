"""What a report shows first, what it folds, and what it says of many runs and of an older report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from paper_runs import planted_run, rebuilt, without

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import STEP_UNKNOWN
from byrote.probes.findings_memory import NOT_MEASURED
from byrote.probes.results import Results
from byrote.probes.rules import SECONDARY
from byrote.report import build_report
from byrote.report.changes import read_report, report_changes
from byrote.report.content import report_content
from byrote.report.html import render
from byrote.report.index import build_reports
from byrote.report.model import Picture, Prose, Table

STEPS = (0, 256, 320, 2400)


@pytest.fixture(scope="module")
def unique() -> Results:
    return planted_run(steps=STEPS)


@pytest.fixture(scope="module")
def repeated() -> Results:
    return planted_run("repeated", learns=False, seed=1, steps=STEPS)


def with_members(results: Results, completed: float) -> Results:
    """The same run with 16 members, of which a share is completed at every step."""
    model = results.frame[
        (results.frame["probe"] == "repeat_loss") & (results.frame["metric"] == "later_blocks")
    ]
    rows = model.assign(
        probe="exact_match", metric="completed", value=completed, lo=completed, hi=completed, n=16
    )
    return rebuilt(results, frame=pd.concat([results.frame, rows], ignore_index=True))


def test_the_front_has_the_finding_few_measures_and_the_key_figure(
    unique: Results, repeated: Results
) -> None:
    report = report_content([unique, repeated], base="unique", date="today")
    front = report.sections[0]
    assert front.name == "finding" and not front.folded
    kinds = [type(block) for block in front.blocks]
    assert kinds[0] is Prose and Table in kinds and Picture in kinds
    table = next(block for block in front.blocks if isinstance(block, Table))
    measures = list(dict.fromkeys(row[0].text for row in table.rows))  # type: ignore[union-attr]
    assert 4 <= len(measures) <= 1 + len(SECONDARY) and measures[0] == "Repeat loss: difference"
    everything = next(section for section in report.sections if section.name == "summary")
    rows = next(block for block in everything.blocks if isinstance(block, Table)).rows
    assert everything.folded and len(rows) > 2 * len(table.rows)
    assert table.columns[1:3] == ("unique, baseline", "repeated")
    for row in table.rows:  # two runs side by side, each number as in the table of all measures
        mine = {one[1]: one for one in rows if one[0].text == row[0].text}
        assert row[1:4] == (mine["unique"][2], mine["repeated"][2], mine["repeated"][5])
    assert "loss on the repeats of random tokens" in table.rows[1][0].detail
    figure = next(block for block in front.blocks if isinstance(block, Picture))
    assert figure.name == "key-figure" and figure.figure.layout.height < 480


def test_the_front_of_single_checkpoints_shows_their_heads_and_says_that_memory_was_not_measured(
    unique: Results,
) -> None:
    one = rebuilt(unique, frame=unique.frame[unique.frame["step"] == 2400].reset_index(drop=True))
    report = report_content([rebuilt(one, notes=[STEP_UNKNOWN])], date="today")
    front = report.sections[0]
    assert [b.name for b in front.blocks if isinstance(b, Picture)] == ["key-grid-0"]
    assert Prose(NOT_MEASURED, "lead") in front.blocks
    assert report.title == "unique: 2 induction heads (L1H0, L1H2)"
    assert next(section for section in report.sections if section.name == "timeline").folded


def test_memory_is_in_title_and_front(unique: Results, repeated: Results) -> None:
    report = report_content(
        [with_members(unique, 0.0), with_members(repeated, 0.75)], base="unique", date="today"
    )
    said = "raining sequences completed without an error: 0 of 16 in unique, 12 of 16 in repeated"
    assert report.title.endswith(f"; t{said}")
    series = {**unique.meta["series"], "manifest": {"arm": {"kind": "control"}}}
    control = rebuilt(with_members(unique, 0.0), series=series)
    of_both = report_content([control, with_members(repeated, 0.75)], date="today")
    assert of_both.title.endswith("; training sequences completed without an error: 12 of 16 in repeated")
    assert "12 of 16 in repeated, 0 of 16 in unique, which was not trained on them." in str(
        of_both.sections[0]
    )
    assert Prose(f"T{said}.", "lead") in report.sections[0].blocks
    assert "raining sequences" not in report_content([unique], date="today").title


def test_what_is_long_is_closed_and_named_on_paper(unique: Results) -> None:
    report = report_content([unique], date="today")
    page, _ = render(report, light=True)
    folded = [section for section in report.sections if section.folded]
    assert page.count('<details class="fold">') == len(folded) == 10
    assert all(f'<th scope="row">{word}</th>' in page for word in ("Induction head", "Prefix matching"))
    on_paper = re.search(r'<p class="on-paper">(.*?)</p>', page)
    assert on_paper is not None and all(section.title in on_paper.group(1) for section in folded)
    assert "section.folded:has(> .fold:not([open]))" in page and "@page" in page


def test_what_no_comparison_needs_is_left_to_the_appendix(unique: Results, repeated: Results) -> None:
    holed = without(
        unique, probe="offset_profile", step=2400, layer=1, head=3, reason="no query is that far back"
    )
    other = rebuilt(
        repeated,
        provenance={**repeated.meta["provenance"], "dtype": "bfloat16"},
        gaps=[{"step": 1, "reason": "r"}],
    )
    report = report_content([holed, other], base="unique", date="today")
    texts = [alert.text for alert in report.alerts]
    first = [alert.compares for alert in report.alerts]
    assert first == sorted(first, reverse=True) and "Dtype differs" in " ".join(texts[: sum(first)])
    assert (
        "unique: some values of offset profile were not measured; the appendix says which, and why." in texts
    )
    assert not any("no query is that far back" in text for text in texts)
    appendix = report.sections[-1]
    assert appendix.name == "errors" and "no query is that far back" in str(appendix.blocks)


def test_a_light_page_of_much_leaves_out_the_tables_under_figures(
    monkeypatch: pytest.MonkeyPatch, unique: Results
) -> None:
    report = report_content([unique], date="today")
    whole, _ = render(report, light=True)
    monkeypatch.setattr("byrote.report.html.LIGHT_BYTES", 1000)
    small, _ = render(report, light=True)
    assert "<summary>Data table" in whole and "<summary>Data table" not in small
    assert "which this page is too small for" in small and "too small" not in whole
    assert small.count("<figure") == whole.count("<figure")
    assert render(report, light=False)[0].count("<summary>Data table") == whole.count("<summary>Data table")


def test_two_reports_of_the_same_results_say_the_same_and_a_moved_value_is_found(
    unique: Results, tmp_path: Path, byrote: Callable[..., Any]
) -> None:
    frame = unique.frame.copy()
    mine = (
        (frame["probe"] == "prefix_matching")
        & (frame["step"] == 2400)
        & (frame["layer"] == 1)
        & (frame["head"] == 0)
    )
    for column in ("value", "lo", "hi"):
        frame.loc[mine, column] -= 0.3
    for name, results in (("old", unique), ("same", unique), ("new", rebuilt(unique, frame=frame))):
        build_report([results], out=tmp_path / name, light=True, date=name)
    old, same, new = (read_report(tmp_path / name) for name in ("old", "same", "new"))
    assert report_changes(old, same) == []
    found = report_changes(old, new)
    moved = [
        one
        for one in found
        if one.kind == "value" and "Every measure" in one.where and "Prefix matching" in one.where
    ]
    assert moved and any(one.beyond for one in moved)
    back = report_changes(new, old)
    assert {(one.old, one.new) for one in back if one.kind == "value"} == {
        (one.new, one.old) for one in found if one.kind == "value"
    }
    shown = byrote("report", tmp_path / "old", tmp_path / "new" / "report.html")
    assert "beyond both intervals" in shown.stdout and "Prefix matching" in shown.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "cannot be read"), ('{"schema": "other"}', "its schema is"), ("[]", "cannot be read")],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ByroteError, match=words):
        read_report(tmp_path)
    with pytest.raises(ByroteError, match="is no report"):
        read_report(tmp_path / "nothing")


def test_a_stranger_s_report_changes_nothing_but_words() -> None:
    odd = {
        "schema": "byrote-report",
        "sections": [1, {"blocks": [{"kind": "table", "rows": [{"Run": {"a": 1}}, 2]}, "x"]}],
        "runs": 3,
    }
    assert report_changes(odd, odd) == []
    assert report_changes(odd, {"sections": [], "title": "\x1b[31mred"})[0].new == "�[31mred"


def test_a_report_of_every_run_and_an_index_over_them(
    unique: Results, repeated: Results, tmp_path: Path
) -> None:
    files = build_reports([unique, repeated], out=tmp_path, base="unique", light=True, date="today")
    page = files.html.read_text()
    links = re.findall(r'<a href="([^"#]+)">', page)
    assert links == ["unique/report.html", "repeated/report.html"] and all(
        (tmp_path / link).is_file() for link in links
    )
    rows = json.loads(files.json.read_text())["sections"][0]["blocks"][0]["rows"]
    assert (
        "between steps 256 and 320" in rows[0]["Induction heads"]
        and "no induction head" in rows[1]["Induction heads"]
    )
    assert "Change from unique" in (tmp_path / "repeated" / "report.html").read_text()
    gap = rebuilt(repeated, gaps=[{"step": 1, "reason": "file is truncated"}])
    assert (
        "file is truncated" in build_reports([unique, gap], out=tmp_path / "b", light=True).html.read_text()
    )
    with pytest.raises(ByroteError, match="one folder"):
        build_reports([unique, rebuilt(repeated, run="unique ")], out=tmp_path)


def test_members_of_many_arms_are_a_table_and_two_of_them_the_title(unique: Results) -> None:
    named = {f"P{pool}": share for pool, share in ((1, 1.0), (2, 0.75), (4, 0.5), (8, 0.25), (16, 0.0))}
    memory_alone = unique.frame["probe"].eq("repeat_loss")
    runs = []
    for arm, share in named.items():
        found = with_members(rebuilt(unique, frame=unique.frame[memory_alone].reset_index(drop=True)), share)
        rows = found.frame[found.frame["probe"] == "exact_match"].reset_index(drop=True)
        series = {**found.meta["series"], "manifest": {"arm": {"kind": arm}}}
        runs.append(rebuilt(found, frame=rows.assign(run=arm), run=arm, series=series))
    report = report_content(runs, date="today")
    words = "raining sequences completed without an error: from 0 of 16 in P16 to 16 of 16 in P1"
    assert report.title == f"T{words}"
    assert Prose(f"T{words}.", "lead") in report.sections[0].blocks
