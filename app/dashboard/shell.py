"""What all pages share: the menu, the controls, the complaints about a link, the status, share and export."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

from byrote.checkpoints.words import counted
from byrote.dashboard import export, session
from byrote.dashboard.library import Library, look
from byrote.dashboard.page import Page, literal, problem
from byrote.dashboard.query_params import MAX_PINS, link
from byrote.dashboard.saved import SavedRun, head_names
from byrote.dashboard.session import View, go
from byrote.dashboard.views import VIEWS
from byrote.probes.figures.words import clean, probe_name, sentence_case, step_number

LOOK_EVERY_S = 3
_SEEN = "byrote_seen"
NONE = "none"


@lru_cache(maxsize=1)
def settle() -> None:
    """Libraries stay for good: Streamlit's full collection after every run need not walk through them again and again.

    Once only: what is frozen while a page of it is on screen would never be collected.
    """
    gc.collect()
    gc.freeze()


@lru_cache(maxsize=1)
def icon() -> Image.Image:
    """Four heads, one of them strong: drawn here, because Streamlit's own icons come over the network."""
    tones = np.array([[[0, 48, 110], [96, 99, 110]], [[52, 71, 107], [253, 231, 55]]], dtype=np.uint8)
    return Image.fromarray(tones.repeat(16, axis=0).repeat(16, axis=1))


def sidebar(view: View) -> None:
    """Menu, controls and status."""
    with st.sidebar:
        st.markdown("### byrote")
        _menu(view.pages, link(view.state))
        st.space("small")
        _run_control(view)
        _probe_control(view)
        _step_control(view)
        _head_control(view)
        _base_control(view)
        _pin_control(view)
        st.space("small")
        _status(view)
    _watch(session.opened_paths())


def empty(library: Library, pages: Mapping[str, Any], page: str) -> None:
    """No run to show: say what would make one."""
    with st.sidebar:
        st.markdown("### byrote")
        _menu(pages, {})
    st.title("No results yet", anchor=False)
    for broken in library.broken:
        problem(f"{broken.path}: {broken.reason}", broken.help)
    st.markdown(f"Nothing that can be shown was measured in {literal(_where(library))}.")
    _how_to_begin()
    _watch(session.opened_paths())


def example(view: View) -> None:
    """Say that these are not the reader's own runs, and what makes those."""
    if not view.library.is_example:
        return
    with st.container(border=True, key="example"):
        st.markdown(
            f":material/school: Nothing has been measured in {literal(_where(view.library))} yet. "
            "These two runs come with byrote, to look around in: one model trained on unique data, one on repeated data."
        )
        with st.popover("Measure my own", icon=":material/terminal:", key="begin", type="tertiary"):
            _how_to_begin()


def _where(library: Library) -> str:
    return ", ".join(clean(path) for path in library.paths)


def _how_to_begin() -> None:
    st.markdown("Measure a folder of checkpoints:")
    st.code("byrote run path/to/checkpoints -o results", language="sh")
    st.markdown("Or train, measure and compare two small series; it takes minutes:")
    st.code("make demo", language="sh")
    st.caption("This page looks again every few seconds and shows new results as soon as there are any.")


def complaints(view: View) -> None:
    """One line per part of the link that could not be used, until dismissed."""
    if not view.reading.complaints:
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="complaints"):
        lines = "  \n".join(literal(line, limit=400) for line in view.reading.complaints)
        st.markdown(f":material/link_off: {lines}", width="stretch")
        st.button("Mend the link", on_click=go, key="mend")


def foot(view: View, page: Page) -> None:
    """Share, export, reproduce and provenance, at the end of every page."""
    st.space("small")
    with st.container(horizontal=True, key="foot"):
        export.share(view)
        export.menu(view, page)
        export.reproduce(view)
        export.provenance(view)


def _menu(pages: Mapping[str, Any], params: Mapping[str, str]) -> None:
    for name, page in pages.items():
        st.page_link(
            page, label=VIEWS[name].TITLE, icon=VIEWS[name].ICON, query_params=dict(params), width="stretch"
        )


def _set(key: str, value: Any) -> str:
    """Widgets follow the URL: their value is set before each is drawn."""
    st.session_state[key] = value
    return key


def _on(key: str, field: str) -> Any:
    def changed() -> None:
        value = st.session_state[key]
        go(**{field: "" if value == NONE and field == "base" else value})

    return changed


