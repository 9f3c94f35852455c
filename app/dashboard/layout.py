"""One run of a page: reads the query parameters, draws menu, controls, status, share and export, then calls the page."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from byrote.dashboard import export
from byrote.dashboard.library import DIRECTORY_VARIABLE, Library, look
from byrote.dashboard.page import (
    Drawing,
    View,
    bound,
    chip,
    detail,
    go,
    look_around,
    opened_paths,
    panel,
    problem,
    reasons,
)
from byrote.dashboard.query_params import MAX_PINS, head_names, link
from byrote.dashboard.views import PAGES
from byrote.probes.findings import imported
from byrote.probes.results import Results
from byrote.probes.wording import clean, counted, file_stem, literal, probe_name, sentence_case, step_number


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
    with st.container(key="load_early"):
        if page.figures and (script := _load_early()):
            st.html(script, unsafe_allow_javascript=True)
    view = look_around(pages, page)
    if isinstance(view, Library):
        empty(view, pages)
        if page.without_results is not None:
            page.without_results(view)
        return
    state = view.state
    chips = {name: name == state.base for name in view.library.runs}
    drawing = Drawing(file_stem(state.run, state.probe, state.step), view.theme, chips)
    sidebar(view)
    complaints(view)
    example(view)
    which(view)
    with panel("the page"):
        page.draw(view, drawing)
    foot(view, drawing)
    _settle()
    if (trim := _trim()) is not None:
        trim(0)


def _streamlit_pages() -> dict[str, st.Page]:
    return {
        name: st.Page(lambda: None, title=page.title, icon=page.icon, url_path=name, default=page.first)
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
def _load_early() -> str:
    """A script that loads what draws figures while the server still reads results; "" where Streamlit's file has another name.

    Streamlit loads it when the first figure arrives, which is 0.4 of the 3.0 s that a first view of a large run takes.
    """
    files = sorted((Path(st.__file__).parent / "static" / "static" / "js").glob("PlotlyChart.*.js"))
    if len(files) != 1 or not re.fullmatch(r"[\w.-]+", files[0].name):
        return ""
    place = json.dumps(f"./static/js/{files[0].name}")
    return f"<script>import(new URL({place}, document.baseURI).href).catch(() => {{}});</script>"


@lru_cache(maxsize=1)
def _settle() -> None:
    """Libraries stay for good: Streamlit's full collection after every run need not walk through them again and again.

    Once per server only: what is frozen while a page of it is on screen would never be collected.
    """
    gc.collect()
    gc.freeze()


@lru_cache(maxsize=1)
def _trim() -> Any:
    """glibc's function that gives memory back which a run of a page let go; None where the C library has none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


@lru_cache(maxsize=1)
def _icon() -> Image.Image:
    """Four heads, one of them strong: drawn here, because Streamlit's own icons come over the network."""
    tones = np.array([[[0, 48, 110], [96, 99, 110]], [[52, 71, 107], [253, 231, 55]]], dtype=np.uint8)
    return Image.fromarray(tones.repeat(16, axis=0).repeat(16, axis=1))


LOOK_EVERY_S = 3
_SEEN = "byrote_seen"
NONE = "none"


def sidebar(view: View) -> None:
    """Menu, controls and status."""
    with st.sidebar:
        st.markdown("### byrote")
        _menu(view.pages, link(view.state))
        with st.container(key="controls"):
            _run_control(view)
            _probe_control(view)
            _step_control(view)
            _head_control(view)
            _base_control(view)
            _pin_control(view)
            _status(view)
    _watch(opened_paths())


def empty(library: Library, pages: Mapping[str, Any]) -> None:
    """No run to show: say what would make one."""
    with st.sidebar:
        st.markdown("### byrote")
        _menu(pages, {})
    st.title("No results yet", anchor=False)
    for broken in library.broken:
        problem(f"{broken.path}: {broken.reason}", broken.help)
    st.markdown(f"No results that can be shown were found in {literal(_where(library))}.")
    _how_to_begin()
    _watch(opened_paths())


def example(view: View) -> None:
    """Say that these are not the reader's own runs, and what makes those."""
    if not view.library.is_example:
        return
    with st.container(border=True, key="example"):
        st.markdown(
            f":material/school: Nothing has been measured in {literal(_where(view.library))} yet. "
            "These runs come with byrote as an example: one seed of each arm of the demo. Half of the data is the same in "
            "all four; the other half is fresh, left out, repeated, or written by a model."
        )
        detail("Measure my own", _how_to_begin, icon=":material/terminal:", key="begin")


def which(view: View) -> None:
    """Whose page it is: the run and its baseline as chips, so that no title has to name them."""
    base = [f"against {chip(view.state.base, base=True)}"] if view.base is not None else []
    with st.container(key="which"):
        st.markdown(" ".join([chip(view.state.run), *base]))


