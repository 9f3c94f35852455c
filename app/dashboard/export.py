"""Export of a view: its link, its numbers, its figures, the page itself, and the lines that reproduce it."""

from __future__ import annotations

import io
import secrets
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from byrote.dashboard.components.base import show as show_component
from byrote.dashboard.page import Drawing, View, detail
from byrote.dashboard.play import play_html
from byrote.dashboard.query_params import State, link
from byrote.probes.csv_text import csv_frame
from byrote.probes.figures.paper import caption_of, paper_svg
from byrote.probes.results import Results
from byrote.probes.wording import (
    clean,
    file_stem,
    literal,
    number,
    plain,
    probe_name,
    sentence_case,
    shell_line,
    visible_json,
)
from byrote.report.alerts import alerts_for, status_of
from byrote.report.background import errors_section, provenance_section
from byrote.report.content import run_lines
from byrote.report.files import now_in_words
from byrote.report.html import render
from byrote.report.model import Block, Picture, Prose, Report, Section, Table
from byrote.report.report_inputs import report_inputs

MAX_TABLE_ROWS_HTML = 400


def share(view: View) -> None:
    """Copies the address of exactly this view: with the port, and without the key, which every reader's own server gives."""
    show_component("copy_link", {"address": address(view)}, key="share", width="content")


def address(view: View) -> str:
    """The whole URL, with every part of the state in it."""
    from urllib.parse import urlencode, urlsplit

    here = urlsplit(st.context.url or "http://localhost")
    root = f"{here.scheme}://{here.netloc}"
    path = "" if view.page.first else view.page.name
    return f"{root}/{path}?{urlencode(link(view.state))}"


def menu(view: View, page: Drawing) -> None:
    """The page, its tables, figures, link and lines, to take along."""
    share(view)
    _button("Export", lambda: _downloads(view, page), icon="download", wide=False)
    _button("Reproduce", lambda: _reproduce(view), icon="terminal")
    _button("Provenance", lambda: _provenance(view), icon="fact_check")


def _button(label: str, draw: Callable[[], None], *, icon: str, wide: bool = True) -> None:
    detail(label, draw, icon=f":material/{icon}:", key=label.lower(), quiet=False, wide=wide)


def _downloads(view: View, page: Drawing) -> None:
    """The downloads, each made when it is clicked."""
    stem = page.stem
    _download("Tables on this page, CSV", f"{stem}.csv.zip", "application/zip", lambda: csv_zip(page))
    _download("Tables on this page, JSON", f"{stem}.json", "application/json", lambda: json_text(view, page))
    if view.page.exports_figures:
        _download(
            "Figures on this page, SVG", f"{stem}.svg.zip", "application/zip",
            lambda: svg_zip(figures_of(view, page)),
        )  # fmt: skip
    here = address(view)  # nothing knows it any more when the download is made
    _download("This page, HTML", f"{stem}.html", "text/html", lambda: page_html(view, page, here))
    st.caption("A still page: one file that opens anywhere, offline, without scripts.")
    if view.state.probe:
        name = file_stem("byrote", *filter(None, (view.state.run, view.state.base)), "plays")
        _download(
            "This run, playing, HTML", f"{name}.html", "text/html", lambda: play_html(view.library, view.state)
        )  # fmt: skip
        st.caption(
            "Grid, curves, circuit and attention of the pinned heads, beside the baseline: one file, offline."
        )
    _png(view, page)


def _reproduce(view: View) -> None:
    """The command and the notebook lines behind what is on screen."""
    st.caption("In a shell")
    st.code("\n".join(shell_lines(view)), language="sh", wrap_lines=True)
    st.caption("In a notebook")
    st.code("\n".join(notebook_lines(view)), language="python", wrap_lines=True)


def _provenance(view: View) -> None:
    """Under which conditions the numbers were measured."""
    rows = list(provenance_facts(view).items())
    st.markdown("\n".join(f"- {literal(name)}: {literal(value, limit=400)}" for name, value in rows))


