"""The summary table and the induction verdict: one look at where each run ended."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.probes.comparable import BEST_HEAD, Comparison
from byrote.probes.findings import first_head, lacks_material
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.rows import row_label
from byrote.probes.rules import against_chance, change, smallest_effect
from byrote.probes.spec import ProbeInfo
from byrote.probes.wording import chance_number, clean, p_value, probe_name, sentence_case, step_number
from byrote.report.model import TONES, Block, Estimate, Listing, Prose, Section, Table, Term, Value, Words
from byrote.report.scene import Scene, at_last, estimate_of, last_step, seeds_of, strongest

_ARROWS = {"higher": ", ↑\u00a0better", "lower": ", ↓\u00a0better", None: ""}
_EVIDENCE = ("prefix_excess", "copying_excess", "jitter_excess")


def summary_section(scene: Scene) -> Section:
    """Every probe's main numbers at each run's last step."""
    rows = [row for info, metric in _wanted(scene) for row in _metric_rows(scene, info, metric)]
    versus = f"Change from {clean(scene.base)}" if scene.base else "Change from baseline"
    table = Table(
        name="summary-table",
        caption="Each run at its last step. For head probes the value is that of the strongest head, named in front; "
        "its interval does not cover the choice of the head. “At chance” is also what is nearer to chance than the smallest "
        "effect (0.05 for scores and nats), or not clear of it once the choice among heads is corrected for. "
        + seeds_of(scene.results),
        columns=("Measure", "Run", "Value [95% interval]", "n", "Chance", versus, "In words"),
        rows=tuple(rows),
    )
    lead: list[Block] = [Prose(c.sentence, "lead") for c in scene.comparisons]
    if not scene.comparisons:
        lead.append(Prose(_no_baseline(scene), "note"))
    body = [table] if rows else [Prose("Nothing was measured, so there is nothing to summarise.")]
    return Section("summary", "Summary", (*lead, *body))


def verdict_section(scene: Scene) -> Section:
    """Whether each run has induction heads, since when, and on what evidence."""
    found = Listing(tuple(_run_finding(scene, r) for r in scene.results))
    rows = [row for r in scene.measured for row in _evidence_rows(r)]
    rule = Prose(
        "A head is called an induction head only when it matches prefixes and copies, both above their nulls by more "
        "than 0.05 with 95% intervals and after Benjamini-Hochberg correction over heads, and when it still matches "
        "on blocks of varying length.",
        "note",
    )
    if not rows:
        missing = Prose("The induction verdict was not measured: it needs prefix_matching and copying_logit.")
        return Section("verdict", "Induction heads", (found, missing, rule))
    table = Table(
        name="verdict-table",
        caption="Evidence at the last step: every head that is called, and per run the nearest one that is not. "
        + seeds_of(scene.results),
        columns=("Run", "Head", "Called", "Prefix matching above null", "Copying above null", "On varying blocks", "n",
                 "q prefix", "q copying"),
        rows=tuple(rows),
    )  # fmt: skip
    return Section("verdict", "Induction heads", (found, table, rule))


def _run_finding(scene: Scene, results: Results) -> str:
    if results.run not in scene.onsets:
        return f"{clean(results.run)}: nothing was measured."
    return f"{first_head(results.run, scene.onsets[results.run])}."


def _wanted(scene: Scene) -> list[tuple[ProbeInfo, str]]:
    """Probe and metric pairs of the summary: main metrics of heads, all scalars of the model."""
    chosen = []
    for info in REGISTRY.values():
        if info.name == "induction" or not any(_wanted_of(r, info.name) for r in scene.measured):
            continue
        chosen += [
            (info, m)
            for m in info.summarised
            if any(not at_last(r, info.name, m).empty for r in scene.measured)
        ]
    return chosen


def _wanted_of(results: Results, probe: str) -> bool:
    """Whether a run has any row of a probe that did not merely wait for sequences nobody gave."""
    return bool(((results.frame["probe"] == probe) & ~lacks_material(results)).any())


def _metric_rows(scene: Scene, info: ProbeInfo, metric: str) -> list[tuple[Value, ...]]:
    name = sentence_case(probe_name(info.name))
    if metric not in ("score", info.main_metric) or info.kind == "model":
        name = f"{name}: {probe_name(metric)}"
    rows: list[tuple[Value, ...]] = []
    for results in scene.measured:
        mine = at_last(results, info.name, metric)
        if mine.empty:
            continue
        best = strongest(mine)
        value = (
            estimate_of(next(mine.itertuples(index=False)))
            if best is None
            else estimate_of(best, where=row_label(best))
        )
        difference, word = _versus(scene, results.run, info, metric)
        rows.append(
            (Term(name, info.unit_of(metric) + _ARROWS[info.better_of(metric)]), clean(results.run, limit=40), value,
             _n(value, info), _chance(value), difference,
             _in_words(word, _verdict_word(results, info)
                       or _relation(value, info, metric, among=int(mine["valid"].sum()))))
        )  # fmt: skip
    return rows


def _verdict_word(results: Results, info: ProbeInfo) -> str:
    """The probe's own verdict at the run's last step; "" where it gives none."""
    for metric in info.words:
        rows = at_last(results, info.name, metric)
        if len(rows) == 1 and rows["valid"].all():
            return info.word_of(metric, float(rows["value"].iloc[0]))
    return ""


def _versus(scene: Scene, run: str, info: ProbeInfo, metric: str) -> tuple[Value, Words]:
    """The paired difference from the baseline, and what it says."""
    if run == scene.base:
        return "baseline", Words("")
    comparison = scene.comparison_with(run)
    row = None if comparison is None else _difference_row(comparison, scene, info, metric)
    if row is None:
        return "–", Words("")
    where = "" if pd.isna(row.layer) else f"at {row_label(row)}"
    word = change(row)
    estimate = Estimate(row.difference, row.lo, row.hi, n=int(row.n), where=where, signed=True)
    return estimate, Words(word, TONES.get(word, "plain"))


def _difference_row(comparison: Comparison, scene: Scene, info: ProbeInfo, metric: str) -> Any | None:
    """Model-level difference, strongest against strongest, or the baseline's strongest head against itself."""
    rows = comparison.rows
    mine = rows[(rows["probe"] == info.name) & rows["position"].isna()]
    whole = mine[mine["layer"].isna() & mine["metric"].isin([metric, BEST_HEAD])]
    if not whole.empty:
        return next(whole.tail(1).itertuples(index=False))
    base = next(r for r in scene.results if r.run == comparison.a)
    best = strongest(at_last(base, info.name, metric))
    if best is None or not pd.isna(best.src_layer):
        return None
    same = mine[(mine["metric"] == metric) & (mine["layer"] == best.layer) & (mine["head"] == best.head)]
    return None if same.empty else next(same.tail(1).itertuples(index=False))


