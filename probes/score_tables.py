"""Tables of published scores, read with every row checked: the first that cannot be used is one error that names it. No torch.

Columns are step and value; layer and head, or neither for numbers about the whole model; metric, unit, range and run where
these are not said of the whole table. Nothing is guessed, rounded or left out. A table may come from anybody: its size, its
kinds and the grid of steps, layers and heads that readers will make of it are bounded.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.safe_read import read_text
from byrote.interp.axes import head_label
from byrote.probes.registry import OURS, REGISTRY
from byrote.probes.results.run_json import MAX_COUNT
from byrote.probes.spec import Better, ProbeInfo
from byrote.probes.stored_probes import MAX_PROBES
from byrote.probes.wording import clean, counted

COLUMNS = ("step", "layer", "head", "value", "metric", "unit", "range", "run")
MAX_ROWS = 2_000_000
MAX_CELLS = 20_000_000  # steps x layers x heads: readers hold a metric as such a grid
_NAME = re.compile(r"[A-Za-z]\w{0,63}(/[A-Za-z]\w{0,63})?", re.ASCII)
_WHOLE = re.compile(r"(\d{1,18})(\.0*)?", re.ASCII)
_LABEL = re.compile(r"[lL](\d{1,9})[hH](\d{1,9})", re.ASCII)
_RANGE = re.compile(r"\s*[\[(]?\s*([^\s,;\[\](]+)\s*(?:,|;|\.\.|\bto\b)\s*([^\s,;\])]+)\s*[\])]?\s*")
Head = tuple[int, int] | None


@dataclass(frozen=True)
class TableSettings:
    """What a table, or whoever imports it, says of its metrics; None or "" where nothing is said.

    Attributes:
        metric: name of the only metric, where no column says it.
        unit: of every metric.
        range: lowest and highest possible value of every metric.
        better: which direction is more of what the metric names.
        run: which of several runs in the table is meant.
    """

    metric: str = ""
    unit: str = ""
    range: tuple[float, float] | None = None
    better: Better | None = None
    run: str = ""


@dataclass
class Metric:
    """One metric of a table.

    Attributes:
        name: ``prefix_matching`` or ``repeat_loss/later_blocks``.
        unit, range: as the table or byrote's own description says; "" and None where nobody does.
        place: its first row.
        values: by (step, head); head is None for the whole model.
        places: the row of each.
    """

    name: str
    unit: str
    range: tuple[float, float] | None
    place: str
    values: dict[tuple[int, Head], float]
    places: dict[tuple[int, Head], str]


def read_scores(
    frame_or_path: pd.DataFrame | str | Path, settings: TableSettings
) -> tuple[dict[str, Metric], tuple[str, ...]]:
    """The metrics of a table by name, and the names of columns that mean nothing here.

    Args:
        frame_or_path: the table, or the path of a CSV file; commas, semicolons or tabs between cells.
        settings: those of the whole table.

    Raises:
        ByroteError: a row that cannot be used, named by its number (of a file: its line), or no table at all.
    """
    if isinstance(frame_or_path, pd.DataFrame):
        columns, rows = _frame_rows(frame_or_path)
    else:
        columns, rows = _csv_rows(Path(frame_or_path))
    return _read(columns, rows, settings), tuple(name for name in columns if name not in COLUMNS)


def range_of(value: Any, place: str) -> tuple[float, float]:
    """Two numbers, the lower one first, from text such as ``0,1`` or a pair.

    Raises:
        ByroteError: anything else.
    """
    match = _RANGE.fullmatch(value) if isinstance(value, str) else None
    ends = match.groups() if match else value if isinstance(value, list | tuple) else ()
    try:
        lo, hi = (float(end) for end in ends)
    except (TypeError, ValueError):
        lo, hi = math.nan, math.nan
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise _refused(place, f"has the range {_shown(value)}, not two numbers such as 0,1")
    return lo, hi


def parts(name: str) -> tuple[str, str]:
    """(probe, metric) of a name."""
    probe, _, metric = name.partition("/")
    return probe, metric or (REGISTRY[probe].main_metric if probe in OURS else "score")


# --- tables ----------------------------------------------------------------------------------------------------------


def _frame_rows(frame: pd.DataFrame) -> tuple[tuple[str, ...], Iterator[tuple[str, dict[str, Any]]]]:
    if len(frame) > MAX_ROWS:
        raise _too_many(len(frame))
    columns = _columns([str(name) for name in frame.columns], "the frame")
    known = [name for name in columns if name in COLUMNS]
    cells = [frame.iloc[:, columns.index(name)].tolist() for name in known]
    rows = zip(*cells, strict=True)
    return columns, (
        (f"row {i}", dict(zip(known, values, strict=True))) for i, values in enumerate(rows, start=1)
    )


def _csv_rows(path: Path) -> tuple[tuple[str, ...], Iterator[tuple[str, dict[str, Any]]]]:
    try:
        text = read_text(path, follow_links=True).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ByroteError(f"{path} is not UTF-8 text (byte {error.start:,})", help=_TABLE) from None
    except OSError as error:
        raise ByroteError(f"{path} cannot be read ({error.strerror})", help="name a CSV file") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def lines() -> Iterator[tuple[int, list[str]]]:
        while True:
            at = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise ByroteError(
                    f"row {at} of {path.name} cannot be read as CSV ({error})", help=_TABLE
                ) from None
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield at, cells

    found = lines()
    header = next(found, None)
    if header is None:
        raise ByroteError(f"{path} is empty", help=_TABLE)
    columns = _columns([name.strip().lower() for name in header[1]], path.name)

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for n, (at, cells) in enumerate(found, start=1):
            if n > MAX_ROWS:
                raise _too_many(n)
            if len(cells) != len(columns):
                raise _refused(f"row {at}", f"has {counted(len(cells), 'cell')}, the header {len(columns)}")
            yield f"row {at}", dict(zip(columns, cells, strict=True))

    return columns, rows()


_TABLE = "give a table with the columns step, layer, head and value, one row per number"


def _columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    for name in sorted({n for n in names if names.count(n) > 1 and n in COLUMNS}):
        raise ByroteError(f"{where} has the column {name!r} twice", help="give each column its own name")
    missing = [name for name in ("step", "value") if name not in names]
    if missing:
        shown = ", ".join(clean(n, limit=40) or "''" for n in names[:8])
        raise ByroteError(f"{where} has no column {missing[0]!r} (it has {shown})", help=_TABLE)
    if "layer" in names and "head" not in names:
        raise ByroteError(f"{where} has a column 'layer' and none called 'head'", help=_TABLE)
    return tuple(names)


def _too_many(n: int) -> ByroteError:
    return ByroteError(
        f"the table has {n:,} rows or more; at most {MAX_ROWS:,} are read",
        help="import fewer steps, or one metric at a time into a folder each",
    )


# --- rows ------------------------------------------------------------------------------------------------------------


def _read(
    columns: Sequence[str], rows: Iterator[tuple[str, dict[str, Any]]], settings: TableSettings
) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    runs: dict[str, str] = {}
    highest: dict[str, tuple[int, str]] = {"layer": (-1, ""), "head": (-1, "")}
    steps: set[int] = set()
    for place, cells in rows:
        of = _text(cells.get("run"))
        if settings.run and of != settings.run:
            runs.setdefault(of, place)
            continue
        runs.setdefault(of, place)
        if not settings.run and len(runs) > 1:
            one, other = list(runs)[:2]
            raise _refused(
                place,
                f"is of the run {clean(other)!r}, those before it of {clean(one)!r}",
                help="import one run at a time: --run NAME, and a folder for each",
            )
        step, head = _count(cells.get("step"), "step", place, MAX_COUNT), _head(cells, place)
        value = _number(cells.get("value"), place)
        found = _metric_of(cells, settings, place, metrics, of_head=head is not None)
        if (before := found.places.get((step, head))) is not None:
            whose = head_label(*head) if head else "the whole model"
            raise _refused(place, f"gives {found.name} of {whose} at step {step:,} again, after {before}")
        if found.range is not None and not found.range[0] <= value <= found.range[1]:
            limits = f"{found.range[0]:g} to {found.range[1]:g}"
            raise _refused(
                place, f"has the value {value:g}, and {found.name} lies within {limits}", help=_OTHER_NAME
            )
        found.values[step, head], found.places[step, head] = value, place
        steps.add(step)
        for axis, index in zip(highest, head or (), strict=False):
            highest[axis] = max(highest[axis], (index, place))
    if not metrics:
        if settings.run and runs:
            raise ByroteError(
                f"the table has no run {settings.run!r}", help=did_you_mean(settings.run, map(clean, runs))
            )
        raise ByroteError("the table has no rows", help=_TABLE)
    _refuse_large(highest, len(steps))
    return metrics


_OTHER_NAME = "give it another unit or another name: --metric NAME, --unit UNIT, --range 0,1"


def _refuse_large(highest: Mapping[str, tuple[int, str]], n_steps: int) -> None:
    cells = n_steps * (highest["layer"][0] + 1) * (highest["head"][0] + 1)
    if cells > MAX_CELLS:
        axis = max(highest, key=lambda name: highest[name][0])
        index, place = highest[axis]
        raise _refused(
            place,
            f"has {axis} {index:,}: {counted(n_steps, 'step')} of "
            f"{highest['layer'][0] + 1:,} layers with {highest['head'][0] + 1:,} heads are "
            f"{cells:,} places, and at most {MAX_CELLS:,} are shown",
            help="count layers and heads from 0; import fewer steps",
        )


def _metric_of(
    cells: Mapping[str, Any],
    settings: TableSettings,
    place: str,
    metrics: dict[str, Metric],
    *,
    of_head: bool,
) -> Metric:
    """The metric that a row is of, described by its first row and by what is said of the whole table."""
    name = _metric_name(_text(cells.get("metric")) or settings.metric, place)
    unit = _text(cells.get("unit")) or settings.unit
    limits = settings.range if _empty(cells.get("range")) else range_of(cells["range"], place)
    found = metrics.get(name)
    if found is None:
        if len(metrics) == MAX_PROBES:
            raise _refused(place, f"has metric number {MAX_PROBES + 1}; a run holds at most {MAX_PROBES}")
        found = metrics[name] = Metric(name, unit, limits, place, {}, {})
        own = _own(name, place)
        if own is not None:
            _refuse_other_meaning(found, own, place, of_head=of_head)
            found.unit, found.range = own.unit_of(parts(name)[1]), _own_range(own, parts(name)[1])
        return found
    own_given = name.partition("/")[0] in OURS
    if not own_given and (unit, limits) != (found.unit, found.range):
        raise _refused(place, f"gives {name} another unit or range than {found.place}")
    if of_head != (next(iter(found.values))[1] is not None):
        raise _refused(
            place,
            f"gives {name} {'of a head' if of_head else 'of the whole model'}, and {found.place} "
            f"{'of the whole model' if of_head else 'of a head'}",
            help="give what is about the whole model a metric of its own",
        )
    return found


def _metric_name(text: str, place: str) -> str:
    name = re.sub(r"[\s-]+", "_", text.strip()) or "score"
    if not _NAME.fullmatch(name):
        raise _refused(
            place,
            f"is of the metric {clean(text, limit=60)!r}, which is not a name of letters, digits and _",
            help="such as prefix_matching, or repeat_loss/later_blocks",
        )
    return name


def _own(name: str, place: str) -> ProbeInfo | None:
    """byrote's own description of a metric by that name; None for every other."""
    probe, metric = parts(name)
    if probe not in OURS:
        return None
    info = REGISTRY[probe]
    if metric not in info.metrics:
        raise _refused(
            place, f"is of {name}, and {probe} has no such metric", help=did_you_mean(metric, info.metrics)
        )
    if info.kind == "verdict":
        raise _refused(
            place, f"is of {name}: verdicts are byrote's own judgement", help="give it another name"
        )
    return info


