"""A page: its declaration, what it is drawn on, the parts that all pages use, and how a click changes the query parameters."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.library import PATHS_VARIABLE, Library, of_variable, open_library, or_example
from byrote.dashboard.query_params import MAX_PINS, Reading, State, link, read
from byrote.probes.cards import Card, card
from byrote.probes.figures import Figure, Look
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.wording import clean, file_stem, literal, probe_name, sentence_case


@dataclass(frozen=True)
class Page:
    """A page, declared once, in the file that draws it. Menu, links, exports, reproduction, docs and tests follow.

    Attributes:
        name: last part of its address, one word.
        title: as in the menu.
        icon: a Material symbol.
        question: what it answers; shown beside the menu and in the documentation.
        draw: puts it on the screen.
        commands: commands that print its numbers.
        notebook: Python lines that make its figures and numbers.
        needs: probes without which it has little to show; what it says then names them.
        measure: further words of the command that measures those.
        state: parts of the link that it uses beside run, probe, metric, step, head, base and pin.
        figures: names of the figures it draws where everything was measured.
        component: whether the browser draws a part of it.
        static_figures: figures exported in place of what the browser draws.
        exports_figures: False for a page without any.
        first: whether the bare address shows it; of one page.
        without_results: what it shows where there is no run yet; None for nothing.
    """

    name: str
    title: str
    icon: str
    question: str
    draw: Callable[[View, Drawing], None]
    commands: Callable[[View], list[str]]
    notebook: Callable[[View], list[str]]
    needs: tuple[str, ...] = ()
    measure: str = ""
    state: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    component: bool = False
    static_figures: Callable[[View], dict[str, Figure]] = field(default=lambda view: {})
    exports_figures: bool = True
    first: bool = False
    without_results: Callable[[Library], None] | None = None

    @property
    def command(self) -> str:
        """The command that measures what the page needs."""
        return measuring(*self.needs, more=self.measure)


@dataclass(frozen=True)
class View:
    """One page load.

    Attributes:
        library: everything found.
        reading: the link as understood.
        pages: name -> Streamlit page, for links.
        page: the page shown.
        theme: "light" or "dark".
    """

    library: Library
    reading: Reading
    pages: Mapping[str, Any]
    page: Page
    theme: str

    @property
    def state(self) -> State:
        """What is looked at."""
        return self.reading.state

    @property
    def run(self) -> Results:
        """The run."""
        return self.library.runs[self.state.run]

    @property
    def base(self) -> Results | None:
        """The baseline."""
        return self.library.runs.get(self.state.base)

    def beside(self, most: int) -> list[Results]:
        """The baseline and the run first, then the others as many as there is room for; of too many, those of the same seed.

        Args:
            most: runs.
        """
        first = [run for run in (self.base, self.run) if run is not None]
        others = [run for run in self.library.runs.values() if run not in first]
        if len(first) + len(others) > most and self.run.training_seed is not None:
            others = [run for run in others if run.training_seed == self.run.training_seed]
        return [*first, *others][:most]


class Drawing:
    """A page being drawn, and what is on it in order, for the export menu.

    Args:
        stem: what file names of its exports begin with.
        theme: "light" or "dark".
        chips: run -> whether it is the baseline: names that are chips in the title.

    Attributes:
        finding: the title.
        figures: name -> what draws the figure in full, in light colours.
        tables: name -> (caption, data).
    """

    def __init__(self, stem: str, theme: str, chips: Mapping[str, bool] | None = None) -> None:
        self.stem, self.theme, self.finding, self.chips = stem, theme, "", chips or {}
        self.figures: dict[str, Callable[[], Figure]] = {}
        self.tables: dict[str, tuple[str, pd.DataFrame]] = {}

    def title(self, finding: str) -> None:
        """The page's title: a sentence made of data."""
        self.finding = finding
        st.title(with_chips(finding, self.chips), anchor=False)

    def figure(self, draw: Callable[..., Figure], name: str, *, width: str = "page", **options: Any) -> Any:
        """A figure in the page's theme; its alternative text is its finding.

        Args:
            draw: makes the figure for a `look`, and in full without one.
            name: of the figure; unique on the page.
            width: "page" or "half".
            options: of `st.plotly_chart`.
        """
        self.figures[name] = draw
        fig = draw(look=Look(self.theme, width))
        return st.plotly_chart(
            fig,
            theme=None,
            key=f"figure_{name}",
            alt=fig.alt,
            config={
                "displaylogo": False,
                "toImageButtonOptions": {"format": "png", "scale": 2, "filename": file_stem(self.stem, name)},
                "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
            },
            **options,
        )

    def table(
        self,
        data: pd.DataFrame,
        name: str,
        *,
        caption: str,
        shown: pd.DataFrame | None = None,
        **options: Any,
    ) -> Any:
        """A table with its caption; recorded for export as it is, also where something else is shown of it."""
        self.tables[name] = (caption, data)
        if caption:
            st.caption(literal(caption, limit=400))
        options = {"hide_index": True, "placeholder": "–", **options}
        return st.dataframe(
            plain_cells(data if shown is None else shown),
            key=f"table_{name}",
            alt=clean(caption, limit=400),
            **options,
        )

    def choices(self, data: pd.DataFrame, name: str, choose: Callable[[int], None], **options: Any) -> Any:
        """A table in which one row can be chosen; `choose` gets its number, from 0."""

        def picked() -> None:
            rows = st.session_state[f"table_{name}"]["selection"]["rows"]
            if rows and rows[0] < len(data):
                choose(rows[0])

        return self.table(data, name, on_select=picked, selection_mode="single-row", **options)


