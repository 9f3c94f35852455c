"""What changed between two reports: their JSON files, cell by cell.

1. tables and lists are found by the names of their section and of their own; rows by what does not measure: measure, run, head
2. a cell that is an estimate changed when its value, interval or n did; it moved beyond its interval where the intervals of
   old and new do not meet
3. sentences, alerts and runs are compared as sets
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import FileRefused, read_json
from byrote.probes.wording import clean, interval, number, sentence_case
from byrote.report import SCHEMA, SCHEMA_VERSION

MAX_BYTES, MAX_VALUES = 64 * 2**20, 4_000_000
_ESTIMATE, _WORDS = {"value", "lo", "hi", "chance", "n"}, {"text", "tone", "detail"}
_NAMES_OF_ROWS = (
    "Measure", "Run", "Head", "Arm", "Probe", "Metric", "Step", "Where", "Dose", "Size", "",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One thing that differs.

    Attributes:
        kind: "title", "status", "run", "alert", "sentence", "row" or "value".
        where: section and table, and the row and column of a value.
        old, new: what stands there; "" where it does not.
        beyond: of a value, whether the two intervals do not meet; None of all else.
    """

    kind: str
    where: str
    old: str
    new: str
    beyond: bool | None = None


def read_report(place: Path) -> dict[str, Any]:
    """The JSON of a report: that file, the page beside it, or the folder of both.

    Raises:
        ByroteError: there is none, or it is no report of this version's schema.
    """
    found = place / "report.json" if place.is_dir() else place.with_suffix(".json")
    try:
        data = read_json(found, max_bytes=MAX_BYTES, max_values=MAX_VALUES)
    except FileNotFoundError:
        raise ByroteError(
            f"{place} is no report: {found.name} is not there",
            help="name a folder that `byrote report` wrote",
        ) from None
    except (FileRefused, OSError) as error:
        raise ByroteError(f"{found} cannot be read as a report ({error})", help="write it again") from None
    if data.get("schema") != SCHEMA or data.get("schema_version") != SCHEMA_VERSION:
        named = f"{data.get('schema')!r} {data.get('schema_version')!r}"
        help_ = f"this byrote reads {SCHEMA!r} {SCHEMA_VERSION}; write both reports with it"
        raise ByroteError(f"{found} is no report: its schema is {named}", help=help_)
    return data


def is_report(place: Path) -> bool:
    """Whether a path is a report and no results folder."""
    if place.is_dir():
        return (place / "report.json").is_file() and not (place / "run.json").is_file()
    return place.suffix.lower() in (".json", ".html") and place.is_file()


def report_changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Everything in which two reports differ, values that moved beyond their intervals first.

    Args:
        old, new: as `read_report` returns them; the date is not compared.
    """
    found = [
        Change(kind, "head", _text(old.get(kind)), _text(new.get(kind)))
        for kind in ("title", "status")
        if old.get(kind) != new.get(kind)
    ]
    for kind, key, name in (("run", "runs", "name"), ("alert", "alerts", "text")):
        found += _of_sets(
            kind, "head", *([_text(one.get(name)) for one in _dicts(side, key)] for side in (old, new))
        )
    tables = [dict(_tables(side)) for side in (old, new)]
    sentences = [dict(_sentences(side)) for side in (old, new)]
    for where in dict.fromkeys((*sentences[0], *sentences[1])):
        found += _of_sets("sentence", where, *(side.get(where, []) for side in sentences))
    for where in dict.fromkeys((*tables[0], *tables[1])):
        found += _of_tables(where, *(side.get(where, {}) for side in tables))
    return sorted(found, key=lambda one: (one.kind == "value", not one.beyond))


def _of_sets(kind: str, where: str, old: list[str], new: list[str]) -> list[Change]:
    gone = [Change(kind, where, text, "") for text in old if text not in new]
    return gone + [Change(kind, where, "", text) for text in new if text not in old]


def _of_tables(
    where: str, old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]
) -> Iterator[Change]:
    yield from _of_sets("row", where, list(old), list(new))
    for row in [name for name in old if name in new]:
        for column, before in old[row].items():
            after = new[row].get(column)
            if column in new[row] and before != after and not _drawn(before):
                place = " · ".join(part for part in (where, row, column) if part)
                yield Change("value", place, _text(before), _text(after), _beyond(before, after))


def _tables(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Section and table -> row -> column -> cell."""
    for section in _dicts(report, "sections"):
        for block in _dicts(section, "blocks"):
            table = block.get("table", block)
            if not isinstance(table, dict) or table.get("kind") != "table":
                continue
            yield (
                f"{_text(section.get('title'))}, {_text(table.get('name'))}",
                _by_name(_dicts(table, "rows")),
            )


