"""A report as one HTML file that makes no network requests.

Interactive: plotly once, inline, every figure first drawn as a still SVG and replaced when the script runs; printing
uses the static figures. Light: the static figures alone and no script at all. With a program: the static figures, and
drawings that play. The page's content policy names the scripts and styles in it by their hashes, so that nothing else runs.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from byrote.probes.figures.paper import caption_of
from byrote.probes.figures.svg import figure_svg, spark_svg, still_style, theme_variables
from byrote.probes.figures.theme import recolour
from byrote.probes.wording import clean, counted, interval, listed, number
from byrote.report.model import (
    Alert,
    Block,
    Cards,
    Code,
    Estimate,
    Link,
    Listing,
    Live,
    Picture,
    Program,
    Prose,
    Report,
    RunLine,
    Section,
    Spark,
    Table,
    Value,
    Words,
)
from byrote.report.redact import redact

SHORT_CHARS = 18  # cells this short never wrap
FOLD_ROWS = 24  # of a table in an open section; a longer one is closed until it is opened
FOLD_ITEMS = 8  # of a list of sentences likewise
LIGHT_BYTES = 280_000  # of the sections of a light page, past which the tables under figures are left out
_LEFT_OUT = ", those under each figure too, which this page is too small for"
OPEN_ALERTS = 3  # of notes that touch no comparison; those after them are closed until opened
TITLE_PX = 44  # what a figure's own title takes; the page writes it as a heading instead
_STATUS = {"complete": "✓ complete", "partial": "◐ partial", "failed": "✕ failed"}
_BESIDE = "The same numbers are in the .json and .csv files beside this page"


def render(
    report: Report, *, light: bool = False, program: Program | None = None, footer: str = _BESIDE
) -> tuple[str, dict[str, int]]:
    """The page, and how many bytes each section takes.

    Args:
        report: what to say.
        light: leave out plotly; every figure is still.
        program: what draws the `Live` blocks, in a light page.
        footer: where the same numbers are, or what made the page.

    Returns:
        (HTML, section name to bytes). A light page past `LIGHT_BYTES` leaves out the tables under its figures and says so.
    """
    sections = {s.name: _section(s, light=light) for s in report.sections}
    left_out = light and sum(len(text.encode()) for text in sections.values()) > LIGHT_BYTES
    if left_out:
        sections = {s.name: _section(s, light=light, with_tables=False) for s in report.sections}
    if light and sum(len(text.encode()) for text in sections.values()) > LIGHT_BYTES:
        shorter = [_shortened(s) for s in report.sections]
        sections = {s.name: _section(s, light=light, with_tables=False) for s in shorter}
    style = f"{theme_variables()}{_resource('style.css')}{still_style()}{program.style if program else ''}"
    scripts = [] if light else [get_plotlyjs(), _resource("live.js")]
    # Plotly writes styles of its own while it runs.
    styles = [style, *(css for css, _ in program.templates.values())] if program else [style] if light else []
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy([*scripts, *([program.script] if program else [])], styles)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{show(report.title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
{_contents(report)}
<main id="main">
{_head(report)}
{"".join(sections.values())}
{_not_printed(report)}</main>
<footer><p>Written by byrote. {footer}{_LEFT_OUT if left_out else ""}.</p></footer>
{"".join(f"<script>{script}</script>" for script in scripts)}{_program(program) if program else ""}
</body>
</html>
"""
    return page, {name: len(text.encode()) for name, text in sections.items()}


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The page's content policy: these scripts and these styles; of no styles, whichever the scripts write."""
    ran = f" script-src {' '.join(map(_hashed, scripts))};" if scripts else ""
    styled = " ".join(map(_hashed, styles)) or "'unsafe-inline'"
    return f"default-src 'none';{ran} style-src {styled}; img-src data:"


