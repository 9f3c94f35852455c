"""When the verdict first holds, and when the parts of an induction circuit appeared. No torch.

An onset is known only up to the measured steps around it, so it is given as a bracket: not there at the first step,
there at the second. It must last: a head called at one step and gone at the next measured one has no onset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label, parse_head
from byrote.probes.results.table import Table
from byrote.probes.rules import (
    LOST_FRAC,
    is_called,
    is_lasting,
    is_lost,
    is_previous_token_head,
    smallest_effect,
)
from byrote.probes.trajectory.appearance import above_null, first_lasting
from byrote.probes.wording import between_steps, clean, counted, probe_name, step_number


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
        loss: the largest sure loss of called heads after their appearance, None where there is none.
        only_step: the step, where one alone was measured: nothing can be said to appear or go.
    """

    found: bool
    head: str
    bracket: tuple[int | None, int] | None
    tokens: tuple[int | None, int | None] | None
    heads_at_end: tuple[str, ...]
    text: str
    measured: bool = True
    loss: Loss | None = None
    only_step: int | None = None

    def __repr__(self) -> str:
        return f"Onset({self.text!r}, bracket={self.bracket}, heads_at_end={self.heads_at_end})"


@dataclass(frozen=True)
class Loss:
    """Called heads that are significantly lost between two measured steps.

    Attributes:
        bracket: (last measured step with the most of them, first step with the fewest after it).
        before, after: how many heads are called at the one and the other.
        at_end: how many at the last measured step.
        lost: labels of the heads significantly lost, strongest first.
    """

    bracket: tuple[int, int]
    before: int
    after: int
    at_end: int
    lost: tuple[str, ...]

    @property
    def words(self) -> str:
        """`13 heads fall to 4 between steps 500 and 750`."""
        again = f", {self.at_end:,} at the last step" if self.at_end != self.after else ""
        return f"{counted(self.before, 'head')} fall to {self.after:,} {between_steps(*self.bracket)}{again}"


def onset(results: Table) -> Onset:
    """When the first lasting induction head appears.

    Lasting: still called at the next measured step, or first called at the last one.

    Args:
        results: of one run, with the `induction` verdict.
    """
    table = verdict_table(results)
    if table.isna().all(axis=None):  # an empty one too
        return Onset(False, "", None, None, (), _unjudged(results), measured=False)
    steps = [int(step) for step in table.index]
    at_end = called_heads(results, steps[-1])
    first, only = _first_lasting(table), steps[0] if len(steps) == 1 else None
    if first is None and only is not None:
        text = f"no induction head at step {only:,}, the only one measured"
        return Onset(False, "", None, None, (), text, only_step=only)
    if first is None:
        called = is_called(table).any()
        text = (
            "induction heads are called at single steps, but none of them lasts"
            if called
            else "no induction head at any step"
        )
        return Onset(False, "", None, None, at_end, text)
    index, head = first
    bracket = (steps[index - 1] if index else None, steps[index])
    before, at = bracket
    tokens = (None if before is None else results.tokens[before], results.tokens[at])
    lost = loss(results, table.iloc[index:])
    text = _onset_text(head, bracket, at_end, lost) if only is None else _at_only_step(only, at_end)
    return Onset(True, head, bracket, tokens, at_end, text, loss=lost, only_step=only)


def _unjudged(results: Table) -> str:
    """Why no head was judged at any step."""
    if results.imported:
        return "imported scores have no samples to give an induction verdict on"
    reason = "the induction verdict was not measured"
    reasons = results.select("induction", "verdict")["reason"].unique()
    return f"{reason}: {clean(reasons[0])}" if len(reasons) == 1 and reasons[0] else reason


def called_heads(results: Table, step: int) -> tuple[str, ...]:
    """Labels of the heads called induction heads at a step, the one that matches prefixes best first."""
    table = verdict_table(results)
    called = {str(head) for head in table.columns[is_called(table.loc[step].to_numpy())]}
    ranked = [str(label) for label in _heads(results, "prefix_matching", step, "score")["label"]]
    return tuple(
        sorted(called, key=lambda label: (ranked.index(label) if label in ranked else 0, parse_head(label)))
    )