def _by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by what they are about: the columns that name and do not measure, the first one where none does."""
    named: dict[str, dict[str, Any]] = {}
    for row in rows:
        columns = [column for column in _NAMES_OF_ROWS if column in row] or list(row)[:1]
        name = " ".join(_text(row[column]) for column in columns)
        named.setdefault(name, {column: cell for column, cell in row.items() if column not in columns})
    return named


def _sentences(report: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Section -> its sentences."""
    for section in _dicts(report, "sections"):
        blocks = _dicts(section, "blocks")
        sentences = [_text(block.get("text")) for block in blocks if block.get("kind") == "prose"]
        sentences += [
            _text(item)
            for block in blocks
            if block.get("kind") == "listing"
            for item in block.get("items") or ()
        ]
        yield _text(section.get("title")), sentences


def _dicts(node: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a list, whatever else a stranger's file holds there."""
    found = node.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _drawn(cell: Any) -> bool:
    """Whether a cell is a curve as small as a word, whose numbers are elsewhere."""
    return isinstance(cell, dict) and "values" in cell


def _beyond(old: Any, new: Any) -> bool | None:
    """Whether two intervals do not meet; None where either is none."""
    known = [_ends(one) for one in (old, new)]
    if known[0] is None or known[1] is None:
        return None
    (lo_old, hi_old), (lo_new, hi_new) = known[0], known[1]
    return hi_old < lo_new or hi_new < lo_old


def _ends(cell: Any) -> tuple[float, float] | None:
    lo, hi = (cell.get("lo"), cell.get("hi")) if isinstance(cell, dict) else (None, None)
    return (float(lo), float(hi)) if isinstance(lo, (int, float)) and isinstance(hi, (int, float)) else None


def _text(cell: Any) -> str:
    """A cell as its table shows it."""
    if isinstance(cell, dict) and cell.keys() >= _ESTIMATE:
        if not isinstance(cell["value"], (int, float)):
            return f"not measured: {clean(cell.get('reason'))}"
        shown = interval(
            cell["value"],
            *(cell[end] if isinstance(cell[end], (int, float)) else None for end in ("lo", "hi")),
        )
        return " ".join(part for part in (clean(cell.get("where") or ""), shown, _n(cell.get("n"))) if part)
    if isinstance(cell, dict) and cell.keys() >= _WORDS:
        return clean(cell["text"]) + (f" ({clean(cell['detail'])})" if cell["detail"] else "")
    if isinstance(cell, float):
        return number(cell)
    return "" if cell is None else clean(cell, limit=600)


def _n(n: Any) -> str:
    return f"n={n:,}" if isinstance(n, int) and n else ""


def changes_sentence(changes: list[Change]) -> str:
    """How much differs, in one sentence."""
    if not changes:
        return "The two reports say the same"
    values = [one for one in changes if one.kind == "value"]
    beyond = sum(bool(one.beyond) for one in values)
    others = len(changes) - len(values)
    parts = [f"{beyond} of {len(values)} values that changed moved beyond both intervals"] if values else []
    parts += [f"{others} runs, alerts, sentences or rows differ"] if others else []
    return sentence_case("; ".join(parts))
