"""One run of a page: reads the link, draws what all pages share, hands over to the page."""

from __future__ import annotations

import gc
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from byrote.dashboard import session, shell
from byrote.dashboard.library import DIRECTORY_VARIABLE, Library
from byrote.dashboard.page import Drawing
from byrote.dashboard.views import PAGES
from byrote.probes.wording import file_stem


def main(only: str | None = None) -> None:
    """Draw one page.

    Args:
        only: its name; None takes it from the address, as the server does.
    """
    _begin()
    st.set_page_config(page_title="byrote", page_icon=_icon(), layout="wide")
    st.html(Path(__file__).with_name("style.css"))
    pages = {} if only else _streamlit_pages()
    page = PAGES[only or _chosen(pages)]
    view = session.look_around(pages, page)
    if isinstance(view, Library):
        shell.empty(view, pages)
        if page.without_results is not None:
            page.without_results(view)
        return
    state = view.state
    drawing = Drawing(file_stem(state.run, state.probe, state.step), view.theme)
    shell.sidebar(view)
    shell.complaints(view)
    shell.example(view)
    page.draw(view, drawing)
    shell.foot(view, drawing)
    _settle()


def _streamlit_pages() -> dict[str, st.Page]:
    first = next(iter(PAGES))
    return {
        name: st.Page(lambda: None, title=page.title, icon=page.icon, url_path=name, default=name == first)
        for name, page in PAGES.items()
    }


def _chosen(pages: dict[str, st.Page]) -> str:
    current = st.navigation(list(pages.values()), position="hidden")
    return next((name for name, page in pages.items() if page.title == current.title), next(iter(pages)))


@lru_cache(maxsize=1)
def _begin() -> None:
    """Once per server: it was started elsewhere, but relative paths are meant from where the user is."""
    if directory := os.environ.get(DIRECTORY_VARIABLE):
        os.chdir(directory)


@lru_cache(maxsize=1)
def _settle() -> None:
    """Libraries stay for good: Streamlit's full collection after every run need not walk through them again and again.

    Once per server only: what is frozen while a page of it is on screen would never be collected.
    """
    gc.collect()
    gc.freeze()


@lru_cache(maxsize=1)
def _icon() -> Image.Image:
    """Four heads, one of them strong: drawn here, because Streamlit's own icons come over the network."""
    tones = np.array([[[0, 48, 110], [96, 99, 110]], [[52, 71, 107], [253, 231, 55]]], dtype=np.uint8)
    return Image.fromarray(tones.repeat(16, axis=0).repeat(16, axis=1))