def loss(results: Table, table: pd.DataFrame | None = None) -> Loss | None:
    """The largest loss of called heads: from the most at one measured step to the fewest after it.

    A head is lost where the verdict no longer calls it and prefix matching, copying or jittered prefix matching above its
    null is significantly lower by the smallest effect; where those were not stored the verdict alone decides. It is a finding
    where that holds for a quarter of the heads, and for two at least or all of them.

    Args:
        results: of one run.
        table: its `verdict_table`, where it is there already.
    """
    table = verdict_table(results) if table is None else table
    called = is_called(table.to_numpy())
    count = called.sum(axis=1)
    falls = np.maximum.accumulate(count) - count
    if not falls.size or not falls.max():
        return None
    at = int(falls.argmax())
    before = at - 1 - int(count[:at][::-1].argmax())
    gone = [str(head) for head in table.columns[called[before] & ~called[at]]]
    steps = int(table.index[before]), int(table.index[at])
    lost = [
        label
        for label in called_heads(results, steps[0])
        if label in gone and _surely_lost(results, label, steps)
    ]
    if len(lost) < LOST_FRAC * count[before] or (len(lost) < 2 and count[at]):
        return None
    return Loss(steps, int(count[before]), int(count[at]), int(count[-1]), tuple(lost))


def _surely_lost(results: Table, label: str, steps: tuple[int, int]) -> bool:
    head, known = parse_head(label), False
    for metric in ("prefix_excess", "copying_excess", "jitter_excess"):
        if results.has("induction", metric):
            cube = results.cube("induction", metric)
            (_, lo, _), (_, _, hi) = (cube.interval(step, head) for step in steps)
            known = known or bool(np.isfinite([lo, hi]).all())
            if is_lost(lo, hi):
                return True
    return not known


def _at_only_step(step: int, called: tuple[str, ...]) -> str:
    return f"{counted(len(called), 'induction head')} at step {step:,}, the only one measured: {', '.join(called)}"


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


def _onset_text(
    head: str, bracket: tuple[int | None, int], at_end: tuple[str, ...], lost: Loss | None
) -> str:
    before, at = bracket
    when = (
        f"is there at the first measured step ({at:,})"
        if before is None
        else f"appears between steps {before:,} and {at:,}"
    )
    last = (
        f"; {len(at_end):,} at the last step: {', '.join(at_end)}"
        if at_end
        else "; none is left at the last step"
    )
    fall = f"; {lost.words}" if lost and at_end else ""
    return f"the first lasting induction head ({head}) {when}{fall}{last}"


INDUCTION = "induction"
_PARTS = {"previous_token": "previous token", "copying_logit": "copying logit"}


@dataclass(frozen=True)
class Milestone:
    """One part and when it appeared.

    Attributes:
        what: `previous token`, `induction` or `copying logit`.
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

    All appear at the first step that lasts: induction heads with the first verdict that still stands at the next step, the
    others where a head first stands significantly above its null and still does at the next step. Previous-token heads are reported
    where some head is one at any step, significantly.

    Args:
        results: of one run.
        found: the onset of induction heads, where it is known already.
    """
    parts = [_above(results, "previous_token"), _called(results, found), _above(results, "copying_logit")]
    return tuple(part for part in parts if part is not None)


def _called(results: Any, found: Onset | None) -> Milestone | None:
    if not results.has("induction", "verdict"):
        return None
    found = onset(results) if found is None else found
    if not found.found or found.bracket is None:
        return None
    return Milestone(INDUCTION, found.head, found.bracket, "first induction verdict that lasts")


def _above(results: Any, probe: str) -> Milestone | None:
    """The head that first stood lastingly above its null; of previous-token heads only such as became one."""
    info = results.info(probe)
    metric = info.main_metric if results.has(probe) else ""
    if results.kinds.get((probe, metric)) != "head":
        return None
    cube = results.cube(probe, metric)
    there = above_null(cube, smallest=smallest_effect(info, metric), sampled=info.sampled_chance)
    if probe == "previous_token":
        there = there & (cube.valid & is_previous_token_head(cube.lo)).any(axis=0)
    found = first_lasting(cube, there)
    if found is None:
        return None
    head, bracket = found
    how = f"the first step at which {probe_name(probe)} of {head_label(*head)} is significantly above its null and stays so"
    return Milestone(_PARTS[probe], head_label(*head), bracket, how)
