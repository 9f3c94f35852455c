"""What a page gives away: its numbers, its figures, itself, and the lines that make it again."""

from __future__ import annotations

import html
import io
import json
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from planted_series import flat, model_metric, rising, write_results

from byrote.dashboard import export, layout
from byrote.dashboard.export import notebook_lines, shell_lines
from byrote.dashboard.page import Drawing, View
from byrote.dashboard.views import PAGES
from byrote.probes.results import Results
from byrote.report.files import ReportFiles
from byrote.report.report_inputs import report_inputs

Look = Callable[..., tuple[View, Drawing]]


@pytest.fixture
def look(open_page, monkeypatch) -> Look:
    """`look("head", results, step=10)`: the page as drawn, with what it offers for export."""
    seen: list[tuple[View, Drawing]] = []
    monkeypatch.setattr(layout.export, "share", lambda view: None)
    monkeypatch.setattr(layout.export, "menu", lambda view, page: seen.append((view, page)))

    def call(page: str, *paths: Path, **params: Any) -> tuple[View, Drawing]:
        at = open_page(page, *paths, **params)
        assert not at.exception, at.exception
        return seen[-1]

    return call


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """Two runs with everything the pages draw, memory included."""
    root = tmp_path_factory.mktemp("export") / "results"
    for name, units in (("unique", rising()), ("repeated", flat())):
        memory = {s: [*ms, model_metric("mem_gap", "gap", s / 40)] for s, ms in units.items()}
        write_results(root, name, memory, arm={"kind": name})
    return root


@pytest.fixture(scope="module")
def kept() -> dict[str, tuple[View, Drawing]]:
    """Pages drawn once for all the tests that only read them."""
    return {}


@pytest.fixture
def drawn(look, measured, kept) -> Callable[[str], tuple[View, Drawing]]:
    """`drawn("head")`: the page on `measured`, with a baseline and a head."""

    def call(page: str) -> tuple[View, Drawing]:
        if page not in kept:
            kept[page] = look(page, measured, run="unique", base="repeated", step=40, head="L1H2")
        return kept[page]

    return call


def arrays(fig: go.Figure) -> list[list[Any]]:
    return [
        list(trace.y if trace.type == "scatter" else np.ravel(np.array(trace.z, dtype=object)))
        for trace in fig.data
    ]


def run_notebook(lines: list[str]) -> list[Any]:
    """What every line gives, as a notebook would show it."""
    scope: dict[str, Any] = {}
    shown = []
    for line in lines:
        try:
            code = compile(line, "cell", "eval")
        except SyntaxError:
            exec(line, scope)
            continue
        shown.append(eval(code, scope))
    return shown


def rows_of(byrote, line: str) -> list[dict[str, Any]]:
    """The rows a command prints as JSON."""
    words = shlex.split(line)
    assert words[0] == "byrote"
    done = byrote(*words[1:], "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def without_drawing(
    runs: list[Results], *, out: Path, base: str | None, light: bool, figures: bool, **groups: Any
) -> ReportFiles:
    """A report's checks, without its pages."""
    assert report_inputs(runs, base=base, **groups).refused == () and not light and not figures
    return ReportFiles(*(out / name for name in ("report.html", "report.json", "scores.csv")))


@pytest.mark.parametrize("case", ("planted by hand", "measured", "one run"))
def test_every_line_offered_runs(case, look, measured, byrote, planted_results, monkeypatch):
    if case != "one run":  # one report is drawn; the others' runs and baseline are looked at
        monkeypatch.setattr("byrote.report.build_report", without_drawing)
    results, state = {
        "planted by hand": (measured, {"run": "unique", "base": "repeated", "step": 40, "head": "L1H2"}),
        "measured": (planted_results, {"run": "planted", "base": "random", "step": 20}),
        "one run": (measured / "unique", {"step": 20}),
    }[case]
    ran = set()
    for page in PAGES:
        view, drawing = look(page, results, **state)
        assert drawing.finding and (case != "measured" or page != "trajectory" or "L1H0" in drawing.finding)
        *lines, dashboard = shell_lines(view)
        assert dashboard == shlex.join(["byrote", "dashboard", str(results)])
        assert lines
        for line in lines:
            if line not in ran:  # several pages offer the same report
                done = byrote(*shlex.split(line)[1:])
                assert done.exit_code == 0, (page, line, done.stderr)
                ran.add(line)
        assert run_notebook(notebook_lines(view)), page


