"""One family of outputs for every verb that prints data: a table on a terminal, tidy CSV otherwise, JSON on request.

In JSON what is not there is null, never NaN; in CSV it is an empty cell. Text is made safe for a terminal in tables and
CSV; JSON is written in ASCII, where escapes are harmless, and preserves it exactly. Tables are as wide as they need to be,
never wider than the terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from byrote.cli.session import Session, is_terminal
from byrote.probes.csv_text import csv_rows
from byrote.probes.wording import bounds, chance_number, plain, point, visible, visible_json

Row = Mapping[str, Any]
FORCED = {
    ("-t", "--table"): ("table", "Print a table even when stdout is not a terminal."),
    ("--csv",): ("csv", "Print tidy CSV, one row per number."),
    ("--json",): ("json", "Print a JSON array of rows; errors become objects too."),
    ("--jsonl",): ("jsonl", "Print one JSON object per line."),
}
_PROSE_WIDTH = 100
_WIDTH_WITHOUT_TERMINAL = 120
_KEPT = "\N{NO-BREAK SPACE}"  # a title and its number stay in one line
_FOLDED = 30  # a folded column is not squeezed below this while others can go


def open_page(session: Session, page: Path, *, wanted: bool) -> None:
    """Open a file in the browser where that is wanted, and say so where there is none."""
    if wanted and not webbrowser.open(page.resolve().as_uri()):
        session.warn(f"no browser could be started; open {page} by hand")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as CSV and JSON have it; stable. One that starts with "_" is for tables only.
        title: above the table's column; None leaves it out of the table.
        show: a row as the table's cell; the value itself where None.
        right: align numbers right.
        fold: wrap long text instead of keeping the cell in one line.
        wide: leave it out of a table that would not fit otherwise.
    """

    name: str
    title: str | None = None
    show: Callable[[Row], str | None] | None = None
    right: bool = False
    fold: bool = False
    wide: bool = False

    def cell(self, row: Row) -> str:
        """Text of one table cell."""
        value = self.show(row) if self.show else plain(row.get(self.name))
        return "" if value is None else visible(value)


def columns(names: str) -> tuple[Column, ...]:
    """Columns that only data have, their names separated by spaces."""
    return tuple(Column(name) for name in names.split())


# A row's value with the digits that its interval deserves, the interval, and the chance level.
VALUE = Column("value", "value", lambda row: point(row["value"], row["lo"], row["hi"]), right=True)
INTERVAL = Column(
    "_interval", "95% interval", lambda row: bounds(row["value"], row["lo"], row["hi"]), right=True
)
CHANCE = Column("chance", "chance", lambda row: chance_number(row["chance"]), right=True)


def output_params() -> list[click.Parameter]:
    """The options that choose a form; the one value they share is called `output`."""
    return [
        click.Option([*names, "output"], flag_value=form, default=None, help=text)
        for names, (form, text) in FORCED.items()
    ]


@dataclass(frozen=True)
class Output:
    """Where rows go and in which form."""

    session: Session
    form: str

    @classmethod
    def chosen(cls, session: Session, form: str | None) -> Output:
        """The requested form; a table on a terminal and CSV elsewhere if there is none."""
        session.output = form
        return cls(session, form or ("table" if is_terminal() else "csv"))

    @property
    def machine(self) -> bool:
        """Whether stdout must hold nothing but the rows."""
        return self.form != "table"

    def headline(self, text: str) -> None:
        """The finding: on stdout above a table, on stderr beside data."""
        if self.machine:
            self.session.note(text)
        else:
            self.prose(text)

    def prose(self, text: str) -> None:
        """A sentence on stdout, wrapped to the terminal; only beside a table."""
        for line in textwrap.wrap(visible(text), min(shutil.get_terminal_size().columns, _PROSE_WIDTH)):
            self.session.data(line)

    def rows(
        self, columns: Sequence[Column], rows: Iterable[Row], *, title: str = "", group: str | None = None
    ) -> None:
        """Print rows.

        Args:
            columns: in order.
            rows: by column name; what is not there or NaN becomes null.
            title: above a table.
            group: column whose value heads a block of a table's rows instead of being repeated in each.
        """
        rows = list(rows)
        if self.machine:
            print_data(self.form, [c.name for c in columns if not c.name.startswith("_")], rows)
            return
        left_out = _print_table(self.session, columns, rows, title=title, group=group)
        if left_out:
            self.session.note(f"too narrow for: {', '.join(left_out)}; a wider terminal or --csv has them")


