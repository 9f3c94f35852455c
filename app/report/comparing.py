"""Run against run: what changed, by how much, and how surely."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.probes import figures
from byrote.probes.comparable import BEST_HEAD, Comparison
from byrote.probes.figures.differences import matched_final
from byrote.probes.findings import first_head, tally
from byrote.probes.results.rows import row_label
from byrote.probes.rules import change
from byrote.probes.wording import clean, number, p_value, probe_name, step_number
from byrote.report.model import TONES, Block, Estimate, Listing, Picture, Prose, Section, Table, Value, Words
from byrote.report.scene import Scene, seeds_of

MAX_ROWS = 40


def comparison_section(scene: Scene) -> Section:
    """Every comparison with the baseline, or the sentence that says why there is none."""
    blocks: list[Block] = [Prose(f"Not compared: {text}", "note") for text in scene.refused]
    for index, comparison in enumerate(scene.comparisons):
        blocks += _one(scene, comparison, index)
    if not blocks:
        blocks.append(
            Prose(
                "No baseline was given. Name one with --base to compare every other run with it, paired on the same sequences."
            )
        )
    return Section("comparison", "Run against run", tuple(blocks))


def _one(scene: Scene, comparison: Comparison, index: int) -> list[Block]:
    a, b = clean(comparison.a), clean(comparison.b)
    steps = comparison.pairs[-1] if comparison.pairs else None
    matched = (
        ""
        if steps is None
        else f" Matched by {comparison.align}: {a} at step {step_number(steps[0])}, {b} at step {step_number(steps[1])}."
    )
    onsets = tuple(
        f"Onset in {first_head(name, onset)}."
        for name, onset in ((comparison.a, comparison.onset_a), (comparison.b, comparison.onset_b))
    )
    blocks: list[Block] = [
        Prose(comparison.sentence, "lead"),
        Prose(f"{tally(comparison)}.", "lead"),
        Listing(onsets),
        Prose(
            f"Differences are {b} minus {a}, paired by test sequence.{matched} “Better” and “worse” follow each probe's "
            "own direction. A difference whose 95% interval holds 0, or that is below the smallest effect of interest (0.05 for scores and "
            "nats), is no clear change.",
            "note",
        ),
    ]
    seeds = seeds_of([r for r in scene.results if r.run in (comparison.a, comparison.b)])
    final = matched_final(comparison)
    if final.empty:
        return [*blocks, Prose("No metric was measured in both runs at a matched step.")]
    blocks.append(
        Picture(
            f"differences-{index}",
            figures.differences(comparison),
            _difference_table(final, index, seeds=seeds),
        )
    )
    for probe in [p for p in scene.head_probes if _has_heads(final, p)][:1]:
        figure = figures.difference_grid(comparison, probe=probe)
        blocks.append(
            Picture(f"difference-grid-{index}", figure, _grid_table(final, probe, index, seeds=seeds))
        )
    return blocks


def _has_heads(rows: pd.DataFrame, probe: str) -> bool:
    return bool(((rows["probe"] == probe) & (rows["metric"] == "score") & rows["layer"].notna()).any())


def _difference_table(final: pd.DataFrame, index: int, *, seeds: str) -> Table:
    ranked = final.assign(_whole=final["layer"].isna(), _size=final["difference"].abs())
    ranked = ranked.sort_values(["_whole", "_size"], ascending=[False, False], kind="stable")
    shown = ranked.head(MAX_ROWS)
    return Table(
        name=f"differences-{index}-table",
        caption="Whole model first, then heads, largest differences first. q is corrected over heads (Benjamini-Hochberg). "
        + seeds,
        columns=("Measure", "Head", "A", "B", "B − A [95% interval]", "n", "q", "In words"),
        rows=tuple(_row(r) for r in shown.itertuples(index=False)),
        n_left_out=len(ranked) - len(shown),
    )


def _grid_table(final: pd.DataFrame, probe: str, index: int, *, seeds: str) -> Table:
    rows = final[(final["probe"] == probe) & (final["metric"] == "score") & final["layer"].notna()]
    rows = rows.sort_values(["layer", "head"])
    return Table(
        name=f"difference-grid-{index}-table",
        caption=f"{probe_name(probe)} of every head. {seeds}",
        columns=("Measure", "Head", "A", "B", "B − A [95% interval]", "n", "q", "In words"),
        rows=tuple(_row(r) for r in rows.head(MAX_ROWS).itertuples(index=False)),
        n_left_out=max(0, len(rows) - MAX_ROWS),
    )


def _row(row: Any) -> tuple[Value, ...]:
    best = row.metric == BEST_HEAD
    head = f"{row.head_a} and {row.head_b}" if best else row_label(row) or "whole model"
    name = probe_name(row.probe)
    name = (
        f"{name}, strongest head"
        if best
        else name
        if row.metric == "score"
        else f"{name}: {probe_name(row.metric)}"
    )
    difference = Estimate(row.difference, row.lo, row.hi, n=int(row.n), signed=True)
    word = change(row)
    return (
        name,
        head,
        number(row.a),
        number(row.b),
        difference,
        int(row.n) or "–",
        p_value(row.q),
        Words(word, TONES.get(word, "plain")),
    )
