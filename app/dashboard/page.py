"""How a page shows things: figures with their alternative text, tables that twin them, cards, gaps, and exports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.figures import fitted
from byrote.probes.cards import Card, card
from byrote.probes.figures import apply_theme
from byrote.probes.figures.words import clean, probe_name, sentence_case
from byrote.probes.registry import REGISTRY

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>&@=^\"'/])")


@dataclass
class Shown:
    """What is on the page, in order, for the export menu.

    Attributes:
        title: the finding.
        figures: name -> figure in light colours.
        tables: name -> (caption, data).
    """

    title: str = ""
    figures: dict[str, go.Figure] = field(default_factory=dict)
    tables: dict[str, tuple[str, pd.DataFrame]] = field(default_factory=dict)


class Page:
    """One page being drawn.

    Args:
        stem: what file names of its exports begin with.
        theme: "light" or "dark".
    """

    def __init__(self, stem: str, theme: str) -> None:
        self.stem, self.theme, self.shown = stem, theme, Shown()

    def title(self, finding: str) -> None:
        """The page's title: a sentence made of data."""
        self.shown.title = finding
        st.title(literal(finding, limit=300), anchor=False)

    def figure(self, fig: go.Figure, name: str, **options: Any) -> Any:
        """A figure in the page's theme; its alternative text is its finding."""
        self.shown.figures[name] = fig
        return st.plotly_chart(
            in_theme(fig, self.theme),
            theme=None,
            key=f"figure_{name}",
            alt=str((fig.layout.meta or {}).get("alt", "")),
            config={
                "displaylogo": False,
                "toImageButtonOptions": {"format": "png", "scale": 2, "filename": file_stem(self.stem, name)},
                "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
            },
            **options,
        )

    def table(self, data: pd.DataFrame, name: str, *, caption: str, **options: Any) -> Any:
        """A table with its caption; kept for export as it is."""
        self.shown.tables[name] = (caption, data)
        if caption:
            st.caption(literal(caption, limit=400))
        options = {"hide_index": True, "placeholder": "–", **options}
        return st.dataframe(plain_cells(data), key=f"table_{name}", alt=clean(caption, limit=400), **options)


def in_theme(fig: go.Figure, theme: str) -> go.Figure:
    """The figure as a page shows it; made once, because pages of all users show the same figure."""
    held = fig.__dict__.setdefault("_in_theme", {})
    if theme not in held:
        themed = fitted(apply_theme(fig, theme))
        _without_empty_text(themed)
        held[theme] = themed.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor=_see_through(themed))
    return held[theme]


def _without_empty_text(fig: go.Figure) -> None:
    """Heatmaps whose cells carry no text do not ask the browser to lay any out."""
    for trace in fig.data:
        if trace.type == "heatmap" and trace.text is not None and not any(any(row) for row in trace.text):
            trace.text = trace.texttemplate = None


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


def _see_through(fig: go.Figure) -> str:
    """Grids keep the ground that marks cells without a value; everything else shows the page."""
    ground = fig.layout.plot_bgcolor
    return ground if ground else "rgba(0,0,0,0)"


def literal(text: object, *, limit: int = 200) -> str:
    """Text for Streamlit's Markdown in which nothing is markup: no link, image, formula, colour or HTML.

    Args:
        text: anything; control and direction characters become U+FFFD.
        limit: longest text shown; the middle of a longer one is replaced by an ellipsis.
    """
    return _MARKUP.sub(r"\\\1", clean(text, limit=limit))


def file_stem(*parts: object) -> str:
    """A file name made of words: everything but letters, digits, dots and dashes becomes an underscore."""
    words = (re.sub(r"[^A-Za-z0-9.-]+", "_", str(part)).strip("._") for part in parts)
    return "_".join(word for word in words if word)[:120] or "byrote"
