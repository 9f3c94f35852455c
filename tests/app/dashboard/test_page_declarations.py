"""A page is declared once: menu, link, exports, reproduction and documentation follow from its declaration."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from recipes import file_of_recipe
from streamlit.testing.v1 import AppTest
from streamlit_client import heading

from byrote.dashboard import export
from byrote.dashboard.export import notebook_lines, shell_lines
from byrote.dashboard.launch import SCRIPT
from byrote.dashboard.library import PATHS_VARIABLE, open_library
from byrote.dashboard.page import Drawing, View
from byrote.dashboard.query_params import State, read
from byrote.dashboard.views import PAGES
from byrote.probes.registry import REGISTRY

DOCS = Path(__file__).parents[3] / "docs" / "dashboard.md"
ON_EVERY_PAGE = {"run", "probe", "metric", "step", "head", "base", "pin"}
RECIPE = file_of_recipe("app/dashboard/views/gaps.py")  # of CONTRIBUTING.md


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe's page, among the others."""
    module = ModuleType("gaps")
    exec(RECIPE, module.__dict__)
    monkeypatch.setitem(PAGES, "gaps", module.PAGE)
    return module


def test_a_page_is_one_declaration(added, open_page, two_runs, byrote):
    at = open_page("gaps", two_runs, run="unique")
    assert not at.exception
    assert heading(at) == "unique has 0 gaps"
    library = open_library([two_runs])
    view = View(library, read({"run": "unique"}, library), {}, added.PAGE, "light")
    (show, opens) = shell_lines(view)
    assert byrote(*shlex.split(show)[1:]).exit_code == 0
    assert opens.startswith("byrote dashboard ")
    scope: dict = {}
    *lines, last = notebook_lines(view)
    exec("\n".join(lines), scope)
    assert eval(last, scope) == []
    drawing = Drawing("gaps", "light")
    assert "<h1" in export.page_html(view, drawing, "http://localhost:1/")
    assert export.address(view).startswith("http://localhost/gaps?run=unique&")


def test_a_page_is_in_the_menu_with_what_it_answers(added, two_runs, monkeypatch):
    monkeypatch.setenv(PATHS_VARIABLE, str(two_runs))
    at = AppTest.from_file(SCRIPT, default_timeout=60).run()
    assert not at.exception
    menu = {link.proto.label: link.proto.help for link in at.sidebar.get("page_link")}
    assert menu == {page.title: page.question for page in PAGES.values()}
    assert "Gaps" in menu


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_declares_exists(name):
    page = PAGES[name]
    assert page.name == name and name.isidentifier()
    assert set(page.needs) <= set(REGISTRY)
    assert all(f"-p {probe}" in page.command for probe in page.needs)
    assert set(page.state) <= {f.name for f in fields(State)} - ON_EVERY_PAGE


def test_every_part_of_a_link_belongs_to_a_page_and_is_documented():
    used = {part for page in PAGES.values() for part in page.state}
    parts = {f.name for f in fields(State)}
    assert parts - ON_EVERY_PAGE == used
    words = DOCS.read_text(encoding="utf-8")
    assert [part for part in parts if f"`{part}`" not in words] == []


def test_the_documentation_lists_the_pages_as_they_are_declared():
    rows = [
        f"| {page.title} | {page.question} | {', '.join(f'`{probe}`' for probe in page.needs) or '-'} |"
        for page in PAGES.values()
    ]
    assert "\n".join(rows) in DOCS.read_text(encoding="utf-8")