def measuring(*probes: str, more: str = "") -> str:
    """The command that measures probes, as an empty place shows it."""
    words = ["byrote", "run", "PATH", *(word for probe in probes for word in ("-p", probe)), "-o", "results"]
    return " ".join([*words, more]).rstrip()


def plain_cells(data: pd.DataFrame) -> pd.DataFrame:
    """Text of a table without control and direction characters."""
    texts = [c for c in data.columns if data[c].dtype == object or isinstance(data[c].dtype, pd.StringDtype)]
    return data.assign(
        **{c: [clean(v, limit=300) if isinstance(v, str) else v for v in data[c]] for c in texts}
    )


@contextmanager
def panel(what: str) -> Iterator[None]:
    """Part of a page that may fail by itself: the rest stays."""
    try:
        yield
    except ByroteError as error:
        problem(f"{sentence_case(what)} cannot be shown: {error.message}", error.help)
    except (OSError, pa.ArrowException) as error:
        problem(f"{sentence_case(what)} cannot be shown: {error}", "check the results folder: byrote verify")


def problem(message: str, help: str = "") -> None:
    """An error with its cause and what to do."""
    text = literal(message, limit=600)
    st.error(f"{text}\n\n{literal(help, limit=600)}" if help else text, icon=":material/error:")


def nothing(message: str, help: str = "") -> None:
    """An empty place that says what would fill it."""
    with st.container(border=True):
        st.markdown(literal(message, limit=400))
        if help:
            st.caption(literal(help, limit=400))


_OPEN = "byrote_open"


@st.fragment
def detail(
    label: str, draw: Callable[[], Any], *, icon: str, key: str, quiet: bool = True, wide: bool = True
) -> None:
    """A button that opens something over the page: made when it is opened, and never outside the window.

    A popover hangs below its button, which leaves the window while the page above it still grows.

    Args:
        label: what the button says, and the title above what it opens.
        draw: puts that on the screen.
        icon: a Material symbol.
        key: of the button; unique on the page.
        quiet: whether the button looks like a link.
        wide: whether there is text or code to read.
    """
    this = (st.context.url, key)  # what is open on one page is not open on the next one
    if st.button(label, icon=icon, key=key, type="tertiary" if quiet else "secondary"):
        st.session_state[_OPEN] = this
    if st.session_state.get(_OPEN) == this:  # stays open when new results draw the page again
        st.dialog(label, width="medium" if wide else "small", on_dismiss=_closed)(draw)()


def _closed() -> None:
    st.session_state.pop(_OPEN, None)


MAX_REASONS = 60


