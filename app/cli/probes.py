"""`rote probes`: the catalogue, and one probe's card."""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.command import Verb
from app.cli.output import Column, Output, Row, output_options
from app.cli.session import Session

if TYPE_CHECKING:
    from probes.info import ProbeInfo

COLUMNS = (
    Column("name", "name"),
    Column("kind", "kind", wide=True),
    Column("unit", "unit", wide=True),
    Column("range_lo"),
    Column("range_hi"),
    Column("_range", "range", lambda row: range_text(row["range_lo"], row["range_hi"]), wide=True),
    Column("better", "better", lambda row: row["better"] or "-"),
    Column("summary", "summary", fold=True),
    Column("main_metric"),
    Column("chance"),
    Column("metrics"),
    Column("stimuli"),
    Column("needs"),
    Column("source"),
    Column("version"),
)
_CARD_WIDTH = 100
_NUMBERED = re.compile(r"\d+\. ")


@click.command(
    cls=Verb,
    examples=("rote probes", "rote probes induction"),
    short_help="List the probes, or print one probe's card.",
)
@click.argument("name", required=False)
@click.pass_obj
@output_options
def probes(session: Session, name: str | None, out: Output) -> None:
    """List the probes: what each measures, in which unit and range, and which direction means more of it.

    With NAME, print that probe's card: how it is computed, its metrics, stimuli, chance level and source.
    """
    from probes.registry import REGISTRY, lookup

    if name is None:
        out.rows(COLUMNS, [_row(info) for info in REGISTRY.values()])
    elif session.output in (None, "table"):  # a card is prose, also in a pipe
        for line in _card(lookup(name)):
            session.data(line)
    else:
        out.rows(COLUMNS, [_row(lookup(name))])


def range_text(lo: float | None, hi: float | None) -> str:
    """``0 to 1``, or ``unbounded``."""
    return "unbounded" if lo is None or hi is None else f"{lo:g} to {hi:g}"


def formula(info: ProbeInfo) -> str:
    """How a probe is computed: its module's docstring, read from the file without importing it (or torch)."""
    spec = find_spec(info.module)
    if spec is None or not spec.origin:
        return ""
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""


def _row(info: ProbeInfo) -> Row:
    lo, hi = info.range or (None, None)
    return {
        "name": info.name,
        "kind": info.kind,
        "unit": info.unit,
        "range_lo": lo,
        "range_hi": hi,
        "better": info.better,
        "summary": info.summary,
        "main_metric": info.main_metric,
        "chance": info.chance,
        "metrics": list(info.metrics),
        "stimuli": list(info.stimuli),
        "needs": list(info.needs),
        "source": info.source,
        "version": info.version,
    }


def _card(info: ProbeInfo) -> Iterator[str]:
    width = min(shutil.get_terminal_size().columns, _CARD_WIDTH)
    lo, hi = info.range or (None, None)
    facts = {
        "kind": info.kind,
        "unit": info.unit,
        "range": range_text(lo, hi),
        "better": info.better or "neither: a description, not a score",
        "chance": info.chance,
        "stimuli": ", ".join(info.stimuli) or ("none: weights only" if info.kind == "weights" else ""),
        "needs": ", ".join(info.needs),
        "source": info.source,
        "version": str(info.version),
    }
    yield info.name
    yield from textwrap.wrap(info.summary, width)
    yield ""
    for name, value in facts.items():
        if value:
            yield from textwrap.wrap(f"{name:<9}{value}", width, subsequent_indent=" " * 9)
    yield from ("", "metrics")
    for metric, meaning in info.metrics.items():
        line = f"  {metric}: {meaning} ({info.unit_of(metric)})"
        yield from textwrap.wrap(line, width, subsequent_indent="    ")
    yield from ("", "how it is computed")
    # The first paragraph only names the probe again.
    yield from _reflowed(formula(info).partition("\n\n")[2], width)


def _reflowed(docstring: str, width: int) -> Iterator[str]:
    """Paragraphs and numbered points wrapped to the terminal instead of to the source file."""
    blocks: list[str] = []
    for line in docstring.splitlines():
        if not line.strip() or not blocks or not blocks[-1] or _NUMBERED.match(line):
            blocks.append(line.strip())
        else:
            blocks[-1] += f" {line.strip()}"
    for block in blocks:
        indent = "     " if _NUMBERED.match(block) else "  "
        yield from textwrap.wrap(block, width, initial_indent="  ", subsequent_indent=indent) or [""]
