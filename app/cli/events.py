"""The events of a run, for `byrote show --events`: columns and rows. No verb of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from byrote.cli.output import Column, Row
from byrote.probes.findings import sequence_seed
from byrote.probes.wording import MISSING, bracket, count, number, plain

if TYPE_CHECKING:
    from byrote.probes.store import Results

_WHOLE = "model"


def _place(value: Any) -> str:
    """A step between measured ones, rounded to whole steps."""
    return number(value, places=0)


def _interval(row: Row) -> str:
    """Ends of the step's interval; an open end is an ellipsis, no interval at all a dash."""
    if row["lo"] is None and row["hi"] is None:
        return MISSING
    return f"[{_end(row['lo'])}, {_end(row['hi'])}]"


def _end(value: Any) -> str:
    return "…" if value is None else _place(value)


def _between(row: Row) -> str:
    if row["step_hi"] is None:
        return MISSING if row["step_lo"] is None else f"{count(row['step_lo'])}–"
    return bracket(row["step_lo"], row["step_hi"])


COLUMNS = (
    Column("run"),
    Column("event", "event"),
    Column("probe"),
    Column("metric", "metric"),
    Column("_head", "head", lambda row: row["head"] or _WHOLE),
    Column("layer"),
    Column("head"),
    Column("step_lo"),
    Column("step_hi"),
    Column("step", "step", lambda row: _place(row["step"]), right=True),
    Column("_interval", "95% interval", _interval, right=True),
    Column("_between", "measured", _between, right=True),
    Column("lo"),
    Column("hi"),
    Column("tokens"),
    Column("value", "value", lambda row: number(row["value"]), right=True),
    Column("value_lo"),
    Column("value_hi"),
    Column("n", "n", right=True),
    Column("seed"),
    Column("method"),
    Column("text"),
)


def event_rows(results: Results, probes: Collection[str]) -> Iterator[dict[str, Any]]:
    """Events of these probes, of all when none is named; `head` as a label."""
    from byrote.probes.trajectory import event_head, events

    seed = sequence_seed(results) or 0
    for row in events(results, seed=seed).itertuples(index=False):
        if not probes or row.probe in probes:
            cells = {name: plain(value) for name, value in row._asdict().items()}
            yield cells | {"run": results.run, "head": event_head(row) or None, "seed": seed}
