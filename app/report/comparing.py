"""Run against run: what changed, by how much, and how certain that is."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.probes import figures
from byrote.probes.comparable import BEST_HEAD, Comparison, measure_name
from byrote.probes.figures.differences import matched_final
from byrote.probes.findings import first_head
from byrote.probes.findings_compared import tally
from byrote.probes.registry import REGISTRY
from byrote.probes.wording import clean, number, p_value, probe_name, sentence_case, step_number
from byrote.report.model import TONES, Block, Estimate, Listing, Picture, Prose, Section, Table, Value, Words
from byrote.report.report_inputs import Inputs, seeds_of


def comparison_section(inputs: Inputs) -> Section:
    """Every comparison with the baseline, or the sentence that says why there is none."""
    blocks: list[Block] = [Prose(f"Not compared: {text}", "note") for text in inputs.refused]
    for index, comparison in enumerate(inputs.comparisons):
        blocks += _one(inputs, comparison, index)
    none = "No baseline run was given. Name one with --base to compare every other run with it, paired on the same sequences."
    return Section("comparison", "Run against run", tuple(blocks) or (Prose(none),), folded=True)


def _one(inputs: Inputs, comparison: Comparison, index: int) -> list[Block]:
    a, b = clean(comparison.a), clean(comparison.b)
    matched = ""
    if comparison.pairs:
        step_a, step_b = (step_number(step) for step in comparison.pairs[-1])
        matched = f" Matched by {comparison.align}: {a} at step {step_a}, {b} at step {step_b}."
    onsets = ((comparison.a, comparison.onset_a), (comparison.b, comparison.onset_b))
    blocks: list[Block] = [
        Prose(comparison.sentence, "lead"),
        Prose(f"{tally(comparison)}.", "lead"),
        Listing(tuple(f"Onset in {first_head(name, onset)}." for name, onset in onsets)),
        Prose(
            f"Differences are {b} minus {a}, head by head.{matched} Imported scores have no samples: nothing is tested."
            if comparison.untested
            else f"Differences are {b} minus {a}, paired by test sequence.{matched} Two seeds of one arm differ as significantly as two "
            "arms do: what is said here is said of these two runs. A difference is clear when its whole 95% interval lies beyond "
            "the metric's smallest effect of interest and q is below 0.05.",
            "note",
        ),
        *([Prose(f"{sentence_case(comparison.unnamed)}.", "note")] if comparison.unnamed else []),
    ]
    final = matched_final(comparison)
    if final.empty:
        return [*blocks, Prose("No metric was measured in both runs at a matched step.")]
    seeds = seeds_of([r for r in inputs.results if r.run in (comparison.a, comparison.b)])
    ranked = "Whole model first, then heads, largest differences first. q: one primary metric; eight secondary ones together (Holm); heads, and all else (Benjamini-Hochberg)."
    blocks.append(_picture(f"differences-{index}", figures.differences(comparison), f"{ranked} {seeds}"))
    per_head = set(final.loc[final["layer"].notna(), ["probe", "metric"]].itertuples(index=False, name=None))
    for probe in inputs.head_probes:
        metric = REGISTRY[probe].main_metric
        if (probe, metric) in per_head:
            figure = figures.difference_grid(comparison, probe=probe, metric=metric)
            caption = f"{probe_name(probe)} of every head. {seeds}"
            return [*blocks, _picture(f"difference-grid-{index}", figure, caption)]
    return blocks


def _picture(name: str, figure: figures.Figure, caption: str) -> Picture:
    """A figure of differences with its table, verdicts in their colours."""
    columns = ("Measure", "Head", "A", "B", "B − A [95% interval]", "n", "q", "In words")
    rows = tuple(_row(row) for row in figure.table.itertuples(index=False))
    return Picture(name, figure, Table(f"{name}-table", caption, columns, rows))


def _row(row: Any) -> tuple[Value, ...]:
    heads = [head for head in (row.head_a, row.head_b) if not pd.isna(head) and head]
    name, best = (
        measure_name(row.probe, row.metric),
        row.metric == BEST_HEAD,
    )
    difference = Estimate(row.difference, row.lo, row.hi, n=int(row.n), signed=True)
    word = Words(row.in_words, TONES.get(row.in_words, "plain"))
    head = " and ".join(heads if best else heads[:1]) or "whole model"
    return (name, head, number(row.a), number(row.b), difference, int(row.n) or "–", p_value(row.q), word)
