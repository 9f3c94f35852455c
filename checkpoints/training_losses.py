"""Training losses that other tools logged: `trainer_state.json`, Weights & Biases exports, CSV logs, TensorBoard event files.

A curve has the training's own steps; a checkpoint gets the loss that was logged last at or before its step, as the Trainer's
`trainer_state.json` beside it gives it. Files may be of anybody: they are limited in size before they are read, and what
is no finite number is left out.
"""

from __future__ import annotations

import csv
import io
import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.formats.trainer_state import count_or_none, number_or_none
from byrote.checkpoints.safe_read import FileRefused, read_json, read_text
from byrote.checkpoints.series import CheckpointSeries
from byrote.checkpoints.step_names import MAX_COUNT

MAX_BYTES = 64 << 20  # a million steps of a log with a few numbers
MAX_ROWS = 5_000_000
MAX_COLUMNS = 10_000
STEPS = ("train/global_step", "trainer/global_step", "global_step", "step", "_step")
"""Names of the training's own count of steps, the surest first; case does not matter. W&B's `_step` counts calls of log."""
LOSSES = (
    "train/loss", "train_loss", "loss/train", "training_loss", "train/train_loss", "train_loss_step", "train/loss_step",
    "train_loss_epoch", "train/loss_epoch", "loss",
)  # fmt: skip
"""Names of the training loss, the surest first; case does not matter."""
_EVENTS = "tfevents"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LossCurve:
    """A training loss over steps.

    Attributes:
        steps: of training, ascending, each once.
        nats: the loss logged at each.
        name: what the file calls it.
        source: name of the file or folder.
        warnings: what could not be read of it.
    """

    steps: tuple[int, ...]
    nats: tuple[float, ...]
    name: str
    source: str
    warnings: tuple[str, ...] = ()

    def at(self, step: int) -> float | None:
        """The loss logged last at or before a step; None before the first."""
        place = bisect_right(self.steps, step)
        return self.nats[place - 1] if place else None


def with_losses(series: CheckpointSeries, curve: LossCurve) -> CheckpointSeries:
    """A series with the losses of a curve; where the curve has none yet, its own stay.

    Args:
        series: of the training that logged the curve.
        curve: see `read_losses`.
    """
    found = (replace(c, loss_nats=curve.at(c.step)) if curve.at(c.step) is not None else c for c in series)
    note = f"training loss: {curve.name} of {curve.source}"
    return replace(series, checkpoints=tuple(found), notes=(*series.notes, note))


def read_losses(path: Path, *, name: str | None = None) -> LossCurve:
    """The training loss in a file, or in a folder of TensorBoard event files.

    Args:
        path: `trainer_state.json`; JSON or JSON lines of rows, as `run.history()` of W&B gives them; CSV, as W&B and Lightning
            export it; or event files.
        name: of the loss in it; the first of `LOSSES` that is there if left out.

    Raises:
        ByroteError: it is not there, too large, none of these, or has no such loss or no steps.
    """
    try:
        if path.is_dir() or _EVENTS in path.name:
            from byrote.checkpoints.event_files import read_event_files

            curves, warnings = read_event_files(path)
            return _curve(curves, path, name, warnings)
        curves = _columns(list(_rows(path)), path)
    except FileNotFoundError:
        raise ByroteError(
            f"{path} does not exist", help="give a file with the losses of this training"
        ) from None
    except (FileRefused, OSError) as error:
        message = getattr(error, "message", f"{path} cannot be read ({getattr(error, 'strerror', error)})")
        raise ByroteError(message, help="give a file with the losses of this training") from None
    return _curve(curves, path, name, ())


def _curve(
    curves: Mapping[str, Sequence[tuple[int, float]]], path: Path, name: str | None, warnings: Iterable[str]
) -> LossCurve:
    chosen = _chosen(list(curves), path, name)
    logged = dict(sorted(curves[chosen], key=lambda point: point[0]))  # of one step, what was logged last
    return LossCurve(tuple(logged), tuple(logged.values()), chosen, path.name, tuple(warnings))


