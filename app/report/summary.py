"""The summary table and the induction verdict: one look at where each run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.comparable import BEST_HEAD, Comparison, meaning, measure_name
from byrote.probes.findings import first_head, induction_rule, lacks_token_sets, not_called
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.rows import row_label
from byrote.probes.rules import against_chance, change, is_called, smallest_effect
from byrote.probes.spec import ProbeInfo
from byrote.probes.wording import (
    MISSING,
    chance_number,
    clean,
    listed,
    p_value,
    probe_name,
    sentence_case,
    step_number,
)
from byrote.report.model import TONES, Estimate, Listing, Prose, Section, Table, Tone, Value, Words
from byrote.report.report_inputs import Inputs, seeds_of
from byrote.report.tables import estimate_of
from byrote.report.training import called

_ARROWS = {"higher": ", ↑\u00a0better", "lower": ", ↓\u00a0better", None: ""}
_EVIDENCE = ("prefix_excess", "copying_excess", "jitter_excess", "dla_excess")
_TESTS = ("q_prefix", "q_copying", "q_dla")


def summary_section(inputs: Inputs, *, chosen: str = "") -> Section:
    """Every probe's main numbers at each run's last step.

    Args:
        inputs: of the runs shown.
        chosen: which these are of more, in words; "" where they are all.
    """
    table = measures_table(inputs, "summary-table", _wanted(inputs))
    body = table or Prose("Nothing was measured, so there is nothing to summarise.")
    lead = (Prose(chosen),) if chosen else ()
    return Section(
        "summary", "One run of each arm" if chosen else "Every measure", (*lead, body), folded=True
    )


def measures_table(inputs: Inputs, name: str, measures: Sequence[tuple[str, str]]) -> Table | None:
    """Measures of every run at its last step, with the change from the baseline; None where nothing was measured.

    Args:
        inputs: of the runs shown.
        name: unique in the report.
        measures: (probe, metric), in the order of the rows.
    """
    infos = _infos(inputs)
    rows = [row for probe, metric in measures for row in _metric_rows(inputs, infos[probe], metric)]
    if not rows:
        return None
    # (heading, whether there is anything to put below it)
    columns = (
        ("Measure", True),
        ("Run", len(inputs.results) > 1),
        ("Value [95% interval]", True),
        ("n", True),
        ("Chance", True),
        (f"Change from {clean(inputs.base)}", bool(inputs.base)),
        ("In words", True),
    )
    wanted = [there for _, there in columns]
    return Table(
        name=name,
        caption=_measures_caption(inputs),
        columns=tuple(heading for heading, there in columns if there),
        rows=tuple(tuple(compress(row, wanted)) for row in rows),
    )


def front_table(inputs: Inputs, name: str, measures: Sequence[tuple[str, str]]) -> Table | None:
    """`measures_table` for the front: each measure with its meaning, and two runs side by side in one row.

    Args:
        inputs, name, measures: as for `measures_table`.
    """
    table = measures_table(inputs, name, measures)
    if table is None:
        return None
    infos = _infos(inputs)
    meanings = {_measure_words(infos[probe], metric): meaning(probe, metric) for probe, metric in measures}
    rows = [(_with_meaning(row[0], meanings), *row[1:]) for row in table.rows]
    if len(inputs.results) != 2 or inputs.base is None:
        return replace(table, rows=tuple(rows))
    base = clean(inputs.base, limit=40)
    other = next(clean(run.run, limit=40) for run in inputs.results if run.run != inputs.base)
    beside = []
    for measure in dict.fromkeys(row[0] for row in rows):
        of_run = {row[1]: row for row in rows if row[0] == measure}
        at_base, at_other = of_run.get(base), of_run.get(other)
        one = at_other or of_run[base]
        values = [None if row is None else row[2] for row in (at_base, at_other)]
        ns, chances = (
            [row[i] for row in (at_base, at_other) if row is not None and row[i] != MISSING] for i in (3, 4)
        )
        beside.append(
            (
                measure,
                *values,
                None if at_other is None else at_other[5],
                _shared(ns),
                _shared(chances),
                one[6],
            )
        )
    columns = ("Measure", f"{base}, baseline", other, "Change [95% interval]", "n", "Chance", "In words")
    return replace(table, columns=columns, rows=tuple(beside))


def _shared(values: Sequence[Value]) -> Value:
    """What two runs have in common, or both."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else " and ".join(map(str, found)) or MISSING


def _with_meaning(measure: Value, meanings: Mapping[Words, str]) -> Value:
    if not isinstance(measure, Words) or not meanings.get(measure):
        return measure
    return replace(measure, detail=f"{meanings[measure]} ({measure.detail})")