def _own_range(info: ProbeInfo, metric: str) -> tuple[float, float] | None:
    return info.range if info.unit_of(metric) == info.unit else None


def _refuse_other_meaning(found: Metric, own: ProbeInfo, place: str, *, of_head: bool) -> None:
    metric = parts(found.name)[1]
    unit, limits = own.unit_of(metric), _own_range(own, metric)
    if (own.kind == "model") == of_head:
        whose = "the whole model" if own.kind == "model" else "heads"
        raise _refused(
            place, f"is of {found.name}, byrote's name of a number about {whose}", help="give it another name"
        )
    if (found.unit and found.unit != unit) or (found.range and limits and found.range != limits):
        raise _refused(
            place,
            f"is of {found.name}, byrote's name of a number in {unit!r}, and the table says another unit or range",
            help="give it another name: --metric NAME",
        )


def _head(cells: Mapping[str, Any], place: str) -> Head:
    layer, head = cells.get("layer"), cells.get("head")
    if "layer" not in cells and isinstance(head, str) and (label := _LABEL.fullmatch(head.strip())):
        return int(label[1]), int(label[2])
    if _empty(layer) and _empty(head):
        return None
    if _empty(layer) or _empty(head):
        lacking = "layer" if _empty(layer) else "head"
        raise _refused(place, f"has no {lacking}", help="both, or neither for a number about the whole model")
    return _count(layer, "layer", place, 100_000), _count(head, "head", place, 100_000)


