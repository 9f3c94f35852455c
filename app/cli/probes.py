"""`byrote probes`: the catalogue, and one probe's card."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from byrote.cli.command import argument, verb
from byrote.cli.output import Column, Output, Row, columns
from byrote.cli.session import Session

if TYPE_CHECKING:
    from byrote.probes.cards import Card
    from byrote.probes.spec import ProbeInfo

_SAME = "name kind unit better summary main_metric chance source version"
COLUMNS = (
    Column("name", "name"),
    Column("kind", "kind", wide=True),
    Column("unit", "unit", wide=True),
    *columns("range_lo range_hi"),
    Column("_range", "range", lambda row: _range(row), wide=True),
    Column("better", "better", lambda row: row["better"] or "-"),
    Column("summary", "summary", fold=True),
    *columns("main_metric chance metrics smallest stimuli needs source version"),
)
_CARD_WIDTH = 100


@verb("byrote probes", "byrote probes induction")
def probes(session: Session, *, name: str | None = argument("[NAME]", required=False), out: Output) -> None:
    """List the probes: what each measures, in which unit and range, and which direction means more of it.

    With NAME, print that probe's card: how it is computed, its metrics, stimuli, chance level and source. The measures of
    `byrote degrade` have cards too: NAME is dose, effective_size, ...
    """
    from byrote.probes.cards import card, text_lines
    from byrote.probes.registry import REGISTRY, load_installed, lookup

    if name is None:
        for problem in load_installed():
            session.warn(problem)
        out.rows(COLUMNS, [_row(info) for info in REGISTRY.values()])
    elif name not in REGISTRY and (shown := _measure(name)) is not None:
        for line in text_lines(shown, width=min(shutil.get_terminal_size().columns, _CARD_WIDTH)):
            session.data(line)
    elif session.output in (None, "table"):  # a card is prose, also in a pipe
        width = min(shutil.get_terminal_size().columns, _CARD_WIDTH)
        for line in text_lines(card(lookup(name)), width=width):
            session.data(line)
    else:
        out.rows(COLUMNS, [_row(lookup(name))])


def _measure(name: str) -> Card | None:
    """The card of a measure of degradation; None where there is none of that name."""
    from byrote.probes.degrade.measure_cards import MEASURE_INFOS, measure_card

    return measure_card(name) if name in MEASURE_INFOS else None


def _range(row: Row) -> str:
    from byrote.probes.cards import range_text

    return range_text(row["range_lo"], row["range_hi"])


def _row(info: ProbeInfo) -> Row:
    from byrote.probes.rules import smallest_effect

    lo, hi = info.range or (None, None)
    lists = {name: list(getattr(info, name)) for name in ("metrics", "stimuli", "needs")}
    smallest = {metric: smallest_effect(info, metric) for metric in info.metrics if info.compares(metric)}
    facts = {name: getattr(info, name) for name in _SAME.split()}
    return facts | lists | {"smallest": smallest, "range_lo": lo, "range_hi": hi}