def provenance_facts(view: View) -> dict[str, str]:
    """Series, format, model, precision, seeds, stimuli and versions of the run."""
    meta = view.run.meta
    series, provenance = meta.get("series") or {}, meta.get("provenance") or {}
    facts = {
        "results": str(view.run.path),
        "series": f"{series.get('path', 'unknown')} ({series.get('format', 'unknown format')})",
        "model": ", ".join(f"{k} {v}" for k, v in (meta.get("model") or {}).items() if v is not None),
        **{k.replace("_", " "): str(v) for k, v in provenance.items() if k != "versions"},
        "stimuli": ", ".join(str(s.get("id")) for s in meta.get("stimuli") or []),
        "versions": ", ".join(f"{k} {v}" for k, v in (provenance.get("versions") or {}).items()),
        "status": str(meta.get("status", "unknown")),
        "notes": "; ".join(map(str, meta.get("notes") or [])),
    }
    return {name: text for name, text in facts.items() if text}


def csv_zip(page: Drawing) -> bytes:
    """One CSV per table."""
    return _zip({f"{name}.csv": csv_frame(frame) for name, (_, frame) in page.tables.items()})


def figures_of(view: View, page: Drawing) -> dict[str, go.Figure]:
    """Every figure of the page, and a still one of what its components draw."""
    return view.page.static_figures(view) | {name: draw() for name, draw in page.figures.items()}


def svg_zip(figures: Mapping[str, go.Figure]) -> bytes:
    """One SVG per figure."""
    return _zip({f"{name}.svg": svg_text(fig, name) for name, fig in figures.items()})


def svg_text(fig: go.Figure, name: str) -> str:
    """A figure as an SVG file that needs nothing beside it, with its title, finding, n and chance."""
    return paper_svg(fig, name=name, on_screen=True)


def _png(view: View, page: Drawing) -> None:
    """One figure as PNG, drawn by the browser from the SVG: nothing here has to paint."""
    names = list(figures_of(view, page))
    if not names:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("One figure", names, key="png_figure", format_func=lambda n: n.replace("_", " "))
        clicked = st.button("PNG", key="png", icon=":material/image:")
    if clicked:
        svg = svg_text(figures_of(view, page)[name], name)
        stem = file_stem(page.stem, name)
        _painter()(key="painter", data={"svg": svg, "name": f"{stem}.png", "id": secrets.token_hex(4)})


@lru_cache(maxsize=1)
def _painter() -> Callable[..., Any]:
    script = (resources.files("byrote.dashboard") / "png.js").read_text(encoding="utf-8")
    return st.components.v2.component("byrote_png", html='<p role="status"></p>', js=script)


def json_text(view: View, page: Drawing) -> str:
    """The tables and the state; what is not there is null, never NaN."""
    tables = {
        name: {
            "caption": caption,
            "rows": [{str(k): plain(v) for k, v in row.items()} for row in frame.to_dict("records")],
        }
        for name, (caption, frame) in page.tables.items()
    }
    data = {
        "title": page.finding,
        "state": link(view.state),
        "provenance": provenance_facts(view),
        "tables": tables,
    }
    return visible_json(data, indent=1, ascii_only=False)


def page_html(view: View, page: Drawing, address: str) -> str:
    """The page as one still file: its title, figures and tables, and what the report says of the same runs.

    Args:
        view, page: what was drawn.
        address: where it was looked at.
    """
    blocks: list[Block] = []
    tables = {name: _html_table(name, *table) for name, table in page.tables.items()}
    for name, fig in figures_of(view, page).items():
        blocks.append(Picture(name, fig, _figure_table(name, fig)))
    blocks += tables.values()
    where = Section("reproduce", "Reproduce", (Prose(address), *(Prose(line) for line in shell_lines(view))))
    about = Section("page", view.page.title, tuple(blocks) or (Prose("Nothing is drawn on this page."),))
    inputs = report_inputs(
        [one for one in (view.base, view.run) if one is not None], base=view.state.base or None
    )
    sections = (about, where, provenance_section(inputs), errors_section(inputs))
    alerts = alerts_for(inputs, [section.name for section in sections])
    report = Report(
        page.finding, run_lines(inputs), now_in_words(), status_of(inputs, alerts), alerts, sections
    )
    return render(
        report, light=True, footer="This file shows one page of the dashboard as it was when exported"
    )[0]


def _figure_table(name: str, fig: Any) -> Table:
    return Table(f"{name}-words", "In words", ("What it shows",), ((caption_of(fig),),))


