"""The tables under figures, made of each figure's own numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from byrote.probes.figures import Figure
from byrote.probes.figures.head_grid import spaced_steps
from byrote.probes.figures.select import counts_in_words
from byrote.probes.results import Results
from byrote.probes.wording import chance_number, clean, plain, probe_name, sentence_case
from byrote.report.model import Estimate, Picture, Table, Value
from byrote.report.report_inputs import seeds_of

MAX_ROWS = 48
MAX_CELLS = 400
MAX_COLUMNS = 10  # of lines over steps; of more, each is a row
N_PEAKS = 5  # of every column of a long table, beside the rows spread over it


def picture(name: str, figure: Figure, runs: Sequence[Results]) -> Picture:
    """A figure with the table of its numbers.

    Args:
        name: unique in the report.
        figure: of `byrote.probes.figures`.
        runs: whose numbers are drawn; the caption gives their seeds.
    """
    table, seeds = figure.table, seeds_of(runs)
    title = html.unescape(str(figure.layout.title.text))
    if not figure.by:
        return Picture(name, figure, frame_table(f"{name}-table", f"{title}. {seeds}", table))
    rows, columns = figure.by
    first = "" if rows != "head" else " Strongest heads of the last column first."
    return Picture(
        name,
        figure,
        _by_two(
            f"{name}-table",
            f"{title}.{first} {figure.counts or counts_in_words(table)} {seeds}",
            table,
            rows,
            columns,
        ),
    )


def frame_table(name: str, caption: str, frame: pd.DataFrame) -> Table:
    """Any frame as a table; of more rows than a page has room for, as many spread evenly over it."""
    shown = frame
    if len(frame) > MAX_CELLS // max(1, frame.shape[1]):
        wanted = max(MAX_ROWS, MAX_CELLS // frame.shape[1])
        shown = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(wanted, len(frame))).astype(int))]
    rows = tuple(tuple(_cell(v) for v in row) for row in shown.itertuples(index=False, name=None))
    heads = tuple(sentence_case(probe_name(str(column))) for column in frame.columns)
    return Table(name, caption, heads, rows, n_left_out=len(frame) - len(shown), group_columns=0)


def estimate_of(row: Any, *, where: str = "") -> Estimate:
    """An observation row as an `Estimate`."""
    if not row.valid:
        return Estimate(None, where=where, reason=str(row.reason) or "no reason was recorded")
    return Estimate(float(row.value), float(row.lo), float(row.hi), plain(row.chance), int(row.n or 0), where)


def _by_two(name: str, caption: str, table: pd.DataFrame, rows: str, columns: str) -> Table:
    """A tidy table as one row per step, copy or head, and one column per line or panel."""
    table = table.assign(valid=table["value"].notna(), reason=table["reason"].fillna(""))
    names = list(dict.fromkeys(table[columns]))
    cells: dict[tuple[Any, Any], Estimate] = {}
    for key, column, row in zip(table[rows], table[columns], table.itertuples(index=False), strict=True):
        shown = str(row.where) if row.valid and row.where != column else ""
        cells.setdefault((key, column), estimate_of(row, where=shown))
    keys = list(dict.fromkeys(table[rows]))
    by_column = table.groupby(columns, sort=False)["chance"].median()
    several = by_column.nunique() > 1 and (table.groupby(columns)["chance"].nunique() <= 1).all()
    if rows == "step" and len(names) > MAX_COLUMNS:  # more lines than fit beside each other on paper
        keys = [int(k) for k in spaced_steps(keys, most=MAX_COLUMNS)]
        heads = [sentence_case(columns), *(f"Step {key:,}" for key in keys), *(["Chance"] if several else [])]
        lines = (
            [
                clean(str(n)),
                *(cells.get((k, n)) for k in keys),
                *([chance_number(by_column[n])] if several else []),
            ]
            for n in names
        )
        more = (table[rows].nunique() - len(keys)) * len(names)
        return Table(name, caption, tuple(heads), tuple(map(tuple, lines)), n_left_out=more)
    if pd.api.types.is_numeric_dtype(table[rows]):
        best = table.sort_values("value", ascending=False, kind="stable").groupby(columns, sort=False)
        keys = spaced_steps(keys, most=MAX_ROWS, keep=[int(k) for k in best.head(N_PEAKS)[rows]])
        keys = [int(k) for k in keys]
    else:
        keys = keys[: max(1, MAX_CELLS // max(1, len(names)))]
    head = [sentence_case(rows), *(clean(str(column)) for column in names)]
    body: list[list[Value]] = [
        [f"{key:,}" if isinstance(key, int) else str(key), *(cells.get((key, column)) for column in names)]
        for key in keys
    ]
    by_row = table.groupby(rows, sort=False)["chance"].median()
    if rows != "head" and several:
        body.append(["Chance", *(chance_number(by_column[column]) for column in names)])
    elif by_row.nunique() > 1 and rows != "step":
        head.append("Chance")
        for key, cell_row in zip(keys, body, strict=True):
            cell_row.append(chance_number(by_row[key]))
    return Table(
        name, caption, tuple(head), tuple(map(tuple, body)), n_left_out=table[rows].nunique() - len(keys)
    )


def _cell(value: Any) -> Value:
    value = plain(value)
    return value if value is None or isinstance(value, (int, float)) else clean(str(value), limit=300)