def _measures_caption(inputs: Inputs) -> str:
    return (
        f"{'Each run' if len(inputs.results) > 1 else 'The run'} at its last step. Where a measure has a value for every head, "
        "the strongest head is shown, and named in front; its interval does not cover that it was chosen. “At chance” means not "
        "clearly farther from chance than the smallest effect of interest, with a correction for the choice among heads. "
        f"{seeds_of(inputs.results)}"
    )


def _infos(inputs: Inputs) -> dict[str, ProbeInfo]:
    found = {probe: info for r in inputs.measured for probe, _ in r.kinds if (info := r.info(probe))}
    return found | REGISTRY


def _measure_words(info: ProbeInfo, metric: str) -> Words:
    own = metric in ("score", info.main_metric) and info.kind != "model"
    name = sentence_case(probe_name(info.name) if own else measure_name(info.name, metric))
    return Words(name, detail=info.unit_of(metric) + _ARROWS[info.better_of(metric)])


def verdict_section(inputs: Inputs) -> Section:
    """Whether each run has induction heads, since when, and on what evidence."""
    found = Listing(tuple(_run_finding(inputs, r) for r in inputs.results))
    rows = [row for r in inputs.measured for row in _evidence_rows(r)]
    rule = Prose(induction_rule(inputs.measured), "note")
    if not rows:
        missing = Prose(
            "The induction verdict was not measured: it needs prefix_matching, copying_logit, sink and induction_dla."
        )
        return Section("verdict", "Induction heads", (found, missing, rule))
    table = Table(
        name="verdict-table",
        caption="Evidence at the last step for every head that counts as an induction head, and for the head of each run that comes "
        "nearest to it without being one. "
        + seeds_of(inputs.results),
        columns=("Run", "Head", "Induction head", "Prefix matching above null", "Copying above null", "On blocks of varying length",
                 "Raise of the next token, logits", "n", "q prefix", "q copying", "q raise"),
        rows=tuple(rows),
    )  # fmt: skip
    return Section("verdict", "Induction heads", (found, table, rule))


def _run_finding(inputs: Inputs, results: Results) -> str:
    if results.run not in inputs.onsets:
        return f"{clean(results.run)}: nothing was measured."
    return f"{first_head(results.run, inputs.onsets[results.run])}."


def _wanted(inputs: Inputs) -> list[tuple[str, str]]:
    """Probe and metric pairs of the summary: what each probe says is to be summarised, where some run has a row of it."""
    unknown = {probe: r.info(probe) for r in inputs.measured for probe, _ in r.kinds if probe not in REGISTRY}
    return [
        (info.name, metric)
        for info in (REGISTRY | unknown).values()
        if info.name != "induction" and any(_waited_for_nothing(r, info.name) for r in inputs.measured)
        for metric in info.summarised
        if any(not r.rows(info.name, metric, step=r.last_step).empty for r in inputs.measured)
    ]


def _waited_for_nothing(results: Results, probe: str) -> bool:
    """Whether a run has any row of a probe that did not merely wait for sequences nobody gave."""
    return bool(((results.frame["probe"] == probe) & ~lacks_token_sets(results)).any())


def _metric_rows(inputs: Inputs, info: ProbeInfo, metric: str) -> list[tuple[Value, ...]]:
    measure = _measure_words(info, metric)
    rows: list[tuple[Value, ...]] = []
    for results in inputs.measured:
        mine = results.rows(info.name, metric, step=results.last_step)
        if mine.empty:
            continue
        best = next(results.ranked(info.name, metric).itertuples(index=False), None)
        first = next(mine.itertuples(index=False))
        value = estimate_of(first) if best is None else estimate_of(best, where=best.label)
        difference, word = _versus(inputs, results.run, info, metric)
        relation = _verdict_word(results, info) or _relation(
            value, info, metric, among=int(mine["valid"].sum())
        )
        tone: Tone = "muted" if relation == "at chance" else "plain"
        if not value.n:
            n: Value = "–"
        else:  # draws of the null: nothing else is sampled of weights
            n = f"{value.n:,} draws" if info.kind == "weights" else value.n
        rows.append(
            (
                measure,
                clean(results.run, limit=40), value, n, chance_number(value.chance), difference,
                Words(word.text, word.tone, relation) if word.text else Words(relation, tone),
            )
        )  # fmt: skip
    return rows


