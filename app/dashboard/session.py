"""Between the URL and the page: what is looked at now, and how a click changes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from byrote.dashboard import example
from byrote.dashboard.library import PATHS_VARIABLE, Library, open_library
from byrote.dashboard.query_params import MAX_PINS, Reading, State, link, read
from byrote.dashboard.saved import SavedRun

_STATE = "byrote_state"


@dataclass(frozen=True)
class View:
    """One page load.

    Attributes:
        library: everything found.
        reading: the URL as understood.
        pages: name -> Streamlit page, for links.
        page: name of the page shown.
        theme: "light" or "dark".
    """

    library: Library
    reading: Reading
    pages: Mapping[str, Any]
    page: str
    theme: str

    @property
    def state(self) -> State:
        """What is looked at."""
        return self.reading.state

    @property
    def run(self) -> SavedRun:
        """The run."""
        return self.library.runs[self.state.run]

    @property
    def base(self) -> SavedRun | None:
        """The baseline."""
        return self.library.runs.get(self.state.base)


def opened_paths() -> tuple[Path, ...]:
    """The folders the dashboard was opened on."""
    given = os.environ.get(PATHS_VARIABLE, "results")
    return tuple(Path(path) for path in given.split(os.pathsep) if path)


def opened_library() -> Library:
    """What the folders hold; where that is nothing at all, the example."""
    found = open_library(opened_paths())
    return found if found.runs or found.broken else example.in_place_of(found)


def look_around(pages: Mapping[str, Any], page: str) -> View | Library:
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


def chosen(key: str, name: str) -> Any:
    """What a component reported under a name, None where nothing."""
    reported = st.session_state.get(key)
    return None if reported is None else reported.get(name)


def follow(key: str, name: str, kind: Callable[[Any], Any] = str) -> Callable[[], None]:
    """A callback: what a component reports under a name becomes that part of the state."""

    def heed() -> None:
        if (value := chosen(key, name)) is not None:
            go(**{name: kind(value)})

    return heed


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
