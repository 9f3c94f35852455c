"""One family of outputs for every verb that prints data: a table on a terminal, tidy CSV otherwise, JSON on request.

In JSON what is not there is null, never NaN; in CSV it is an empty cell. Text is made safe for a terminal in tables and
CSV; JSON is written in ASCII, where escapes are harmless, and keeps it exactly.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from app.cli.session import Session, is_terminal
from app.cli.text import clean, plain

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, Any]

FORCED = {
    ("-t", "--table"): ("table", "Print a table even when stdout is not a terminal."),
    ("--csv",): ("csv", "Print tidy CSV, one row per number."),
    ("--json",): ("json", "Print a JSON array of rows; errors become objects too."),
    ("--jsonl",): ("jsonl", "Print one JSON object per line."),
}
_WIDTH_WITHOUT_TERMINAL = 120


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as CSV and JSON have it; stable.
        title: above the table's column; None leaves it out of the table.
        show: a row as the table's cell; the value itself where None.
        right: align numbers right.
        fold: wrap long text instead of keeping the cell in one line.
    """

    name: str
    title: str | None = None
    show: Callable[[Row], str] | None = None
    right: bool = False
    fold: bool = False

    def cell(self, row: Row) -> str:
        """Text of one table cell."""
        if self.show:
            return clean(self.show(row))
        value = plain(row.get(self.name))
        return "" if value is None else clean(value)


@dataclass(frozen=True)
class Output:
    """Where rows go and in which form."""

    session: Session
    form: str

    @property
    def machine(self) -> bool:
        """Whether stdout must hold nothing but the rows."""
        return self.form != "table"

    def headline(self, text: str) -> None:
        """The finding: on stdout above a table, on stderr beside data."""
        if self.machine:
            self.session.note(text)
        else:
            self.session.data(text)

    def rows(self, columns: Sequence[Column], rows: Iterable[Row], *, title: str = "") -> None:
        """Print rows.

        Args:
            columns: in order; table-only columns have a name that no row has, and are left out of data.
            rows: by column name; what is not there or NaN becomes null.
            title: above a table.
        """
        rows = list(rows)
        if self.form == "table":
            self._table(columns, rows, title)
        else:
            names = [c.name for c in columns if not c.name.startswith("_")]
            print_data(self.form, names, rows)

    def _table(self, columns: Sequence[Column], rows: Sequence[Row], title: str) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = [c for c in columns if c.title is not None]
        cells = [[c.cell(row) for c in shown] for row in rows]
        used = [j for j in range(len(shown)) if not rows or any(line[j] for line in cells)]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for j in used:
            column = shown[j]
            table.add_column(
                column.title or "",
                justify="right" if column.right else "left",
                no_wrap=not column.fold,
                overflow="fold" if column.fold else "ellipsis",
                ratio=1 if column.fold else None,
            )
        for line in cells:
            table.add_row(*(Text(line[j]) for j in used))
        console = Console(
            file=sys.stdout,
            no_color=not self.session.color(sys.stdout),
            highlight=False,
            markup=False,
            emoji=False,
            width=_width(),
        )
        if title:
            console.print(Text(clean(title), style="bold"))
        console.print(table)


def output_options(function: F) -> F:
    """Give a verb the output family; it is called with `out: Output`. Goes below `@click.pass_obj`."""

    @functools.wraps(function)
    def wrapped(session: Session, /, *args: Any, output: str | None, **options: Any) -> Any:
        session.output = output
        form = output or ("table" if is_terminal() else "csv")
        return function(session, *args, out=Output(session, form), **options)

    for names, (form, text) in reversed(FORCED.items()):
        wrapped = click.option(*names, "output", flag_value=form, default=None, help=text)(wrapped)
    return wrapped  # type: ignore[return-value]


def print_data(form: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Rows on stdout as csv, json or jsonl, with these columns in this order."""
    records = [{name: plain(row.get(name)) for name in names} for row in rows]
    if form == "csv":
        click.echo(_csv(names, records), nl=False)
    elif form == "jsonl":
        for record in records:
            click.echo(json.dumps(record, allow_nan=False))
    else:
        click.echo(json.dumps(records, indent=1, allow_nan=False))


def _csv(names: Sequence[str], records: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        writer.writerow([_csv_cell(record[name]) for name in names])
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(clean(part) for part in value)
    return clean(value) if isinstance(value, str) else value


def _width() -> int | None:
    """The terminal's own width; a fixed one when a table goes to a file, unless COLUMNS says otherwise."""
    if is_terminal() or os.environ.get("COLUMNS", "").isdigit():
        return None
    return _WIDTH_WITHOUT_TERMINAL
