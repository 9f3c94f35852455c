"""One family of outputs for every verb that prints data: a table on a terminal, tidy CSV otherwise, JSON on request.

In JSON what is not there is null, never NaN; in CSV it is an empty cell. Text is made safe for a terminal in tables and
CSV; JSON is written in ASCII, where escapes are harmless, and keeps it exactly.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from byrote.cli.session import Session, is_terminal
from byrote.cli.table import Column, Row, print_table
from byrote.probes.wording import plain, visible

F = TypeVar("F", bound=Callable[..., Any])

FORCED = {
    ("-t", "--table"): ("table", "Print a table even when stdout is not a terminal."),
    ("--csv",): ("csv", "Print tidy CSV, one row per number."),
    ("--json",): ("json", "Print a JSON array of rows; errors become objects too."),
    ("--jsonl",): ("jsonl", "Print one JSON object per line."),
}
_PROSE_WIDTH = 100


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
            columns: in order; one whose name starts with "_" is for tables only.
            rows: by column name; what is not there or NaN becomes null.
            title: above a table.
            group: column whose value heads a block of a table's rows instead of being repeated in each.
        """
        rows = list(rows)
        if self.machine:
            print_data(self.form, [c.name for c in columns if not c.name.startswith("_")], rows)
            return
        left_out = print_table(self.session, columns, rows, title=title, group=group)
        if left_out:
            self.session.note(f"too narrow for: {', '.join(left_out)}; a wider terminal or --csv has them")


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
        return " ".join(visible(part) for part in value)
    return visible(value) if isinstance(value, str) else value