def test_the_grid_and_the_table_of_the_trajectory_come_out_again(look, measured, byrote):
    view, page = look("trajectory", measured, run="unique", base="repeated", step=40, head="L1H2", pin="L0H1")
    table = page.tables["top"][1]
    printed = rows_of(byrote, shell_lines(view)[0])
    assert [r["head"] for r in printed if r["valid"]] == list(table["head"])
    for column, name in (("score", "value"), ("low", "lo"), ("high", "hi")):
        np.testing.assert_array_equal(table[column], [r[name] for r in printed if r["valid"]])
    grid, curves, top = run_notebook(notebook_lines(view))
    cube = view.run.cube("prefix_matching", "score")
    heat = next(t for t in grid.data if t.type == "heatmap")
    np.testing.assert_array_equal(np.array(heat.z, dtype=float), cube.value[cube.index(40)])
    drawn = {t.name: list(t.y) for t in page.figures["curves"]().data if t.name}
    again = {t.name: list(t.y) for t in curves.data if t.name}
    shared = [name for name in again if name in drawn and "H" in name]
    assert any("L1H2" in name for name in shared) and any("L0H1" in name for name in shared)
    assert all(drawn[name] == again[name] for name in shared)
    assert top.iloc[0]["value"] == table.iloc[0]["score"]


def test_the_overview_comes_out_again(look, measured):
    view, page = look("overview", measured, run="unique", base="repeated", step=40)
    timeline, losses, training, _ = run_notebook(notebook_lines(view))
    for name, again in (("timeline", timeline), ("losses", losses), ("training", training)):
        drawn = page.figures[name]()
        lines = [t for t in again.data if t.mode and "lines" in t.mode and t.name]
        assert lines
        for trace in lines:
            assert list(trace.y) in [list(t.y) for t in drawn.data], trace.name


def test_the_scores_of_a_head_come_out_again(look, planted_results, byrote):
    view, page = look("head", planted_results, run="planted", step=20, head="L1H0", probe="prefix_matching")
    table = page.tables["scores"][1].set_index("measure")
    frame = run_notebook(notebook_lines(view))[-1]
    score = frame[(frame["probe"] == "prefix_matching") & (frame["metric"] == "score")].iloc[0]
    assert table.loc["Prefix matching", "value [95% interval]"].startswith(f"{score['value']:.3g}"[:4])
    assert table.loc["Prefix matching", "n"] == score["n"]
    (row,) = [r for r in rows_of(byrote, shell_lines(view)[0]) if r["head"] == "L1H0"]
    assert row["value"] == score["value"]


def test_the_edges_of_the_circuit_come_out_again(look, measured, byrote):
    view, page = look("circuit", measured, run="unique", step=40)
    table = page.tables["edges"][1]
    printed = rows_of(byrote, shell_lines(view)[0])
    assert round(printed[0]["value"], 2) == table.iloc[0]["z"] == 7.5
    edges = run_notebook(notebook_lines(view))[-1]
    assert edges.iloc[0]["value"] == printed[0]["value"]
    assert (
        edges.iloc[0]["src_layer"],
        edges.iloc[0]["src_head"],
        edges.iloc[0]["layer"],
        edges.iloc[0]["head"],
    ) == (0, 1, 1, 2)


def test_the_comparison_comes_out_again(look, measured, byrote):
    view, page = look("compare", measured, run="unique", base="repeated", step=20, head="L1H2")
    shown = page.figures["scatter"]()
    rows = run_notebook(notebook_lines(view))[-1]
    mine = rows[(rows["probe"] == "prefix_matching") & (rows["metric"] == "score") & rows["layer"].notna()]
    points = {(x, y) for t in shown.data if t.mode == "markers" for x, y in zip(t.x, t.y, strict=True)}
    assert points == set(zip(mine["a"], mine["b"], strict=True))
    assert set(mine["step_b"]) == {20}
    printed = [
        r for r in rows_of(byrote, shell_lines(view)[0]) if r["probe"] == "prefix_matching" and r["head_a"]
    ]
    assert {(r["a"], r["b"]) for r in printed if r["metric"] == "score"} == points