def _chosen(names: list[str], path: Path, name: str | None) -> str:
    """The name requested, or the training loss: as it is, or after W&B's ``run - ``."""
    if name is not None:
        if name not in names:
            help = did_you_mean(name, names[:100]) if names else "it has no numbers by step"
            raise ByroteError(f"{path} has no {name!r} by step", help=help)
        return name
    own = {one: one.rpartition(" - ")[2].strip().lower() for one in names}
    for wanted in LOSSES:
        found = [one for one in names if own[one] == wanted]
        if len(found) > 1:
            raise ByroteError(
                f"{path} has {wanted} of {len(found)} runs", help=f"name one: --loss-name {found[0]!r}"
            )
        if found:
            return found[0]
    shown = ", ".join(repr(one[:60]) for one in names[:8])
    raise ByroteError(
        f"{path} has no training loss by step under a known name",
        help=f"name it with --loss-name; the file has {shown}" if names else "it has no numbers by step",
    )


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a log, each by name of its columns."""
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from _csv_rows(path)
        return
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
        return
    data = read_json(path, kind=None, max_bytes=MAX_BYTES, max_values=MAX_ROWS, follow_links=True)
    rows = data.get("log_history", data.get("history")) if isinstance(data, dict) else data
    if isinstance(data, dict) and rows is None and any(isinstance(value, dict) for value in data.values()):
        rows = _by_row(data)
    if not isinstance(rows, list):
        raise FileRefused(f"{path} holds no rows: neither a list, nor a log_history")
    yield from (row for row in rows if isinstance(row, dict))


def _by_row(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of ``{column: {row: value}}``, as pandas writes a data frame."""
    rows: dict[str, dict[str, Any]] = {}
    for name, values in columns.items():
        for row, value in values.items() if isinstance(values, dict) else ():
            rows.setdefault(row, {})[name] = value
    return list(rows.values())


def _json_lines(path: Path) -> Iterator[Row]:
    for i, line in enumerate(read_text(path, max_bytes=MAX_BYTES, follow_links=True).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise FileRefused(f"line {i:,} of {path} is not JSON") from None
        if isinstance(row, dict):
            yield row


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        text = read_text(path, max_bytes=MAX_BYTES, follow_links=True)
    except UnicodeDecodeError:
        raise FileRefused(f"{path} is not UTF-8 text") from None
    between = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        table = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=between)
        names = table.fieldnames or []
        if len(names) > MAX_COLUMNS:
            raise FileRefused(f"{path} has {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
        for row in table:
            yield {key: _number(value) for key, value in row.items() if isinstance(key, str)}
    except csv.Error as error:
        raise FileRefused(f"{path} cannot be read as CSV ({error})") from None


def _number(text: Any) -> Any:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return int(value) if value.is_integer() and abs(value) < MAX_COUNT else value


def _columns(rows: Sequence[Row], path: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, number) of every column but the steps."""
    names = dict.fromkeys(key for row in rows for key in row if isinstance(key, str))
    by_word = {name.rpartition(" - ")[2].strip().lower(): name for name in reversed(names)}
    steps = [by_word[word] for word in STEPS if word in by_word]
    if rows and not steps:
        shown = ", ".join(repr(name[:60]) for name in list(names)[:8])
        raise FileRefused(f"{path} names no steps: it has {shown}, and none of {', '.join(STEPS)}")
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        step = next((n for name in steps if (n := _step(row.get(name))) is not None), None)
        if step is None:
            continue
        for name, value in row.items():
            if name not in steps and (number := number_or_none(value)) is not None:
                found.setdefault(str(name), []).append((step, number))
    return {name: points for name, points in found.items() if not name.endswith(("__MIN", "__MAX"))}


def _step(value: Any) -> int | None:
    whole = int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value
    return count_or_none(whole)
