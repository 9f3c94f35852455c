"""Tables for people: as wide as they need to be, never wider than the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byrote.cli.session import Session, is_terminal
from byrote.probes.wording import bounds, plain, point, visible

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]
_WIDTH_WITHOUT_TERMINAL = 120
_FOLDED = 30  # a folded column is not squeezed below this while others can go


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as CSV and JSON have it; stable.
        title: above the table's column; None leaves it out of the table.
        show: a row as the table's cell; the value itself where None.
        right: align numbers right.
        fold: wrap long text instead of keeping the cell in one line.
        wide: leave it out of a table that would not fit otherwise.
    """

    name: str
    title: str | None = None
    show: Callable[[Row], str] | None = None
    right: bool = False
    fold: bool = False
    wide: bool = False

    def cell(self, row: Row) -> str:
        """Text of one table cell."""
        if self.show:
            return visible(self.show(row))
        value = plain(row.get(self.name))
        return "" if value is None else visible(value)


def point_cell(row: Row) -> str:
    """A row's value as a table cell, with the digits its interval deserves."""
    return point(row["value"], row["lo"], row["hi"])


def bounds_cell(row: Row) -> str:
    """A row's 95% interval as a table cell."""
    return bounds(row["value"], row["lo"], row["hi"])


def print_table(
    session: Session, columns: Sequence[Column], rows: Sequence[Row], *, title: str, group: str | None
) -> list[str]:
    """Print rows as a table on stdout.

    Args:
        session: says whether colour is wanted.
        columns: those with a title are shown, and of those the ones that have something in some row.
        rows: by column name.
        title: printed above.
        group: column whose value heads a block of rows.

    Returns:
        Titles of the columns left out because the terminal is too narrow.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(session)
    shown = [c for c in columns if c.title is not None and (not rows or any(c.cell(row) for row in rows))]
    shown, gap, left_out = _fitted(shown, rows, console.width, indent=2 if group else 0)
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
    """Columns that fit, the gap between them, and the titles of those that had to go, the last wide one first."""
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
            return columns, 1, left_out
        left_out.insert(0, wide[-1].title or "")
        columns = [column for column in columns if column is not wide[-1]]


def _console(session: Session) -> Console:
    from rich.console import Console

    fixed = None if is_terminal() or os.environ.get("COLUMNS", "").isdigit() else _WIDTH_WITHOUT_TERMINAL
    return Console(
        file=sys.stdout,
        no_color=not session.color(sys.stdout),
        highlight=False,
        markup=False,
        emoji=False,
        width=fixed,
    )
