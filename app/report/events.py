"""What happened when, for the timeline: onsets in one table, the rest in sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.probes.results import Results
from byrote.probes.trajectory import event_head, events
from byrote.probes.wording import clean, number, probe_name, sentence_case, step_number
from byrote.report.model import Block, Listing, Table, Term, Value
from byrote.report.scene import Scene, seeds_of

_LEVELS = ("onset_10", "onset_50", "onset_90")
_SENTENCES = ("phase_window", "turnover", "lead_lag", "onset")
_KEY = ["probe", "metric", "layer", "head"]
MAX_ROWS = 60


def event_blocks(scene: Scene) -> list[Block]:
    """The table of onsets, peaks and decays of every run, and what else can be said of its course in sentences."""
    found = [(r, events(r)) for r in scene.measured]
    rows = [row for results, table in found for row in _rows(results, table)]
    sentences = [
        f"{clean(results.run)}: {row.text}."
        for results, table in found
        for row in table[table["event"].isin(_SENTENCES)].itertuples(index=False)
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(
            Table(
                name="events-table",
                caption="When each number had made 10, 50 and 90% of its change: the step, and in brackets its 95% "
                "interval, which is never narrower than the two measured steps around it. “Best at” and “lost since” "
                "are given where the last step is surely worse than the best one. All of it is in `byrote show --events`. "
                + seeds_of(scene.measured),
                columns=("Run", "Measure", "Head", "10%", "50%", "90%", "Best at", "Lost since", "n"),
                rows=tuple(rows[:MAX_ROWS]),
                n_left_out=max(0, len(rows) - MAX_ROWS),
            )
        )
    return [*blocks, Listing(tuple(sentences))] if sentences else blocks


def _rows(results: Results, table: pd.DataFrame) -> list[tuple[Value, ...]]:
    """One row per curve that has an onset."""
    known = table[table["event"].isin((*_LEVELS, "peak", "decay"))]
    return [_row(results, mine) for _, mine in known.groupby(_KEY, sort=False, dropna=False)]


def _row(results: Results, mine: pd.DataFrame) -> tuple[Value, ...]:
    by_event = {row.event: row for row in mine.itertuples(index=False)}
    first = next(iter(by_event.values()))
    decay = by_event.get("decay")
    lost = (
        "–"
        if decay is None
        else f"{_percent(decay.value)} [{_percent(decay.value_lo)}, {_percent(decay.value_hi)}]"
    )
    name = sentence_case(probe_name(first.probe))
    measure: Value = name if first.metric == "score" else Term(name, probe_name(first.metric))
    return (
        clean(results.run, limit=40),
        measure,
        event_head(first) or "whole model",
        *(_when(by_event.get(level)) for level in _LEVELS),
        _when(by_event.get("peak")),
        lost,
        int(first.n),
    )


def _when(row: Any | None) -> str:
    if row is None:
        return "–"
    if pd.isna(row.step):
        return f"by step {step_number(row.step_hi)}"
    ends = [("…" if pd.isna(end) else step_number(round(end))) for end in (row.lo, row.hi)]
    return f"{step_number(round(row.step))} [{ends[0]}, {ends[1]}]"


def _percent(share: float) -> str:
    return f"{number(100 * share, places=0)}%"