def _where(library: Library) -> str:
    return ", ".join(clean(path) for path in library.paths)


def _how_to_begin() -> None:
    st.markdown("Measure a folder of checkpoints:")
    st.code("byrote run path/to/checkpoints -o results", language="sh")
    st.markdown("Or train 20 small models on four kinds of data, measure and compare them; it takes minutes:")
    st.code("make demo", language="sh")
    st.caption("This page checks every few seconds and shows new results as soon as there are any.")


def complaints(view: View) -> None:
    """One line per part of the link that could not be used, until dismissed."""
    if not view.reading.complaints:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="complaints"):
        lines = "  \n".join(literal(line, limit=400) for line in view.reading.complaints)
        st.markdown(f":material/link_off: {lines}", width="stretch")
        st.button("Fix the link", on_click=go, key="fix_link")


def foot(view: View, drawing: Drawing) -> None:
    """Share, export, reproduce and provenance, at the end of every page."""
    st.space("small")
    with st.container(horizontal=True, key="foot"):
        export.menu(view, drawing)


def _menu(pages: Mapping[str, Any], params: Mapping[str, str]) -> None:
    with st.container(key="menu"):
        for name, target in pages.items():
            page = PAGES[name]
            st.page_link(
                target,
                label=page.title,
                icon=page.icon,
                help=page.question,
                query_params=dict(params),
                width="stretch",
            )


def _run_control(view: View) -> None:
    st.selectbox("Run", list(view.library.runs), format_func=_short, **bound("run", view.state.run))


def _short(name: str) -> str:
    return clean(name, limit=60)


def _probe_control(view: View) -> None:
    probes, state = view.run.head_probes, view.state
    if not probes:
        st.caption("No probe with a value per head was measured in this run.")
        return
    probe = bound("probe", state.probe, metric="")  # the probe's main one
    st.selectbox("Probe", list(probes), format_func=lambda n: sentence_case(probe_name(n)), **probe)
    metrics = probes[state.probe]
    if len(metrics) > 1:
        st.selectbox("Metric", list(metrics), format_func=probe_name, **bound("metric", state.metric))


def _step_control(view: View) -> None:
    steps = list(view.run.all_steps)
    if len(steps) < 2:
        st.caption(f"One checkpoint: step {step_number(steps[0])}" if steps else "No checkpoint yet")
        return
    st.select_slider("Step", steps, format_func=step_number, **bound("step", view.state.step))


def _head_control(view: View) -> None:
    if names := head_names(view.run):
        st.selectbox("Head", names, help="Type to search, such as L1H0", **bound("head", view.state.head))


def _base_control(view: View) -> None:
    others = [name for name in view.library.runs if name != view.state.run]
    if not others:
        st.caption("Only one run: nothing to compare it with.")
        return
    base = bound("base", view.state.base or NONE, to=lambda name: "" if name == NONE else name)
    st.selectbox("Baseline", [NONE, *others], format_func=_short, **base)


def _pin_control(view: View) -> None:
    if names := head_names(view.run):
        pins = bound("pin", list(view.state.pin), to=tuple)
        st.multiselect("Pinned heads", names, max_selections=MAX_PINS, placeholder="none", **pins)


def _status(view: View) -> None:
    run = view.run
    total = (run.meta.get("series") or {}).get("n_checkpoints") or len(run.all_steps)
    parts = [f"{len(run.steps)} of {counted(max(total, len(run.steps)), 'checkpoint')} measured"]
    if run.imported:
        parts = [counted(len(run.steps), "step"), literal(imported(run))]
    if run.meta.get("status") in ("running", "interrupted"):
        parts.append(str(run.meta["status"]))
    st.caption(" · ".join(parts))
    reasons(f"{counted(len(run.gaps), 'gap')}: why?", _gap_lines(run), key="why_gaps")
    reasons(f"{counted(len(run.left_out), 'step')} left out by lint: why?", _lint_lines(run), key="why_lint")
    broken = [f"{b.path.name}: {b.reason}. {b.help}" for b in view.library.broken]
    reasons(f"{counted(len(broken), 'folder')} cannot be read: why?", broken, key="why_broken")


def _gap_lines(run: Results) -> list[str]:
    return [
        f"{'step ' + step_number(g['step']) if g.get('step') is not None else g.get('path')}: {g.get('reason')}"
        + (f" ({g['help']})" if g.get("help") else "")
        for g in run.gaps
    ]


def _lint_lines(run: Results) -> list[str]:
    return [f"step {step_number(step)}: {why}" for step, why in sorted(run.left_out.items())]


@st.fragment(run_every=LOOK_EVERY_S)
def _watch(paths: Any) -> None:
    """Look for new checkpoints; when the folders changed since the page was drawn, draw it again."""
    now = hash(look(paths))
    seen = st.session_state.get(_SEEN)
    st.session_state[_SEEN] = now
    if seen is not None and seen != now:
        st.rerun()