def _in_words(change: Words, relation: str) -> Words:
    if not change.text:
        return Words(relation, "muted" if relation == "at chance" else "plain")
    return Words(change.text, change.tone, relation)


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
    verdicts = at_last(results, "induction", "verdict")
    if verdicts.empty:
        return []
    called = verdicts[verdicts["value"] == 1]
    others = verdicts[(verdicts["value"] != 1) | ~verdicts["valid"].astype(bool)]
    excess = at_last(results, "induction", "prefix_excess")
    near = (
        strongest(excess.merge(others[["layer", "head"]], on=["layer", "head"])) if not excess.empty else None
    )
    shown = [
        *called.sort_values(["layer", "head"]).itertuples(index=False),
        *([near] if near is not None else []),
    ]
    return [_evidence_row(results, row) for row in shown]


def _evidence_row(results: Results, head: Any) -> tuple[Value, ...]:
    def cell(metric: str) -> Any | None:
        rows = at_last(results, "induction", metric)
        mine = rows[(rows["layer"] == head.layer) & (rows["head"] == head.head)]
        return None if mine.empty else next(mine.itertuples(index=False))

    verdict = cell("verdict")
    if verdict is None:
        word = Words("not measured", "muted")
    elif not verdict.valid:
        word = Words(f"not measured: {verdict.reason}", "muted")
    else:
        word = Words("yes", "good") if verdict.value == 1 else Words("no", "muted")
    evidence = [None if cell(m) is None else estimate_of(cell(m)) for m in _EVIDENCE]
    n = next((e.n for e in evidence if e is not None and e.n is not None), None)
    return (
        clean(results.run),
        row_label(head),
        word,
        *evidence,
        n,
        *(_q(cell(m)) for m in ("q_prefix", "q_copying")),
    )


def _q(row: Any | None) -> str:
    if row is None or not row.valid:
        return "–"
    return p_value(row.value)


def _n(value: Estimate, info: ProbeInfo) -> Value:
    if not value.n:
        return "–"
    return (
        f"{value.n:,} draws" if info.kind == "weights" else value.n
    )  # draws of the null: nothing else is sampled


def _chance(value: Estimate) -> Value:
    return chance_number(value.chance)


def _no_baseline(scene: Scene) -> str:
    if scene.base:
        return "No comparison with the baseline could be made; the alerts say why."
    steps = ", ".join(f"{clean(r.run)} at step {step_number(last_step(r))}" for r in scene.measured)
    return f"No baseline was given, so nothing is compared. Shown: {steps or 'nothing'}."
