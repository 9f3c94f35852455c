"""The script Streamlit runs: finds the page, reads the URL, draws the shell, hands over to the page."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from byrote.dashboard import session, shell
from byrote.dashboard.library import Library
from byrote.dashboard.page import Page, file_stem
from byrote.dashboard.views import VIEWS


def main(only: str | None = None) -> None:
    """Draw one page.

    Args:
        only: its name; None takes it from the address, as the server does.
    """
    st.set_page_config(page_title="byrote", page_icon=shell.icon(), layout="wide")
    st.html(Path(__file__).with_name("style.css"))
    pages = {} if only else _pages()
    name = only or _chosen(pages)
    view = session.look_around(pages, name)
    if isinstance(view, Library):
        shell.empty(view, pages, name)
        if name != "runs":
            return
        VIEWS["runs"].without_results(view)
        return
    state = view.state
    page = Page(file_stem(state.run, state.probe, state.step), view.theme)
    shell.sidebar(view)
    shell.complaints(view)
    shell.example(view)
    VIEWS[name].draw(view, page)
    shell.foot(view, page)
    shell.settle()


def _pages() -> dict[str, st.Page]:
    return {
        name: st.Page(_nothing, title=view.TITLE, icon=view.ICON, url_path=name, default=name == "overview")
        for name, view in VIEWS.items()
    }


def _chosen(pages: dict[str, st.Page]) -> str:
    asked = st.navigation(list(pages.values()), position="hidden")
    return next((name for name, page in pages.items() if page.title == asked.title), "overview")


def _nothing() -> None:
    """Pages are drawn by `main`, which knows the view."""


if __name__ == "__main__":
    main()