def _run_control(view: View) -> None:
    key = _set("w_run", view.state.run)
    names = list(view.library.runs)
    st.selectbox("Run", names, key=key, on_change=_on(key, "run"), format_func=lambda n: clean(n, limit=60))


def _probe_control(view: View) -> None:
    probes = view.run.head_probes
    if not probes:
        st.caption("This run holds no probe with a value per head.")
        return
    key = _set("w_probe", view.state.probe)

    def changed() -> None:
        go(probe=st.session_state[key], metric=probes[st.session_state[key]][0])

    st.selectbox(
        "Probe", list(probes), key=key, on_change=changed, format_func=lambda n: sentence_case(probe_name(n))
    )
    metrics = probes[view.state.probe]
    if len(metrics) > 1:
        key_m = _set("w_metric", view.state.metric)
        st.selectbox(
            "Metric", list(metrics), key=key_m, on_change=_on(key_m, "metric"), format_func=probe_name
        )


def _step_control(view: View) -> None:
    steps = list(view.run.steps)
    if len(steps) < 2:
        st.caption(f"One checkpoint: step {step_number(steps[0])}" if steps else "No checkpoint yet")
        return
    key = _set("w_step", view.state.step)
    st.select_slider("Step", steps, key=key, on_change=_on(key, "step"), format_func=step_number)


def _head_control(view: View) -> None:
    names = head_names(view.run)
    if not names:
        return
    key = _set("w_head", view.state.head)
    st.selectbox("Head", names, key=key, on_change=_on(key, "head"), help="Type to search, such as L1H0")


def _base_control(view: View) -> None:
    others = [name for name in view.library.runs if name != view.state.run]
    if not others:
        st.caption("One run: nothing to compare it with.")
        return
    key = _set("w_base", view.state.base or NONE)
    st.selectbox(
        "Baseline",
        [NONE, *others],
        key=key,
        on_change=_on(key, "base"),
        format_func=lambda n: clean(n, limit=60),
    )


def _pin_control(view: View) -> None:
    names = head_names(view.run)
    if not names:
        return
    key = _set("w_pin", list(view.state.pin))

    def changed() -> None:
        go(pin=tuple(st.session_state[key]))

    st.multiselect(
        "Pinned heads", names, key=key, on_change=changed, max_selections=MAX_PINS, placeholder="none"
    )


def _status(view: View) -> None:
    run = view.run
    total = (run.meta.get("series") or {}).get("n_checkpoints") or len(run.steps)
    parts = [
        f"{len(run.measured_steps)} of {counted(max(total, len(run.measured_steps)), 'checkpoint')} measured"
    ]
    if run.meta.get("status") in ("running", "interrupted"):
        parts.append(str(run.meta["status"]))
    st.caption(" · ".join(parts))
    _why(f"{counted(len(run.gaps), 'gap')}: why?", _gap_lines(run), key="why_gaps")
    _why(f"{counted(len(run.left_out), 'step')} left out by lint: why?", _lint_lines(run), key="why_lint")
    broken = [f"{b.path.name}: {b.reason}. {b.help}" for b in view.library.broken]
    _why(f"{counted(len(broken), 'folder')} cannot be read: why?", broken, key="why_broken")


def _why(label: str, lines: list[str], *, key: str) -> None:
    if lines:
        with st.popover(label, icon=":material/info:", key=key, type="tertiary"):
            st.markdown("\n".join(f"- {literal(line, limit=500)}" for line in lines[:50]))


def _gap_lines(run: SavedRun) -> list[str]:
    return [
        f"{'step ' + step_number(g['step']) if g.get('step') is not None else g.get('path')}: {g.get('reason')}"
        + (f" ({g['help']})" if g.get("help") else "")
        for g in run.gaps
    ]


def _lint_lines(run: SavedRun) -> list[str]:
    return [f"step {step_number(step)}: {why}" for step, why in sorted(run.left_out.items())]


@st.fragment(run_every=LOOK_EVERY_S)
def _watch(paths: Any) -> None:
    """Look for new checkpoints; when the folders changed since the page was drawn, draw it again."""
    now = hash(look(paths))
    seen = st.session_state.get(_SEEN)
    st.session_state[_SEEN] = now
    if seen is not None and seen != now:
        st.rerun()