def test_the_plane_comes_out_again(look, measured):
    view, page = look("memory", measured, run="unique", base="repeated", step=40)
    gap = next(
        f
        for f in run_notebook(notebook_lines(view))
        if isinstance(f, pd.DataFrame) and set(f["probe"]) == {"mem_gap"}
    )
    path = next(t for t in page.figures["plane"]().data if t.name == "unique" and t.mode == "lines+markers")
    assert list(path.y) == list(gap["value"]) == [0.0, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("page", PAGES)
def test_numbers_leave_as_csv_and_json(page, drawn):
    view, looked_at = drawn(page)
    shown = looked_at
    with zipfile.ZipFile(io.BytesIO(export.csv_zip(shown))) as archive:
        assert archive.namelist() == [f"{name}.csv" for name in shown.tables]
        for name, (_, frame) in shown.tables.items():
            assert list(pd.read_csv(archive.open(f"{name}.csv")).columns) == [str(c) for c in frame.columns]
    data = json.loads(export.json_text(view, shown))
    assert data["title"] == shown.finding and data["state"]["run"] == "unique"
    assert {n: len(t["rows"]) for n, t in data["tables"].items()} == {
        n: len(f) for n, (_, f) in shown.tables.items()
    }


# Of how many sequences, and against which chance level.
COUNTED = {
    "circuit": "random rotations, 0 for the median pair", "plane": "sequences, chance",
    "differences": "sequences; without a change they are 0", "grid": "chance", "curves": "chance",
}  # fmt: skip


@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if page.exports_figures])
def test_every_figure_leaves_as_svg(page, drawn):
    view, looked_at = drawn(page)
    figures = export.figures_of(view, looked_at)
    expected = {"trajectory": {"grid", "baseline_grid", "curves"}, "circuit": {"circuit"},
                "compare": {"grid", "baseline_grid", "difference_grid", "scatter", "differences"}}  # fmt: skip
    assert expected.get(page, set()) <= set(figures)
    assert set(looked_at.figures) <= set(figures)
    with zipfile.ZipFile(io.BytesIO(export.svg_zip(figures))) as archive:
        assert len(archive.namelist()) == len(figures)
        for name in archive.namelist():
            root = ElementTree.fromstring(archive.read(name))
            assert root.tag.endswith("svg") and int(root.get("width")) > 0
            assert len(root.get("aria-label")) > 30
            assert b"var(" not in archive.read(name)
            title = figures[name.removesuffix(".svg")].layout.title.text
            written = " ".join("".join(e.itertext()) for e in root if e.tag.endswith("text"))
            assert html.unescape(title.replace("<br>", " ")) in written
            assert COUNTED.get(name.removesuffix(".svg"), "") in written
            rules = next(e.text for e in root if e.tag.endswith("style"))
            for part in {
                c for e in root.iter() if e.tag.endswith("line") for c in e.get("class", "").split()
            }:
                assert f".still .{part} {{ stroke" in rules, part  # a line without a colour is not seen


def test_the_still_grid_holds_the_values_of_the_grid(look, measured):
    view, _ = look("trajectory", measured, run="unique", base="repeated", step=20)
    figures = view.page.static_figures(view)
    cube = view.base.cube("prefix_matching", "score")
    heat = next(t for t in figures["baseline_grid"].data if t.type == "heatmap")
    np.testing.assert_array_equal(np.array(heat.z, dtype=float), cube.value[cube.index(20)])


@pytest.mark.parametrize("page", PAGES)
def test_the_page_leaves_as_one_file_without_scripts(page, drawn):
    view, looked_at = drawn(page)
    text = export.page_html(view, looked_at, "http://localhost:8501/x?run=unique")
    assert "<script" not in text and not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert text.count("<svg") >= len(export.figures_of(view, looked_at))
    assert "byrote dashboard" in text


def test_png_is_drawn_by_the_browser_from_the_svg(open_page, measured):
    at = open_page("trajectory", measured, run="unique", step=40)
    assert not [b for b in at.button if b.key == "png"]  # nothing is made before somebody opens the menu
    at.button(key="export").click().run()
    at.selectbox(key="png_figure").set_value("grid").run()
    at.button(key="png").click().run()
    assert not at.exception
    sent = [json.loads(c.proto.json) for c in at.get("bidi_component") if '"svg"' in c.proto.json]
    assert sent and sent[0]["svg"].startswith("<svg") and sent[0]["name"].endswith("_grid.png")


def test_numbers_of_an_exported_page_have_three_digits_and_no_more_than_were_there():
    written = [export._cell(v) for v in (0.71, 0.08738, 11264.0, -0.3106, 1000, None)]
    assert written == ["0.71", "0.0874", "11,264", "−0.311", "1000", "–"]