def _html_table(name: str, caption: str, frame: pd.DataFrame) -> Table:
    head = frame.head(MAX_TABLE_ROWS_HTML)
    rows = tuple(tuple(_cell(v) for v in row) for row in head.itertuples(index=False))
    columns = tuple(sentence_case(probe_name(str(c))) for c in frame.columns)
    return Table(name, caption, columns, rows, n_left_out=len(frame) - len(head), group_columns=0)


def _cell(value: Any) -> str:
    value = plain(value)
    if value is None:
        return "–"
    if isinstance(value, float):
        if value.is_integer():
            return number(value, places=0)
        as_rounded = f"{value:g}".replace("-", "−")  # 0.71 where it was rounded, not 0.710
        return min(number(value), as_rounded, key=len)
    return clean(value, limit=300)


def _zip(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            stem, _, ending = name.rpartition(".")
            archive.writestr(f"{file_stem(stem)}.{ending}", text)
    return buffer.getvalue()


def _download(label: str, name: str, mime: str, make: Callable[[], Any]) -> None:
    st.download_button(
        label,
        data=make,
        file_name=name,
        mime=mime,
        on_click="ignore",
        key=f"download_{name}_{mime}",
        width="stretch",
    )


N_TOP = 10


def shell_lines(view: View) -> list[str]:
    """Commands that print the numbers of the page, and the one that opens it."""
    roots = dict.fromkeys(str(path) for path in view.library.paths)
    return [*view.page.commands(view), shell_line(["byrote", "dashboard", *roots])]


def notebook_lines(view: View) -> list[str]:
    """Python that makes the figures and numbers of the page."""
    lines = [
        "from byrote.probes import figures",
        "from byrote.probes.results import Results",
        opened("run", view.run),
    ]
    if view.base is not None:
        lines.append(opened("base", view.base))
    return [*lines, *view.page.notebook(view)]


def opened(name: str, run: Results) -> str:
    """The line that opens a run's results under a name."""
    return f"{name} = Results.open({str(run.path)!r})"


def show(run: Results, *more: str) -> str:
    """`byrote show` of a run."""
    return shell_line(["byrote", "show", str(run.path), *more])


def report(view: View) -> str:
    """`byrote report` of the run, against the baseline where there is one."""
    if view.base is None:
        return shell_line(["byrote", "report", str(view.run.path)])
    return shell_line(["byrote", "report", str(view.base.path), str(view.run.path), "--base", view.base.run])


def strongest(view: View, *, top: int = N_TOP) -> str:
    """`byrote show` of the strongest heads on the probe at the step looked at."""
    state = view.state
    chosen = ["--probe", state.probe, "--metric", state.metric] if state.probe else []
    return show(view.run, *chosen, "--step", str(state.step), "--top", str(top))


def runs_and_base(view: View) -> tuple[str, str]:
    """How the runs and the baseline are written as arguments of a figure."""
    return ("[base, run]", f", base={view.base.run!r}") if view.base is not None else ("run", "")


def metric(state: State) -> str:
    """Probe and metric as keyword arguments."""
    return f"probe={state.probe!r}, metric={state.metric!r}"


def run_command(run: Results, *more: str) -> str:
    """The sweep that made this run, as a command that measures only what is missing.

    Precision, device, seed and number of sequences are those it was measured with: under others everything would be
    measured anew.

    Args:
        run: whose series and results folder.
        more: further options.
    """
    if run.imported:
        return clean(shell_line(["byrote", "import", run.imported, "-o", str(run.path)]), limit=1000)
    provenance = run.meta.get("provenance") or {}
    words = ["byrote", "run", run.series_shown or "PATH", *more]
    for option, name, default in (
        ("--dtype", "dtype", "float32"),
        ("--device", "device", "cpu"),
        ("--seed", "seed", 0),
    ):
        if (value := provenance.get(name)) not in (None, default):
            words += [option, str(value)]
    shown = {s["n"] for s in run.meta.get("stimuli") or [] if s.get("kind") == "repeated_random" and "n" in s}
    if shown and shown != {32}:
        words += ["--sequences", str(min(shown))]
    return clean(shell_line([*words, "-o", str(run.path.parent)]), limit=1000)
