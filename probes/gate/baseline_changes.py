"""A rule about a change against a baseline: in the metric's unit or in percent, on the same sequences, with its interval.

Sequences are paired, as `byrote compare` pairs them: the interval is of the difference, or of the quotient. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.interp.axes import parse_head
from byrote.probes.comparable import differing_provenance, init_disagreement, own_units, shared_sequences
from byrote.probes.degradation import difference_table
from byrote.probes.gate.checked import PASS, UNDECIDED, Judged, all_of, within
from byrote.probes.gate.grammar import EVERY, PERCENT, Rule
from byrote.probes.gate.single_values import named, not_yet
from byrote.probes.results import Results
from byrote.probes.results.named_step import resolve_step
from byrote.probes.results.unit_files import unit_of
from byrote.probes.statistics import ratio_of_means
from byrote.probes.wording import counted, interval

Samples = Float[np.ndarray, " n"]
Triple = tuple[float, float, float]


def baseline_of(rule: Rule, runs: Sequence[Results], folder: Path) -> Results:
    """The baseline that a rule names: one of the runs, or a results folder.

    Args:
        rule: of the kind "change".
        runs: those that are checked.
        folder: what a relative place starts from.

    Raises:
        ByroteError: it is neither.
    """
    for run in runs:
        if run.run == rule.baseline:
            return run
    place = folder / rule.baseline
    if (place / "run.json").is_file():
        return Results.open(place)
    names = [run.run for run in runs]
    raise ByroteError(
        f"{rule.where}: baseline {rule.baseline!r} is neither a run given here nor a results folder",
        help=did_you_mean(rule.baseline, names) if names else "name a results folder",
    )


def judge_change(rule: Rule, results: Results, baseline: Results, *, finished: bool) -> Judged:
    """Whether the change of a number against the baseline lies inside the bounds with its whole interval.

    Args:
        rule: of the kind "change".
        results: of the run in question.
        baseline: see `baseline_of`.
        finished: whether the run has ended: before, a rule about the last step is undecided.

    Raises:
        ByroteError: runs that were not measured alike, a head of models that do not share their first weights, no such step,
            or a number that is measured per head without a head.
    """
    what = f"change of {named(rule)} against {baseline.run}"
    if why := not_yet(rule.step, results.steps, finished=finished):
        return Judged(UNDECIDED, what, why)
    steps = _steps(rule, results, baseline)
    if not steps:
        return Judged(
            UNDECIDED, what, f"nothing: {baseline.run} was not measured at {_wanted(rule, results)}"
        )
    if rule.step != EVERY:
        found = _at_step(rule, results, baseline, steps[-1])
        return Judged(found.outcome, f"{what} at step {steps[-1]:,}", *_rest(found))
    at = {step: _at_step(rule, results, baseline, step) for step in steps}
    outcome = all_of([found.outcome for found in at.values()])
    step = next((step for step, found in at.items() if found.outcome == outcome != PASS), steps[-1])
    text = f"{at[step].found} at step {step:,}"
    if outcome == PASS:
        text += f" and at {counted(len(steps) - 1, 'step')} before" if len(steps) > 1 else ""
        text += "" if finished else ", and the run continues"
        outcome = PASS if finished else UNDECIDED
    return Judged(outcome, f"{what} at every step", text, at[step].value, at[step].lo, at[step].hi)


def expected_change(rule: Rule) -> str:
    """``at most +5 percent``."""
    return f"{rule.bounds} {rule.change}"


def _rest(found: Judged) -> tuple[str, float, float, float]:
    return found.found, found.value, found.lo, found.hi


def _steps(rule: Rule, results: Results, baseline: Results) -> list[int]:
    """Steps that both have, of those that the rule names, ascending."""
    common = sorted(set(results.usable_steps) & set(baseline.usable_steps))
    if rule.step == EVERY:
        return [step for step in common if step >= rule.from_step]
    if rule.step == "last":
        return common[-1:]
    step = resolve_step(rule.step, results)
    return [step] if step in common else []


def _wanted(rule: Rule, results: Results) -> str:
    if rule.step in (EVERY, "last"):
        return "any step of " + results.run
    return f"step {resolve_step(rule.step, results):,}"


def _at_step(rule: Rule, results: Results, baseline: Results, step: int) -> Judged:
    differing = differing_provenance(baseline, results, [(step, step)])
    if differing:
        raise ByroteError(
            f"{baseline.run} and {results.run} were not measured alike: {'; '.join(differing)}",
            help="measure both with the same settings: byrote run A B --fresh",
        )
    if unit_of(results.info(rule.probe), rule.metric) in own_units(baseline, results, (step, step)):
        return Judged(UNDECIDED, "", "nothing: the runs were measured on different sequences")
    rows = [_row(rule, run, step) for run in (baseline, results)]
    if any(row is None or not row["valid"] for row in rows):
        return Judged(UNDECIDED, "", f"nothing: not measured in both runs at step {step:,}")
    a, b = (row for row in rows if row is not None)
    samples = [np.asarray(row["samples"], dtype=np.float64) for row in (a, b)]
    if len(samples[0]) and len(samples[1]):
        value, lo, hi = _paired(rule, *samples, base=a)
    else:
        value, lo, hi = _exact(rule, float(a["value"]), float(b["value"]))
    if not math.isfinite(value):
        return Judged(UNDECIDED, "", "nothing: the baseline's value is not clearly different from 0")
    text = f"{interval(value, lo, hi, sign=True)} {rule.change}"
    return Judged(within(lo, hi, rule.min, rule.max), "", text, value, lo, hi)


def _row(rule: Rule, run: Results, step: int) -> pd.Series | None:
    """The one row that a rule is about, with its values per sequence."""
    rows = run.samples(step)
    rows = rows[(rows["probe"] == rule.probe) & (rows["metric"] == rule.metric) & rows["position"].isna()]
    if rows.empty:
        return None
    if bool(rows["layer"].notna().any()) != (rule.head is not None):
        help = 'name one: head = "L1H0"' if rule.head is None else "leave head out"
        kind = "about the whole model" if rule.head else "measured per head"
        raise ByroteError(f"{rule.where}: {rule.probe}/{rule.metric} is {kind}", help=help)
    if rule.head is not None:
        layer, head = parse_head(rule.head)
        rows = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    return rows.iloc[0] if len(rows) == 1 else None


def refuse_other_heads(rule: Rule, results: Results, baseline: Results) -> None:
    """Refuse a head by its name in runs that did not grow from the same weights.

    Raises:
        ByroteError: they did not, or nothing says so.
    """
    disagreement = init_disagreement(baseline, results) if rule.head is not None else ""
    if disagreement:
        raise ByroteError(
            f"{rule.where}: heads are not compared by name: {disagreement}",
            help="compare a number about the whole model",
        )


def _paired(rule: Rule, a: Samples, b: Samples, *, base: pd.Series) -> Triple:
    a, b = (values[:, 0] for values in shared_sequences([a[:, None], b[:, None]]))
    there = np.isfinite(a) & np.isfinite(b)
    a, b = a[there], b[there]
    if not len(a):
        return math.nan, math.nan, math.nan
    if rule.change != PERCENT:
        row = difference_table(a[:, None], b[:, None]).iloc[0]
        return float(row["difference"]), float(row["lo"]), float(row["hi"])
    if not (base["lo"] > 0 or base["hi"] < 0):
        return math.nan, math.nan, math.nan
    return _in_percent(*ratio_of_means(b, a, seed=0), positive=bool(base["lo"] > 0))


def _exact(rule: Rule, a: float, b: float) -> Triple:
    """Of numbers that are given by the weights: no sampling error."""
    if rule.change != PERCENT:
        return b - a, b - a, b - a
    return _in_percent(b / a, b / a, b / a, positive=a > 0) if a else (math.nan, math.nan, math.nan)


def _in_percent(ratio: float, lo: float, hi: float, *, positive: bool) -> Triple:
    """A ratio B / A as the change from A in percent of A's size."""
    if positive:
        return 100 * (ratio - 1), 100 * (lo - 1), 100 * (hi - 1)
    return 100 * (1 - ratio), 100 * (1 - hi), 100 * (1 - lo)