def _hashed(text: str) -> str:
    """The source expression that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _program(program: Program) -> str:
    """The templates, the data and the script of what plays."""
    templates = "".join(
        f'<template id="template-{ident(name)}"><style>{style}</style>{markup}</template>\n'
        for name, (style, markup) in program.templates.items()
    )
    data = base64.b64encode(program.data).decode()
    return f'{templates}<script type="application/gzip" id="program-data">{data}</script>\n<script>{program.script}</script>'


def show(text: object) -> str:
    """Any text as visible, harmless HTML: one line, homes redacted, everything escaped."""
    return html.escape(clean(redact(str(text)), limit=1200))


def ident(name: object) -> str:
    """A name as an id of the page: letters, digits, dashes and underscores."""
    return re.sub(r"[^\w-]+", "-", str(name), flags=re.ASCII)


def bare(fig: go.Figure) -> dict[str, Any]:
    """The figure's JSON without its own title, which the page says in HTML."""
    spec = fig.to_plotly_json()
    layout = spec["layout"]
    del layout["title"]
    layout["height"] -= TITLE_PX
    layout["margin"]["t"] -= TITLE_PX
    return dict(spec)


def embedded(spec: dict[str, Any]) -> str:
    """A figure's JSON and what to change in it for the dark theme, as JSON that no text inside can break out of."""
    light = json.loads(to_json(spec, validate=False))
    light["layout"].pop("meta")
    patch = list(_differences(light, recolour(light, "dark")))
    text = json.dumps(
        {"figure": light, "dark": patch}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    for char, code in (
        ("&", "\\u0026"),
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(char, code)
    return text


def _differences(light: Any, dark: Any, path: tuple[str | int, ...] = ()) -> Any:
    """(path, dark value) of every leaf that differs."""
    if isinstance(light, dict):
        for key in light:
            yield from _differences(light[key], dark[key], (*path, key))
    elif isinstance(light, list):
        for index, child in enumerate(light):
            yield from _differences(child, dark[index], (*path, index))
    elif light != dark:
        yield [list(path), dark]


def _resource(name: str) -> str:
    return resources.files("byrote.report").joinpath(name).read_text(encoding="utf-8")


def _contents(report: Report) -> str:
    items = "".join(f'<li><a href="#{ident(s.name)}">{show(s.title)}</a></li>' for s in report.sections)
    return f'<nav class="contents" aria-label="Contents"><p>Contents</p><ol>{items}</ol></nav>'


def _not_printed(report: Report) -> str:
    """On paper, which sections are in the file alone."""
    folded = [section.title for section in report.sections if section.folded]
    if not folded:
        return ""
    names = listed(folded, most=len(folded))
    return f'<p class="on-paper">Further sections of the file, printed if they are opened first: {show(names)}.</p>\n'


def _head(report: Report) -> str:
    runs = "".join(_run_line(run) for run in report.runs)
    return f"""<header>
<p class="over"><span>byrote report</span> <span class="status {ident(report.status)}">{_STATUS.get(report.status) or show(report.status)}</span></p>
<h1>{show(report.title)}</h1>
<ul class="runs" aria-label="Runs">{runs}</ul>
<p class="date">{show(report.date)}</p>
{_alerts(report.alerts)}
</header>
"""


def _run_line(run: RunLine) -> str:
    dash = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}.get(run.dash, "none")
    line = f'<line x1="0" x2="34" y1="6" y2="6" stroke="var(--{run.token})" stroke-width="2.5" stroke-dasharray="{dash}"/>'
    description = ", ".join(filter(None, ("baseline" if run.is_base else "", run.description)))
    words = f' <span class="soft">{show(description)}</span>' if description else ""
    return (
        f'<li><svg width="34" height="12" aria-hidden="true">{line}</svg> <b>{show(run.name)}</b>{words}</li>'
    )


def _alerts(alerts: tuple[Alert, ...]) -> str:
    if not alerts:
        return '<section class="alerts none" aria-label="Alerts"><p>No alerts: nothing is missing and nothing was measured differently.</p></section>'
    items = [
        f'<li class="{ident(a.level)}">{show(a.text)} <a href="#{ident(a.section)}">more</a></li>'
        for a in alerts
    ]
    open_ones = max(OPEN_ALERTS, sum(a.compares or a.level != "note" for a in alerts))
    count = counted(len(alerts), "alert")
    grave = "" if any(a.level != "note" for a in alerts) else " none"
    return f'<section class="alerts{grave}" aria-label="Alerts"><p>{count} before you read the numbers</p><ul>{"".join(items[:open_ones])}</ul>{_more_alerts(items[open_ones:])}</section>'


def _more_alerts(items: Sequence[str]) -> str:
    if not items:
        return ""
    summary = f"{counted(len(items), 'more note')} on how it was measured"
    on_paper = f'<p class="on-paper">{summary}: in the file.</p>'
    return f'<details class="more-alerts"><summary>{summary}</summary><ul>{"".join(items)}</ul></details>{on_paper}'


def _section(section: Section, *, light: bool, with_tables: bool = True) -> str:
    name, blocks = (
        ident(section.name),
        "\n".join(_block(block, section, light=light, with_tables=with_tables) for block in section.blocks),
    )
    if not section.folded:
        return f'<section id="{name}" aria-labelledby="{name}-title">\n{_heading(2, section.name, section.title)}\n{blocks}\n</section>\n'
    title = f'<h2 id="{name}-title">{show(section.title)}</h2>'  # without a link of its own: it is what opens the section
    return f'<section id="{name}" aria-labelledby="{name}-title" class="folded">\n<details class="fold"><summary>{title}</summary>\n{blocks}\n</details></section>\n'


def _shortened(section: Section) -> Section:
    """A section of a page that is too large: of its tables as many rows as an open section shows."""
    return replace(section, blocks=tuple(_cut(b) if isinstance(b, Table) else b for b in section.blocks))


def _cut(table: Table) -> Table:
    more = max(0, len(table.rows) - FOLD_ROWS)
    return replace(table, rows=table.rows[:FOLD_ROWS], n_left_out=table.n_left_out + more)


def _heading(level: int, name: str, title: str) -> str:
    link = f'<a class="anchor" href="#{ident(name)}" aria-label="Link to {show(title)}">#</a>'
    return f'<h{level} id="{ident(name)}-title">{show(title)} {link}</h{level}>'


def _block(block: Block, section: Section, *, light: bool, with_tables: bool) -> str:
    match block:
        case Prose():
            return f'<p class="{ident(block.style)}">{show(block.text)}</p>'
        case Listing():
            return _listing(block, folded=not section.folded and len(block.items) > FOLD_ITEMS)
        case Table():
            return _listed_table(block, folded=not section.folded and len(block.rows) > FOLD_ROWS)
        case Picture():
            return _picture(block, light=light, with_table=with_tables)
        case Cards():
            return _cards(block)
        case Code():
            return _code(block)
        case Live():
            return _live(block)


def _picture(picture: Picture, *, light: bool, with_table: bool) -> str:
    spec, layout = bare(picture.figure), picture.figure.layout
    title, subtitle = html.unescape(layout.title.text), html.unescape(layout.title.subtitle.text or "")
    name = ident(picture.name)
    still = figure_svg(spec, name=name, titles=light, said_in=f"{name}-caption")
    table = (
        f"<details><summary>Data table</summary>\n{_table(picture.table)}\n</details>" if with_table else ""
    )
    live = f'<div class="plot" role="img" aria-labelledby="{name}-caption"></div>'
    script = "" if light else f'<script type="application/json">{embedded(spec)}</script>'
    return f"""<figure id="{name}" aria-labelledby="{name}-title">
{_heading(3, picture.name, title)}
<p class="sub">{show(subtitle)}</p>
<div class="canvas" tabindex="0" role="group" aria-labelledby="{name}-title">{still}{"" if light else live}</div>
<figcaption id="{name}-caption">{show(caption_of(picture.figure))}</figcaption>
{table}
{script}</figure>"""


def _live(place: Live) -> str:
    """Where something is drawn; where no script runs, that it is not."""
    half = " half" if place.half else ""
    return f"""<div class="part{half}" id="{ident(place.name)}" role="group" aria-label="{show(place.caption)}">
<p class="what" id="{ident(place.name)}-caption">{show(place.caption)}</p>
<noscript><p class="note">This part moves, and needs a browser that runs the script in this file.</p></noscript>
<div class="stage" data-component="{ident(place.component)}"></div></div>"""


def _listing(listing: Listing, *, folded: bool) -> str:
    items = "".join(f"<li>{show(item)}</li>" for item in listing.items)
    return _unless_opened(
        counted(len(listing.items), "sentence"), f'<ul class="listing">{items}</ul>', folded=folded
    )


def _listed_table(table: Table, *, folded: bool) -> str:
    first, _, _ = table.caption.partition(". ")
    return _unless_opened(
        f"{counted(len(table.rows), 'row')}: {first.rstrip('.')}", _table(table), folded=folded
    )


def _unless_opened(summary: str, body: str, *, folded: bool) -> str:
    """What is long, in a section that is open: closed until a reader opens it, and not printed before."""
    return f"<details><summary>{show(summary)}</summary>\n{body}\n</details>" if folded else body


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{show(column)}</th>' for column in table.columns)
    groups = itertools.groupby(table.rows, key=lambda row: row[: table.group_columns])
    body = "".join(_group(list(rows), table.group_columns) for _, rows in groups)
    more = (
        f'<p class="more">{table.n_left_out:,} more rows are in the CSV file.</p>' if table.n_left_out else ""
    )
    name = ident(table.name)
    return f"""<div class="table" id="{name}" tabindex="0" role="region" aria-labelledby="{name}-caption">
<table><caption id="{name}-caption"><span>{show(table.caption)}</span></caption><thead><tr>{head}</tr></thead>
{body}</table></div>{more}"""


def _group(rows: list[tuple[Value, ...]], n_group: int) -> str:
    """Rows that share their leading columns, written once for all of them."""
    span = f' rowspan="{len(rows)}"' if len(rows) > 1 else ""
    shared = "".join(
        f'<th scope="{"rowgroup" if span else "row"}"{span}>{_value(v)}</th>'
        if i == 0
        else f"<td{_css(v)}{span}>{_value(v)}</td>"
        for i, v in enumerate(rows[0][:n_group])
    )
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{_css(v)}>{_value(v)}</td>" for v in row[n_group:])
        lines.append(f"<tr>{shared if index == 0 else ''}{cells}</tr>")
    return f"<tbody>{''.join(lines)}</tbody>\n"


def _css(value: Value) -> str:
    """Cells that hold prose may wrap; all others never do."""
    text = value.text if isinstance(value, Words) else value
    return ' class="text"' if isinstance(text, str) and len(text) > SHORT_CHARS else ""


def _value(value: Value) -> str:
    match value:
        case None:
            return '<span class="muted">–</span>'
        case Estimate():
            return _estimate(value)
        case Words():
            more = f"<br><small>{show(value.detail)}</small>" if value.detail else ""
            text = show(value.text)
            return (
                f'<span class="{ident(value.tone)}">{text}</span>{more}'
                if value.tone != "plain"
                else text + more
            )
        case Spark():
            return spark_svg(value.values, value.limits, alt=value.alt)
        case Link():
            return f'<a href="{html.escape(quote(value.to))}">{show(value.text)}</a>'
        case int():
            return f"{value:,}"
        case float():
            return show(number(value))
    return show(value)


def _estimate(value: Estimate) -> str:
    where = f'<span class="where">{show(value.where)}</span> ' if value.where else ""
    if value.value is None:
        return f'{where}<span class="muted why">not measured: {show(value.reason)}</span>'
    point, _, bounds = interval(value.value, value.lo, value.hi, sign=value.signed).partition(" ")
    return f"{where}{show(point)} <i>{show(bounds)}</i>"


def _cards(block: Cards) -> str:
    cards = []
    for card in block.cards:
        facts = "".join(f"<div><dt>{show(term)}</dt><dd>{show(fact)}</dd></div>" for term, fact in card.facts)
        cards.append(
            f'<article class="card" id="{ident(card.name)}">{_heading(3, card.name, card.title)}'
            f"<p>{show(card.summary)}</p><dl>{facts}</dl></article>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _code(block: Code) -> str:
    lines = "\n".join(show(line) for line in block.text.split("\n"))
    return f'<div id="{ident(block.name)}">{_heading(3, block.name, block.caption)}<pre tabindex="0"><code>{lines}</code></pre></div>'
