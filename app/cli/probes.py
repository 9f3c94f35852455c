"""`rote probes`: the catalogue, and one probe's card."""

from __future__ import annotations

import ast
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
    Column("kind", "kind"),
    Column("unit", "unit"),
    Column("range_lo"),
    Column("range_hi"),
    Column("_range", "range", lambda row: range_text(row["range_lo"], row["range_hi"])),
    Column("better", "better"),
    Column("summary", "summary", fold=True),
    Column("main_metric"),
    Column("chance"),
    Column("metrics"),
    Column("stimuli"),
    Column("needs"),
    Column("source"),
    Column("version"),
)


@click.command(
    cls=Verb,
    examples=("rote probes", "rote probes induction"),
    short_help="List the probes, or print one probe's card.",
)
@click.argument("name", required=False)
@output_options
@click.pass_obj
def probes(session: Session, name: str | None, out: Output) -> None:
    """List the probes: what each measures, in which unit and range, and which direction means more of it.

    With NAME, print that probe's card: how it is computed, its metrics, stimuli, chance level and source.
    """
    from probes.registry import REGISTRY, lookup

    if name is None:
        out.rows(COLUMNS, [_row(info) for info in REGISTRY.values()])
    elif session.output in (None, "table"):
        session.data("\n".join(()))if False else _print_card(session, lookup(name))
    else:
        out.rows(COLUMNS, [_row(lookup(name))])


def range_text(lo: float | None, hi: float | None) -> str:
    """``0 to 1``, or ``unbounded``."""
    return "unbounded" if lo is None or hi is None else f"{lo:g} to {hi:g}"
