"""A page: how one is declared, what it is drawn on, and the parts that all of them use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pandas as pd
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.library import Library
from byrote.dashboard.query_params import Reading, State
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
        stills: figures exported in place of what the browser draws.
        exports_figures: False for a page without any.
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
    stills: Callable[[View], dict[str, Figure]] = field(default=lambda view: {})
    exports_figures: bool = True
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


class Drawing:
    """A page being drawn, and what is on it in order, for the export menu.

    Args:
        stem: what file names of its exports begin with.
        theme: "light" or "dark".

    Attributes:
        finding: the title.
        figures: name -> what draws the figure in full, in light colours.
        tables: name -> (caption, data).
    """

    def __init__(self, stem: str, theme: str) -> None:
        self.stem, self.theme, self.finding = stem, theme, ""
        self.figures: dict[str, Callable[[], Figure]] = {}
        self.tables: dict[str, tuple[str, pd.DataFrame]] = {}

    def title(self, finding: str) -> None:
        """The page's title: a sentence made of data."""
        self.finding = finding
        st.title(literal(finding, limit=300), anchor=False)

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

    def table(self, data: pd.DataFrame, name: str, *, caption: str, **options: Any) -> Any:
        """A table with its caption; kept for export as it is."""
        self.tables[name] = (caption, data)
        if caption:
            st.caption(literal(caption, limit=400))
        options = {"hide_index": True, "placeholder": "–", **options}
        return st.dataframe(plain_cells(data), key=f"table_{name}", alt=clean(caption, limit=400), **options)

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
    except OSError as error:
        problem(f"{sentence_case(what)} cannot be shown: {error}", "check the results folder")


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


def how_computed(probes: Sequence[str], *, label: str = "How is this computed?", key: str) -> None:
    """The catalogue cards of these probes, one click away."""
    known = [name for name in dict.fromkeys(probes) if name in REGISTRY]
    if not known:
        return
    with st.popover(label, icon=":material/help:", key=key, type="tertiary"):
        for name in known:
            one_card(name)


@lru_cache(maxsize=128)
def _card(name: str) -> Card:
    return card(REGISTRY[name])


def one_card(name: str) -> None:
    """One probe's card: what, how, in which unit, against what chance, from which source."""
    shown = _card(name)
    st.markdown(f"**{literal(sentence_case(probe_name(name)))}**  \n{literal(shown.summary, limit=1000)}")
    facts = {k: v for k, v in shown.facts.items() if k not in ("kind", "version", "asked for by name")}
    st.markdown("\n".join(f"- **{literal(k)}**: {literal(v, limit=1500)}" for k, v in facts.items()))
    st.markdown(
        "\n".join(
            f"- `{metric}`: {literal(f'{text} ({unit})', limit=1000)}" for metric, text, unit in shown.metrics
        )
    )
    if shown.steps:
        st.markdown("How it is computed")
        st.text("\n".join(shown.steps))