def _count(value: Any, name: str, place: str, most: int) -> int:
    """A whole number from 0, as an integer, a float without decimals, or text."""
    found = None
    if isinstance(value, str):
        found = int(match[1]) if (match := _WHOLE.fullmatch(value.strip())) else None
    elif _is_number(value) and math.isfinite(value) and value == int(value) and value >= 0:
        found = int(value)
    if found is None or found > most:
        raise _refused(place, f"has {name} {_shown(value)}, not a whole number from 0 to {most:,}")
    return found


def _number(value: Any, place: str) -> float:
    found = math.nan
    if isinstance(value, str):
        try:
            found = float(value) if "_" not in value else math.nan
        except ValueError:
            found = math.nan
    elif _is_number(value):
        found = float(value)
    if not math.isfinite(found):
        raise _refused(
            place,
            f"has the value {_shown(value)}, not a finite number",
            help="leave out rows of what was not measured",
        )
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _empty(value: Any) -> bool:
    return (
        value is None
        or value is pd.NA
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _text(value: Any) -> str:
    return "" if _empty(value) else str(value).strip()


def _shown(value: Any) -> str:
    return "that is empty" if _empty(value) and not isinstance(value, float) else clean(repr(value), limit=40)


def _refused(place: str, what: str, *, help: str = _TABLE) -> ByroteError:
    return ByroteError(f"{place} {what}", help=help)