def reasons(label: str, lines: Sequence[str], *, key: str) -> None:
    """Why something is missing, one click away; nothing where nothing is."""
    if lines:
        rows = [f"- {literal(line, limit=500)}" for line in lines[:MAX_REASONS]]
        more = [f"- and {n:,} more"] if (n := len(lines) - MAX_REASONS) > 0 else []
        detail(label, lambda: st.markdown("\n".join(rows + more)), icon=":material/info:", key=key)


FEW_CARDS = 2


def how_computed(probes: Sequence[str], *, label: str = "How is this computed?", key: str) -> None:
    """The catalogue cards of these probes, one click away."""
    known = [name for name in dict.fromkeys(probes) if name in REGISTRY]
    if not known:
        return
    detail(label, lambda: _cards(known), icon=":material/help:", key=key)


@lru_cache(maxsize=128)
def _card(name: str) -> Card:
    return card(REGISTRY[name])


def _cards(names: Sequence[str]) -> None:
    """Cards of a few probes; of many their names, each of which opens."""
    for name in names:
        title = sentence_case(probe_name(name))
        if len(names) > FEW_CARDS:
            with st.expander(title):
                _one_card(name)
        else:
            st.markdown(f"**{literal(title)}**")
            _one_card(name)


def _one_card(name: str) -> None:
    """One probe's card: what, how, in which unit, against what chance, from which source."""
    shown = _card(name)
    st.markdown(literal(shown.summary, limit=1000))
    facts = {k: v for k, v in shown.facts.items() if k not in ("kind", "version", "measured")}
    st.markdown("\n".join(f"- **{literal(k)}**: {literal(v, limit=1500)}" for k, v in facts.items()))
    st.markdown(
        "\n".join(
            f"- `{metric}`: {literal(f'{text} ({unit})', limit=1000)}"
            for metric, text, unit, _ in shown.metrics
        )
    )
    if shown.steps:
        st.markdown("How it is computed")
        st.text("\n".join(shown.steps))


_STATE = "byrote_state"


def opened_paths() -> tuple[Path, ...]:
    """The folders the dashboard was opened on."""
    return of_variable(os.environ.get(PATHS_VARIABLE, "results"))


def opened_library() -> Library:
    """What the folders hold; where that is nothing at all, the example."""
    found = open_library(opened_paths())
    return found if found.runs or found.broken else or_example(found)


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


def run_chip(run: str, more: str = "", *, base: bool = False) -> None:
    """A run's name as a chip, the baseline's in grey, and what else there is to say of it beside it.

    Args:
        run: its name.
        more: a few words, such as which step of it.
        base: whether it is the baseline.
    """
    st.markdown(chip(run, base=base) + (f" {literal(more)}" if more else ""))


def chip(run: str, *, base: bool = False) -> str:
    """Markdown of a run's name as a chip."""
    return f":{'gray' if base else 'blue'}-badge[{literal(clean(run, limit=60))}]"


def with_chips(text: str, runs: Mapping[str, bool]) -> str:
    """Markdown of a sentence, nothing of it markup, in which the names of runs are chips.

    Args:
        text: a sentence.
        runs: name -> whether it is the baseline.
    """
    names = sorted((name for name in runs if name in text), key=len, reverse=True)
    if not names:
        return literal(text, limit=300)
    named = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])")
    parts = named.split(clean(text, limit=300))
    return "".join(chip(part, base=runs[part]) if i % 2 else literal(part) for i, part in enumerate(parts))


def pin_button(state: State) -> None:
    """Pins the chosen head on every page, or unpins it."""
    pinned = state.head in state.pin
    pins = tuple(p for p in state.pin if p != state.head) if pinned else (*state.pin, state.head)
    st.button(
        "Unpin" if pinned else "Pin", icon=":material/keep:", key="pin_head", type="tertiary",
        disabled=not pinned and len(state.pin) >= MAX_PINS, on_click=go, kwargs={"pin": pins},
    )  # fmt: skip


def _flat(params: Mapping[str, Any]) -> dict[str, str]:
    """The last value of each name, as a browser would."""
    return {name: value[-1] if isinstance(value, list) else str(value) for name, value in params.items()}
