"""Between the URL and the page: what is looked at now, and how a click changes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from byrote.dashboard import example
from byrote.dashboard.library import PATHS_VARIABLE, Library, open_library
from byrote.dashboard.page import Page, View
from byrote.dashboard.query_params import MAX_PINS, State, link, read

_STATE = "byrote_state"


def opened_paths() -> tuple[Path, ...]:
    """The folders the dashboard was opened on."""
    given = os.environ.get(PATHS_VARIABLE, "results")
    return tuple(Path(path) for path in given.split(os.pathsep) if path)


def opened_library() -> Library:
    """What the folders hold; where that is nothing at all, the example."""
    found = open_library(opened_paths())
    return found if found.runs or found.broken else example.in_place_of(found)


def look_around(pages: Mapping[str, Any], page: Page) -> View | Library:
    """Read the folders and the URL; the bare library where there is no run to show."""
    library = opened_library()
    if not library.runs:
        return library
    reading = read(_flat(st.query_params.to_dict()), library)
    st.session_state[_STATE] = reading.state
    theme = st.context.theme.type or "light"
    return View(library, reading, pages, page, theme)


def go(**changes: Any) -> None:
    """Change the state: a new entry in the browser's history. For callbacks.

    What no longer fits, such as a step the new run lacks, moves to the nearest that does.
    """
    state: State | None = st.session_state.get(_STATE)
    if state is None:
        return
    library = opened_library()
    if not library.runs:
        return
    fitting = read(link(state, **changes), library).state
    st.session_state[_STATE] = fitting
    st.query_params.from_dict(link(fitting))


def bound(
    name: str, value: Any, *, to: Callable[[Any], Any] = lambda value: value, **more: Any
) -> dict[str, Any]:
    """`key` and `on_change` of a widget that shows a part of the state and changes it.

    Args:
        name: of the part; the widget's key is `w_` and the name.
        value: what the widget shows.
        to: from the widget's value to the state's.
        more: parts of the state that change with it.
    """
    key = f"w_{name}"
    st.session_state[key] = value  # widgets follow the link: their value is set before each is drawn

    def changed() -> None:
        if (now := st.session_state[key]) is not None:
            go(**{name: to(now)}, **more)

    return {"key": key, "on_change": changed}


def page_link(
    view: View, name: str, label: str, *, state: State | None = None, icon: str | None = None
) -> None:
    """A link to another page that looks at the same thing; nothing where a page is drawn by itself.

    Args:
        view: where we are.
        name: of the other page.
        label: what the link says.
        state: what the other page looks at, where that is something else.
        icon: a Material symbol.
    """
    if name in view.pages:
        st.page_link(view.pages[name], label=label, icon=icon, query_params=link(state or view.state))


def chosen(key: str, name: str) -> Any:
    """What a component reported under a name, None where nothing."""
    reported = st.session_state.get(key)
    return None if reported is None else reported.get(name)


def follow(key: str, name: str, kind: Callable[[Any], Any] = str, *, part: str = "") -> Callable[[], None]:
    """A callback: what a component reports under a name becomes a part of the state, that of the same name or another."""

    def changed() -> None:
        if (value := chosen(key, name)) is not None:
            go(**{part or name: kind(value)})

    return changed


def pin_button(state: State) -> None:
    """Keeps the chosen head in sight on every page, or lets it go."""
    pinned = state.head in state.pin
    pins = tuple(p for p in state.pin if p != state.head) if pinned else (*state.pin, state.head)
    st.button(
        "Unpin" if pinned else "Pin", icon=":material/keep:", key="pin_head", type="tertiary",
        disabled=not pinned and len(state.pin) >= MAX_PINS, on_click=go, kwargs={"pin": pins},
    )  # fmt: skip


def _flat(params: Mapping[str, Any]) -> dict[str, str]:
    """The last value of each name, as a browser would."""
    return {name: value[-1] if isinstance(value, list) else str(value) for name, value in params.items()}
