"""A rule about a number, of one head, of any or all heads, or of the whole model, at one step or at each. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import parse_head
from byrote.probes.gate.checked import FAIL, PASS, UNDECIDED, Judged, Outcome, all_of, enough_of, within
from byrote.probes.gate.grammar import EVERY, Rule
from byrote.probes.results.named_step import resolve_step
from byrote.probes.results.rows import row_label
from byrote.probes.results.run_json import refuse_imported
from byrote.probes.results.table import Table
from byrote.probes.wording import counted, interval

if TYPE_CHECKING:
    import pandas as pd


def judge_value(rule: Rule, results: Table, *, finished: bool) -> Judged:
    """Whether a number lies inside the bounds with its whole interval.

    Args:
        rule: of the kind "value".
        results: of one run.
        finished: whether the run has ended: before, a rule about the last step is undecided.

    Raises:
        ByroteError: no such step, a head of a number about the whole model or none of one per head, imported scores.
    """
    refuse_imported(results.meta, "intervals to check")
    if rule.step == EVERY:
        return _at_every_step(rule, results, finished=finished)
    if why := not_yet(rule.step, results.steps, finished=finished):
        return Judged(UNDECIDED, named(rule), why)
    step = resolve_step(rule.step, results)
    rows = rows_of(rule, results, step)
    outcome = _of_rows(rule, rows)
    return _with_row(rule, rows, outcome, f"{named(rule)} at step {step:,}")


def named(rule: Rule) -> str:
    """``induction/verdict any``."""
    return f"{rule.probe}/{rule.metric}{f' {rule.head}' if rule.head else ''}"


def not_yet(step: str, steps: list[int], *, finished: bool) -> str:
    """Why a rule about this step cannot be judged yet; "" where it can.

    Args:
        step: as in the rule.
        steps: measured so far.
        finished: whether the run has ended.
    """
    if not steps:
        return "nothing: no step is measured"
    if finished:
        return ""
    if step.isdigit():
        return f"nothing yet: measured up to step {steps[-1]:,}" if int(step) > steps[-1] else ""
    return "" if step in (EVERY, "first") else f"nothing yet: the run continues (step {steps[-1]:,})"


def rows_of(rule: Rule, results: Table, step: int | None) -> pd.DataFrame:
    """The rows that a rule is about, at a step or at all.

    Raises:
        ByroteError: a head of a number about the whole model, or none of one per head.
    """
    rows = results.select(rule.probe, rule.metric, step=step)
    rows = rows[rows["position"].isna()]
    if len(rows) and bool(rows["layer"].notna().any()) != (rule.head is not None):
        kind, help = ("measured per head", 'add head = "any", "all" or "L1H0"')
        if rule.head is not None:
            kind, help = ("about the whole model", "leave head out")
        raise ByroteError(f"{rule.where}: {rule.probe}/{rule.metric} is {kind}", help=help)
    if rule.head not in (None, "any", "all"):
        layer, head = parse_head(rule.head)
        rows = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    ends = zip(rows["valid"], rows["lo"], rows["hi"], strict=True)
    outcome = [within(lo, hi, rule.min, rule.max) if valid else UNDECIDED for valid, lo, hi in ends]
    return rows.assign(outcome=outcome)


def _of_rows(rule: Rule, rows: pd.DataFrame) -> Outcome:
    outcomes = list(rows["outcome"])
    return enough_of(outcomes, 1) if rule.head == "any" and outcomes else all_of(outcomes)


def _at_every_step(rule: Rule, results: Table, *, finished: bool) -> Judged:
    """At every usable step from the first one that counts: all have to be inside."""
    what = f"{named(rule)} at every step" + (f" from {rule.from_step:,}" if rule.from_step else "")
    rows = rows_of(rule, results, None)
    steps = [step for step in results.usable_steps if step >= rule.from_step]
    by_step = {int(step): part for step, part in rows.groupby("step", sort=True)}
    outcomes = {step: _of_rows(rule, by_step[step]) if step in by_step else UNDECIDED for step in steps}
    if not steps:
        reached = f"measured up to step {results.steps[-1]:,}" if results.steps else "no step is measured"
        return Judged(UNDECIDED, what, f"nothing{'' if finished else ' yet'}: {reached}")
    outcome = all_of(list(outcomes.values()))
    step = next((step for step, one in outcomes.items() if one == outcome != PASS), steps[-1])
    found = _with_row(rule, by_step.get(step, rows.head(0)), outcomes[step], what)
    where = f"{found.found} at step {step:,}"
    if outcome == PASS:
        where = f"{where} and at {counted(len(steps) - 1, 'step')} before" if len(steps) > 1 else where
        outcome = PASS if finished else UNDECIDED
        where += "" if finished else ", and the run continues"
    return Judged(outcome, what, where, found.value, found.lo, found.hi)


def _with_row(rule: Rule, rows: pd.DataFrame, outcome: Outcome, what: str) -> Judged:
    """The row that decides: of "any" the strongest, of "all" the first that is not inside."""
    if rows.empty:
        return Judged(outcome, what, "nothing: not in the results")
    if rule.head == "all" and outcome != PASS:
        worst = FAIL if outcome == FAIL else UNDECIDED
        rows = rows[rows["outcome"] == worst].head(1)
    elif rows["valid"].any():
        rows = rows[rows["valid"]].assign(met=lambda frame: frame["outcome"] == PASS)
        rows = rows.sort_values(["met", "value"], kind="stable").tail(1)
    row = next(rows.itertuples(index=False))
    found_text = interval(row.value, row.lo, row.hi) if row.valid else f"not measured: {row.reason}"
    ends = (float(row.value), float(row.lo), float(row.hi)) if row.valid else ()
    return Judged(outcome, what, f"{row_label(row)} {found_text}".strip(), *ends)