def _verdict_word(results: Results, info: ProbeInfo) -> str:
    """The probe's own verdict at the run's last step; "" where it gives none."""
    for metric in info.words:
        rows = results.rows(info.name, metric, step=results.last_step)
        if len(rows) == 1 and rows["valid"].all():
            return info.word_of(metric, float(rows["value"].iloc[0]))
    return ""


def _versus(inputs: Inputs, run: str, info: ProbeInfo, metric: str) -> tuple[Value, Words]:
    """The paired difference from the baseline, and what it says."""
    if run == inputs.base:
        return "baseline", Words("")
    comparison = inputs.comparison_with(run)
    row = None if comparison is None else _difference_row(comparison, inputs, info, metric)
    if row is None:
        return "–", Words("")
    where = "" if pd.isna(row.layer) else f"at {row_label(row)}"
    word = change(row)
    estimate = Estimate(row.difference, row.lo, row.hi, n=int(row.n), where=where, signed=True)
    return estimate, Words(word, TONES.get(word, "plain"))


def _difference_row(comparison: Comparison, inputs: Inputs, info: ProbeInfo, metric: str) -> Any | None:
    """Model-level difference, strongest against strongest, or the baseline's strongest head against itself."""
    rows = comparison.rows
    mine = rows[(rows["probe"] == info.name) & rows["position"].isna()]
    whole = mine[mine["layer"].isna() & mine["metric"].isin([metric, BEST_HEAD])]
    if not whole.empty:
        return next(whole.tail(1).itertuples(index=False))
    base = next(r for r in inputs.results if r.run == comparison.a)
    best = next(base.ranked(info.name, metric).itertuples(index=False), None)
    if best is None or not pd.isna(best.src_layer):
        return None
    same = mine[(mine["metric"] == metric) & (mine["layer"] == best.layer) & (mine["head"] == best.head)]
    return None if same.empty else next(same.tail(1).itertuples(index=False))


def _relation(value: Estimate, info: ProbeInfo, metric: str, *, among: int) -> str:
    """Where the interval lies against chance; nothing for what was not sampled, whose null has a spread of its own."""
    if value.value is None or value.chance is None or value.lo is None or value.hi is None:
        return ""
    if value.lo == value.hi:
        return ""
    side = against_chance(
        value.value,
        value.lo,
        value.hi,
        chance=value.chance,
        smallest=smallest_effect(info, metric),
        among=among,
        sampled=info.sampled_chance,
    )
    if side == "at":
        return "at chance"
    if info.better_of(metric) == "lower":
        return "better than chance" if side == "below" else "worse than chance"
    return f"{side} chance"


def _evidence_rows(results: Results) -> list[tuple[Value, ...]]:
    """Every head that is called an induction head at the last step, and the nearest one that is not."""

    def by_head(rows: pd.DataFrame) -> dict[tuple[int, int], Any]:
        of_heads = rows[rows["layer"].notna()]  # a reason why nothing was measured stands for no head
        return {(int(row.layer), int(row.head)): row for row in of_heads.itertuples(index=False)}

    at = {
        metric: by_head(results.rows("induction", metric, step=results.last_step))
        for metric in ("verdict", *_EVIDENCE, *_TESTS)
    }
    verdicts = at["verdict"]
    heads = sorted(head for head, row in verdicts.items() if row.valid and is_called(row.value))
    nearest = by_head(results.ranked("induction", "prefix_excess"))
    heads += [head for head in nearest if head in verdicts and head not in heads][:1]
    unmet = {} if results.last_step is None else not_called(results, results.last_step)
    rows: list[tuple[Value, ...]] = []
    for head in heads:
        evidence = [estimate_of(at[m][head]) if head in at[m] else None for m in _EVIDENCE]
        n = next((e.n for e in evidence if e is not None and e.n is not None), None)
        tests = [at[m].get(head) for m in _TESTS]
        q = ["–" if row is None or not row.valid else p_value(row.value) for row in tests]
        word = replace(called(verdicts[head]), detail=unmet.get(head, ""))
        rows.append((clean(results.run), head_label(*head), word, *evidence, n, *q))
    return rows


def no_baseline(inputs: Inputs) -> str:
    """Why nothing is compared, and at which steps the runs are shown."""
    if inputs.base or inputs.refused:
        return "No comparison with the baseline could be made; the alerts say why."
    measured = inputs.shown.measured
    steps = listed([f"{clean(r.run)} at step {step_number(r.last_step)}" for r in measured], most=8)
    if len(inputs.results) == 1:
        return f"One run is shown, {steps or 'of which nothing was measured'}; nothing is compared."
    return f"No baseline was named (--base RUN), so nothing is compared. Shown: {steps or 'nothing'}."
