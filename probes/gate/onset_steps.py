"""A rule about when something appears: the first lasting induction head, or the step at which a number is reached. No torch.

An onset is known up to the measured steps around it, and up to its interval: a rule is met or broken where all of that
lies on one side of its step. What never appears, appears after every step that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import parse_head
from byrote.probes.gate.checked import FAIL, PASS, UNDECIDED, Judged, Outcome, all_of, enough_of, within
from byrote.probes.gate.grammar import Rule
from byrote.probes.gate.single_values import named
from byrote.probes.results.curve import Curve
from byrote.probes.results.run_json import refuse_imported
from byrote.probes.results.table import Table
from byrote.probes.trajectory import crossings, head_onsets, onset, rise, threshold_crossing, verdict_table
from byrote.probes.wording import step_number

VERDICT = ("induction", "verdict")
_UNKNOWN = (-math.inf, math.inf)
Span = tuple[
    float, float
]  # the steps between which an onset certainly lies; inf: later than all that was measured


def judge_onset(rule: Rule, results: Table, *, finished: bool) -> Judged:
    """Whether an onset lies on the right side of the rule's steps.

    Args:
        rule: of the kind "onset".
        results: of one run.
        finished: whether the run has ended; half of a rise is not known before.

    Raises:
        ByroteError: a number that is measured per head without a head, or the other way round; imported scores.
    """
    refuse_imported(results.meta, "intervals to check")
    what = f"onset of {named(rule)}" + ("" if rule.level is None else f" at {rule.level:g}")
    if not results.usable_steps:
        return Judged(UNDECIDED, what, "nothing: no step is measured")
    if (rule.probe, rule.metric) == VERDICT:
        span, found_text = _of_verdict(rule, results)
        return Judged(_side(rule, span), what, found_text, *_numbers(span))
    if not results.has(rule.probe, rule.metric):
        return Judged(UNDECIDED, what, "nothing: not in the results")
    if rule.level is None and not finished:
        return Judged(UNDECIDED, what, "nothing yet: half of its rise is known when the run has ended")
    found = [_of_curve(rule, curve) for curve in _curves(rule, results)]
    sides = [_side(rule, span) for span, _ in found]
    outcome = enough_of(sides, 1) if rule.head == "any" else all_of(sides)
    span, found_text = next(
        one for one, side in zip(found, [*sides[:-1], outcome], strict=True) if side == outcome
    )
    return Judged(outcome, what, found_text, *_numbers(span))


def expected_onset(rule: Rule) -> str:
    """``by step 2,000``, ``not before step 200``."""
    parts = [] if rule.onset_after is None else [f"not before step {rule.onset_after:,}"]
    parts += [] if rule.onset_before is None else [f"by step {rule.onset_before:,}"]
    return " and ".join(parts)


def _side(rule: Rule, span: Span) -> Outcome:
    """Where the whole span lies: at its bound an onset is in time, and not there yet just before its first end."""
    lo, hi = span
    sides: list[Outcome] = []
    if rule.onset_before is not None:
        sides.append(PASS if hi <= rule.onset_before else FAIL if lo >= rule.onset_before else UNDECIDED)
    if rule.onset_after is not None:
        sides.append(PASS if lo >= rule.onset_after else FAIL if hi <= rule.onset_after else UNDECIDED)
    return all_of(sides)


def _numbers(span: Span) -> tuple[float, float, float]:
    lo, hi = (end if math.isfinite(end) else math.nan for end in span)
    return math.nan, lo, hi


def _of_verdict(rule: Rule, results: Table) -> tuple[Span, str]:
    """Of the first lasting induction head, of one head, or of the last of all heads."""
    last = results.usable_steps[-1]
    if verdict_table(results).isna().all(axis=None):
        return _UNKNOWN, f"nothing: {onset(results).text}"
    if rule.head in (None, "any"):
        found = onset(results)
        before, at = found.bracket if found.bracket is not None else (last, None)
        return _span(before, at), f"{found.text}{'' if found.found else f' up to {last:,}'}"
    table = head_onsets(results).set_index("head")
    labels = [str(label) for label in verdict_table(results).columns]
    wanted = labels if rule.head == "all" else [_label(str(rule.head), labels, rule)]
    brackets = {label: _bracket(table, label, last) for label in wanted}
    label = max(brackets, key=lambda name: _span(*brackets[name])[1])
    before, at = brackets[label]
    if at is None:
        return _span(last, None), f"{label} never called up to step {last:,}"
    when = f"at the first measured step, {at:,}" if before is None else f"between steps {before:,} and {at:,}"
    return _span(before, at), f"{label} {when}"


def _label(head: str, labels: Iterable[str], rule: Rule) -> str:
    wanted = "L{}H{}".format(*parse_head(head))
    if wanted not in labels:
        raise ByroteError(f"{rule.where}: {wanted} has no verdict in the results", help='write head = "any"')
    return wanted


def _bracket(table: object, label: str, last: int) -> tuple[int | None, int | None]:
    rows = table.loc[table.index == label]  # type: ignore[attr-defined]
    if rows.empty:
        return last, None
    before = rows["step_before"].iloc[0]
    return (None if before is None or math.isnan(before) else int(before)), int(rows["step_at"].iloc[0])


def _span(before: int | None, at: int | None) -> Span:
    return (-math.inf if before is None else float(before), math.inf if at is None else float(at))


def _curves(rule: Rule, results: Table) -> list[Curve]:
    found = results.curves(rule.probe, rule.metric)
    if not found:
        return []
    per_head = None not in found
    if per_head != (rule.head is not None):
        help = 'add head = "any", "all" or "L1H0"' if per_head else "leave head out"
        kind = "measured per head" if per_head else "about the whole model"
        raise ByroteError(f"{rule.where}: {rule.probe}/{rule.metric} is {kind}", help=help)
    if rule.head in ("any", "all"):
        return [replace(curve, among=len(found)) for curve in found.values()]
    return [results.curve(rule.probe, rule.metric, head=(rule.head and parse_head(rule.head)) or None)]


def _of_curve(rule: Rule, curve: Curve) -> tuple[Span, str]:
    last = int(curve.steps[-1])
    if rule.level is None:
        risen = rise(curve)
        if not risen.within:
            return _UNKNOWN, f"no onset of {curve.label}: {risen.why_not}"
        (found,) = crossings(curve, fracs=(0.5,), found=risen)
    else:
        reached = threshold_crossing(curve, rule.level)
        if reached.crossing is None:
            span = _span(_surely_below(rule, curve, rule.level), None)
            return span, f"{curve.label} {reached.why_not} up to step {last:,}"
        found = reached.crossing
    lo = -math.inf if found.lo is None else found.lo
    hi = math.inf if found.hi is None else found.hi
    at = found.bracket[1] if found.step is None else found.step
    ends = [step_number(end) if math.isfinite(end) else "…" for end in (lo, hi)]
    return (lo, hi), f"{curve.label} at step {step_number(at)} [{', '.join(ends)}]"


def _surely_below(rule: Rule, curve: Curve, level: float) -> int | None:
    """The last measured step up to which every one is significantly on the near side of the level; None where the first is not."""
    far = (level, math.inf) if curve.better != "lower" else (-math.inf, level)
    before = None
    for step, lo, hi in zip(curve.steps, curve.lo, curve.hi, strict=True):
        if within(float(lo), float(hi), *far) != FAIL:
            break
        before = int(step)
    return before
