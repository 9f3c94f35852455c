"""`byrote probes`: the catalogue, and one probe's card."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from byrote.cli.command import Verb
from byrote.cli.output import Column, Output, Row, output_options
from byrote.cli.session import Session

if TYPE_CHECKING:
    from byrote.probes.spec import ProbeInfo

COLUMNS = (
    Column("name", "name"),
    Column("kind", "kind", wide=True),
    Column("unit", "unit", wide=True),
    Column("range_lo"),
    Column("range_hi"),
    Column("_range", "range", lambda row: _range(row), wide=True),
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


@click.command(
    cls=Verb,
    examples=("byrote probes", "byrote probes induction"),
    short_help="List the probes, or print one probe's card.",
)
@click.argument("name", required=False)
@click.pass_obj
@output_options
def probes(session: Session, name: str | None, out: Output) -> None:
    """List the probes: what each measures, in which unit and range, and which direction means more of it.

    With NAME, print that probe's card: how it is computed, its metrics, stimuli, chance level and source.
    """
    from byrote.probes.cards import card, text_lines
    from byrote.probes.registry import REGISTRY, lookup

    if name is None:
        out.rows(COLUMNS, [_row(info) for info in REGISTRY.values()])
    elif session.output in (None, "table"):  # a card is prose, also in a pipe
        width = min(shutil.get_terminal_size().columns, _CARD_WIDTH)
        for line in text_lines(card(lookup(name)), width=width):
            session.data(line)
    else:
        out.rows(COLUMNS, [_row(lookup(name))])


def _range(row: Row) -> str:
    from byrote.probes.cards import range_text

    return range_text(row["range_lo"], row["range_hi"])


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