def print_data(form: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Rows on stdout as csv, json or jsonl, with these columns in this order."""
    records = [{name: plain(row.get(name)) for name in names} for row in rows]
    if form == "csv":
        sys.stdout.write(csv_rows(names, (list(record.values()) for record in records)))
    elif form == "jsonl":
        for record in records:
            click.echo(visible_json(record))
    else:
        click.echo(visible_json(records, indent=1))


def _print_table(
    session: Session, columns: Sequence[Column], rows: Sequence[Row], *, title: str, group: str | None
) -> list[str]:
    """Columns with a title that have something in some row; titles of those the terminal is too narrow for."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    fixed = None if is_terminal() or os.environ.get("COLUMNS", "").isdigit() else _WIDTH_WITHOUT_TERMINAL
    console = Console(
        file=sys.stdout,
        no_color=not session.color(sys.stdout),
        highlight=False,
        markup=False,
        emoji=False,
        width=fixed,
    )
    titled = [c for c in columns if c.title is not None and (not rows or any(c.cell(row) for row in rows))]
    shown, gap, left_out = _fitted(titled, rows, console.width, indent=2 if group else 0)
    if gap == 0:
        if title:
            for line in textwrap.wrap(visible(title), console.width):
                session.data(line)
        for line in _stacked(titled, rows, console.width, group=group):
            session.data(line)
        return []
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in shown:
        table.add_column(
            column.title or "",
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
        )
    head = None
    for row in rows:
        if group and row[group] != head:
            head = row[group]
            table.add_row(Text(visible(head), style="bold"))
        indent = "  " if group else ""
        table.add_row(*(Text((indent if i == 0 else "") + c.cell(row)) for i, c in enumerate(shown)))
    if title:
        console.print(Text(visible(title), style="bold"))
    console.print(table)
    return left_out


def _fitted(
    columns: list[Column], rows: Sequence[Row], width: int, *, indent: int
) -> tuple[list[Column], int, list[str]]:
    """Columns that fit, the gap between them, and the titles of those that had to go, the last wide one first.

    The gap is 0 where not even the others fit.
    """
    from rich.cells import cell_len

    def needed(column: Column) -> int:
        longest = max((cell_len(column.cell(row)) for row in rows), default=0)
        text = min(longest, _FOLDED) if column.fold else longest
        return max(text, cell_len(column.title or ""))

    left_out: list[str] = []
    while True:
        widths = [needed(column) for column in columns]
        for gap in (3, 2, 1):
            if indent + sum(widths) + gap * (len(columns) - 1) <= width:
                return columns, gap, left_out
        wide = [column for column in columns if column.wide]
        if not wide:
            return columns, 0, left_out
        left_out.insert(0, wide[-1].title or "")
        columns = [column for column in columns if column is not wide[-1]]


def _stacked(
    columns: Sequence[Column], rows: Sequence[Row], width: int, *, group: str | None
) -> Iterator[str]:
    """Rows under each other for a terminal that no table fits: what a row is of, and its numbers with their titles below."""
    head = None
    indent = "  " if group else ""
    for row in rows:
        if group and row[group] != head:
            head = row[group]
            yield visible(head)
        names = [c.cell(row) for c in columns if not (c.right or c.fold)]
        numbers = [f"{c.title} {c.cell(row)}" for c in columns if c.right and c.cell(row)]
        texts = [f"{c.title}: {c.cell(row)}" for c in columns if c.fold and c.cell(row)]
        whole = " · ".join(pair.replace(" ", _KEPT) for pair in numbers)
        for text, deep in ((" ".join(filter(None, names)), ""), (whole, "  "), *((t, "  ") for t in texts)):
            start = indent + deep
            for line in textwrap.wrap(text, width, initial_indent=start, subsequent_indent=start):
                yield line.replace(_KEPT, " ")
