"""When the verdict first holds: onsets of called heads and of the induction circuit. No torch.

An onset is known only up to the measured steps around it, so it is given as a bracket: not there at the first step,
there at the second. It must last: a head called at one step and gone at the next measured one has no onset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from byrote.probes.results.table import Table
from byrote.probes.rules import is_called, is_lasting


@dataclass(frozen=True)
class Onset:
    """First lasting appearance of something.

    Attributes:
        found: whether it appears at all.
        head: label of the head that shows it first, "" when none.
        bracket: (last measured step without it, or None when it is there from the start; first step with it).
        tokens: the same bracket in training tokens, None where unknown.
        heads_at_end: labels of the heads that have it at the last step.
        text: the finding in words.
        measured: whether the verdict was given on any head at any step.
    """

    found: bool
    head: str
    bracket: tuple[int | None, int] | None
    tokens: tuple[int | None, int | None] | None
    heads_at_end: tuple[str, ...]
    text: str
    measured: bool = True


def onset(results: Table) -> Onset:
    """When the first lasting induction head appears.

    Lasting: still called at the next measured step, or first called at the last one.

    Args:
        results: of one run, with the `induction` verdict.
    """
    table = verdict_table(results)
    if table.isna().all(axis=None):  # an empty one too
        return Onset(False, "", None, None, (), "the induction verdict was not measured", measured=False)
    at_end = tuple(str(head) for head in table.columns[table.iloc[-1] == 1])
    first = _first_lasting(table)
    if first is None:
        called = table.eq(1).any().any()
        text = (
            "induction heads are called at single steps but none lasts"
            if called
            else "no induction head at any step"
        )
        return Onset(False, "", None, None, at_end, text)
    index, head = first
    steps = [int(step) for step in table.index]
    bracket = (steps[index - 1] if index else None, steps[index])
    before, at = bracket
    tokens = (None if before is None else results.tokens[before], results.tokens[at])
    return Onset(True, head, bracket, tokens, at_end, _onset_text(head, bracket, at_end))


def head_onsets(results: Table) -> pd.DataFrame:
    """Onset bracket of every head that is ever called: columns head, step_before, step_at, called_at_end."""
    table = verdict_table(results)
    rows = []
    for head in table.columns:
        first = _first_lasting(table[[head]])
        if first is None:
            continue
        index = first[0]
        rows.append(
            {
                "head": head,
                "step_before": int(table.index[index - 1]) if index else None,
                "step_at": int(table.index[index]),
                "called_at_end": bool(table[head].iloc[-1] == 1),
            }
        )
    return pd.DataFrame(rows, columns=["head", "step_before", "step_at", "called_at_end"])


def verdict_table(results: Table) -> pd.DataFrame:
    """Induction verdicts: one row per step, one column per head label; NaN where not measured."""
    return results.by_head("induction", "verdict")


def best_head(results: Table, probe: str, step: int, *, metric: str = "score") -> pd.Series | None:
    """The strongest head of a probe at a step, as its observation row with `label`; None when none is valid."""
    rows = _heads(results, probe, step, metric)
    return None if rows.empty else rows.iloc[0]


def heads_above(
    results: Table, probe: str, step: int, *, threshold: float, metric: str = "score"
) -> pd.DataFrame:
    """Heads whose interval lies above a threshold at a step, strongest first, with a `label` column."""
    rows = _heads(results, probe, step, metric)
    return rows[rows["lo"] > threshold]


def _heads(results: Table, probe: str, step: int, metric: str) -> pd.DataFrame:
    rows = results.ranked(probe, metric, step=step)
    return rows[rows["layer"].notna()]


def _first_lasting(table: pd.DataFrame) -> tuple[int, str] | None:
    """Row index and column of the first call that still stands at the next row (or is in the last one)."""
    lasting = is_lasting(is_called(table.to_numpy()))
    rows = np.flatnonzero(lasting.any(axis=1))
    if not len(rows):
        return None
    index = int(rows[0])
    return index, str(table.columns[int(np.argmax(lasting[index]))])


def _onset_text(head: str, bracket: tuple[int | None, int], at_end: tuple[str, ...]) -> str:
    before, at = bracket
    when = (
        f"is there at the first measured step ({at:,})"
        if before is None
        else f"appears between steps {before:,} and {at:,}"
    )
    last = (
        f"; at the last step {len(at_end)}: {', '.join(at_end)}"
        if at_end
        else "; none is left at the last step"
    )
    return f"the first lasting induction head ({head}) {when}{last}"
