"""When the verdict first holds, and when the parts of an induction circuit appeared. No torch.

An onset is known only up to the measured steps around it, so it is given as a bracket: not there at the first step,
there at the second. It must last: a head called at one step and gone at the next measured one has no onset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.results.curve import curves_of
from byrote.probes.results.table import Table
from byrote.probes.rules import HALF_RISEN, is_called, is_lasting, is_previous_token_head
from byrote.probes.trajectory.crossing import crossings, rise
from byrote.probes.wording import probe_name, step_number


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
        without = "imported scores have no samples to give an induction verdict on"
        text = without if results.imported else "the induction verdict was not measured"
        return Onset(False, "", None, None, (), text, measured=False)
    at_end = tuple(str(head) for head in table.columns[is_called(table.iloc[-1])])
    first = _first_lasting(table)
    if first is None:
        called = is_called(table).any()
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
                "called_at_end": bool(is_called(table[head].iloc[-1])),
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


INDUCTION = "induction"
_PARTS = {"previous_token": "previous token", "copying_logit": "copying"}


@dataclass(frozen=True)
class Milestone:
    """One part and when it appeared.

    Attributes:
        what: `previous token`, `induction` or `copying`.
        head: label of the head that shows it.
        bracket: (last measured step without it, or None where it was there from the start; first with it).
        how: what is meant by having appeared.
    """

    what: str
    head: str
    bracket: tuple[int | None, int]
    how: str

    @property
    def when(self) -> str:
        """``256–512``, or ``by 512`` where it was there at the first measured step."""
        lo, hi = self.bracket
        return f"by {step_number(hi)}" if lo is None else f"{step_number(lo)}–{step_number(hi)}"


def milestones(results: Any, *, found: Onset | None = None) -> tuple[Milestone, ...]:
    """Previous-token heads, induction heads and copying, as far as the results say when.

    Induction heads appear with the first verdict that lasts. The others appear, previous-token heads where there is one
    at any step, when the strongest head has made half of
    its rise, as `byrote show --events` counts it; where that is decided by chance, from the intervals and not from
    sequences.

    Args:
        results: of one run.
        found: the onset of induction heads, where it is known already.
    """
    parts = [_risen(results, "previous_token"), _called(results, found), _risen(results, "copying_logit")]
    return tuple(part for part in parts if part is not None)


def _called(results: Any, found: Onset | None) -> Milestone | None:
    if not results.has("induction", "verdict"):
        return None
    found = onset(results) if found is None else found
    if not found.found or found.bracket is None:
        return None
    return Milestone(INDUCTION, found.head, found.bracket, "first induction verdict that lasts")


def _risen(results: Any, probe: str) -> Milestone | None:
    """The head that stands highest at any step, and between which steps it crossed half of its rise."""
    metric = results.info(probe).main_metric if results.has(probe) else ""
    if results.kinds.get((probe, metric)) != "head":
        return None
    cube = results.cube(probe, metric)
    if not cube.valid.any() or (
        probe == "previous_token" and not (cube.valid & is_previous_token_head(cube.lo)).any()
    ):
        return None
    highest = np.where(cube.valid, cube.value, -np.inf).max(axis=0)
    layer, index = np.unravel_index(int(highest.argmax()), highest.shape)
    head = int(layer), int(index)
    rows = results.rows(probe, metric, head=head, valid=True)
    (strongest,) = curves_of(results.run, rows, {}, results.info(probe)).values()
    strongest = replace(strongest, among=int(cube.valid.any(axis=0).sum()))
    risen = rise(strongest)
    if not risen.found:
        return None
    (crossing,) = crossings(strongest, fracs=(HALF_RISEN,), found=risen)
    how = f"{head_label(*head)} stood highest on {probe_name(probe)} and had made half of its rise"
    return Milestone(_PARTS[probe], head_label(*head), crossing.bracket, how)
