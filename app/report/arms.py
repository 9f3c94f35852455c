"""Arm against arm: what differs between groups of runs, over their training seeds."""

from __future__ import annotations

from typing import Any

import pandas as pd

from byrote.probes import figures
from byrote.probes.comparable import measure_name
from byrote.probes.findings_compared import formed_sentence, onset_lines, seed_tally
from byrote.probes.group_comparison import GroupComparison
from byrote.probes.groups import Group
from byrote.probes.registry import REGISTRY
from byrote.probes.results.run_facts import FACTS
from byrote.probes.rules import MIN_SEEDS
from byrote.probes.wording import MISSING, clean, number, p_value, step_number
from byrote.report.model import TONES, Block, Estimate, Listing, Prose, Section, Table, Value, Words
from byrote.report.report_inputs import Inputs
from byrote.report.tables import picture

_FAMILIES = ("primary", "secondary", "further")


def arms_title(inputs: Inputs) -> str:
    """What the arms differ in, as the title of a report; "" where none were compared."""
    return "; ".join(formed_sentence(found) for found in inputs.arms)


def arms_sections(inputs: Inputs) -> tuple[Section, ...]:
    """The arms and their seeds, and every comparison with the baseline arm; () where runs are in no groups."""
    if not inputs.groups:
        return ()
    blocks: list[Block] = []
    for index, found in enumerate(inputs.arms):
        groups = tuple(one for arm in (found.a, found.b) for one in inputs.groups if one.name == arm.name)
        blocks += _one(found, groups, index)
    if not inputs.arms:
        blocks.append(
            Prose(
                "No baseline arm was named. Name one with --base to compare every other arm with it.", "note"
            )
        )
    blocks.append(_declared(inputs.groups))
    return (Section("arms", "Arm against arm", tuple(blocks)),)


def _one(found: GroupComparison, groups: tuple[Group, ...], index: int) -> list[Block]:
    a, b = clean(found.a.name), clean(found.b.name)
    how = (
        "paired by seed: they share init and unique data"
        if not found.why_unpaired
        else f"not paired: {found.why_unpaired}"
    )
    few = (
        ""
        if found.speaks_of_arms
        else f" Below {MIN_SEEDS} seeds a side nothing is said of the arms, only of these runs."
    )
    blocks: list[Block] = [
        Prose(found.sentence, "lead"),
        Prose(f"{seed_tally(found)}.", "lead"),
        Listing(tuple(f"{line}." for line in onset_lines(found))),
        Prose(
            f"Differences are {b} minus {a}, over training seeds, {how}. Intervals are Student's over seeds, with the variance "
            "of the choice of sequences added. A change is clear when its whole interval lies beyond the metric's smallest "
            "effect and q is below 0.05: the primary metric decides, the secondary ones are corrected together (Holm), the "
            f"further ones by Benjamini-Hochberg.{few}",
            "note",
        ),
        *(Prose(note, "note") for note in found.notes),
    ]
    primary = found.rows[found.rows["family"] == "primary"]
    probe, metric = (
        ("repeat_loss", "later_blocks") if primary.empty else primary.iloc[-1][["probe", "metric"]]
    )
    runs = [run for one in groups for run in one.runs]
    if all(run.has(probe, metric, valid=True) for run in runs):
        figure = figures.seed_curves(groups, probe=probe, metric=metric)
        blocks.append(picture(f"seeds-{index}", figure, runs))
    last = found.rows[found.rows["step"] == found.steps[-1]]
    order = last["family"].map(_FAMILIES.index)
    rows = tuple(
        _row(row) for row in last.loc[order.sort_values(kind="stable").index].itertuples(index=False)
    )
    caption = (
        f"{b} minus {a} at step {step_number(found.steps[-1])}: means over {len(found.a)} and {len(found.b)} seeds. Seeds over "
        "sequences: how many times as far as the choice of sequences moves one run's number the seeds move it."
    )
    columns = ("Family", "Measure", "A", "B", "B − A [95% interval]", "n", "q", "Seeds over sequences", "Each seed of A",
               "Each seed of B", "In words")  # fmt: skip
    blocks.append(Table(f"arms-table-{index}", caption, columns, rows))
    return blocks


def _row(row: Any) -> tuple[Value, ...]:
    name = measure_name(row.probe, row.metric)
    unit = REGISTRY[row.probe].unit_of(row.metric.partition(":")[0]) if row.probe in REGISTRY else ""
    known = not pd.isna(row.lo)
    difference: Value = number(row.difference, sign=True)
    if known:
        difference = Estimate(row.difference, row.lo, row.hi, n=int(row.n), signed=True)
    seeds = [", ".join(number(v) for v in values) for values in (row.values_a, row.values_b)]
    times = MISSING if pd.isna(row.seed_to_sequence) else number(row.seed_to_sequence, places=1)
    word = Words(row.change, TONES.get(row.change, "plain"))
    return (
        row.family, Words(name, detail=unit), number(row.a), number(row.b), difference, int(row.n) or MISSING,
        p_value(row.q), times, *seeds, word,
    )  # fmt: skip


def _declared(groups: tuple[Group, ...]) -> Table:
    """Every run with what it declares."""
    rows = []
    for one in groups:
        for run in one.runs:
            facts = (getattr(run.facts, name) for name in FACTS[1:])
            rows.append(
                (clean(one.name), clean(run.run, limit=40), *(MISSING if v is None else v for v in facts))
            )
    columns = ("Arm", "Run", "Init seed", "Data seed", "Parameters", "Without embeddings", "f, repeated share", "E, epochs", "P, pool",
               "Synthetic share", "Generation")  # fmt: skip
    caption = "What each run declares, by the manifest of its series or by byrote.toml beside the results; – is not declared."
    return Table("arms-declared", caption, columns, tuple(rows))
