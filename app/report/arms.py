"""Arm against arm: what differs between groups of runs, over their training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from byrote.probes import figures
from byrote.probes.comparable import meaning, measure_name
from byrote.probes.findings_compared import arms_headline, onset_lines, seed_tally
from byrote.probes.group_comparison import GroupComparison
from byrote.probes.groups import Group
from byrote.probes.registry import REGISTRY
from byrote.probes.results.run_facts import FACTS
from byrote.probes.rules import MIN_SEEDS
from byrote.probes.wording import MISSING, clean, interval, number, p_value, sentence_case, step_number
from byrote.report.model import TONES, Block, Estimate, Listing, Prose, Section, Table, Value, Words
from byrote.report.report_inputs import Inputs
from byrote.report.tables import picture

_FAMILIES = ("primary", "secondary", "further")
_OVER_TRAINING = (("repeat_loss", "later_blocks"), ("held_out_loss", "loss"), ("prefix_matching", "score"))


def arms_title(inputs: Inputs) -> str:
    """What the arms differ in, as the title of a report; "" where none were compared."""
    return arms_headline(inputs.arms)


def arms_sections(inputs: Inputs) -> tuple[Section, ...]:
    """The arms and their seeds, and every comparison with the baseline arm; () where runs are in no groups."""
    if not inputs.groups:
        return ()
    course: list[Block] = []
    if inputs.arms:  # the first of the curves stands on the front where heads cannot
        lines = dict.fromkeys(line for found in inputs.arms for line in onset_lines(found))
        course += [Listing(tuple(f"{line}." for line in lines))] if lines else []
        course += _primary_curve(inputs)
        course += arm_curves(inputs.groups)[0 if one_shape(inputs.groups) else 1 :]
    blocks: list[Block] = []
    for index, found in enumerate(inputs.arms):
        blocks += _one(found, index)
    if not inputs.arms:
        blocks.append(
            Prose(
                "No baseline arm was named. Name one with --base to compare every other arm with it.", "note"
            )
        )
    blocks.append(_declared(inputs.groups))
    many = inputs.shown is not inputs
    over_training = Section("arms-training", "Over training, arm by arm", tuple(course), folded=not many)
    compared = Section("arms", "Arm against arm", tuple(blocks), folded=True)
    return (over_training, compared) if course else (compared,)


def by_arm_table(arms: tuple[GroupComparison, ...]) -> Table:
    """The primary and secondary measures of every arm, with the baseline arm and the difference from it."""
    last = [found.rows[found.rows["step"] == found.steps[-1]] for found in arms]
    by_measure = [{(row.probe, row.metric): row for row in rows.itertuples(index=False)} for rows in last]
    shown = last[0][last[0]["family"].isin(_FAMILIES[:2])]
    order = shown["family"].map(_FAMILIES.index).sort_values(kind="stable").index
    rows = []
    for key in (tuple(pair) for pair in shown.loc[order, ["probe", "metric"]].to_numpy()):
        first = by_measure[0][key]
        mine = [first, *(rows_of.get(key) for rows_of in by_measure[1:])]
        rows.append((_explained(*key), number(first.a), *(_cell(row) for row in mine)))
    names = [clean(arms[0].a.name), *(clean(found.b.name) for found in arms)]
    rows[:0] = _formed(arms)
    caption = (
        f"Means over training seeds at step {step_number(arms[0].steps[-1])}, and below each the difference from {names[0]} with its "
        "95% interval over seeds and sequences. Of the measures the first is the primary one; the others are secondary, and are corrected "
        "together for being many (Holm). “No clear change”: after that correction, or because the interval reaches below the smallest "
        "effect of interest, even where it excludes 0."
    )
    return Table("by-arm", caption, ("Measure", f"{names[0]}, baseline", *names[1:]), tuple(rows))


def _formed(arms: Sequence[GroupComparison]) -> list[tuple[Value, ...]]:
    """How many seeds of each arm form lasting induction heads, with the test of each against the baseline."""
    formed = [one.formed for one in arms]
    if None in formed:
        return []
    first, *_ = known = [one for one in formed if one is not None]
    cells = [
        Words(f"{each[2]} of {each[3]}", detail=f"p = {p_value(one.p_formed)}")
        for one, each in zip(arms, known, strict=True)
    ]
    what = Words("Seeds with induction heads", detail="lasting ones; Fisher's exact test, corrected (Holm)")
    return [(what, f"{first[0]} of {first[1]}", *cells)]


def _cell(row: Any) -> Value:
    """An arm's mean with its difference from the baseline, as the word for it colours it."""
    if row is None:
        return None
    known = not pd.isna(row.lo)
    by = interval(row.difference, row.lo, row.hi, sign=True) if known else number(row.difference, sign=True)
    return Words(number(row.b), TONES.get(row.change, "plain"), f"{by} {row.change}")


def one_shape(groups: tuple[Group, ...]) -> bool:
    """Whether every head of every run can be drawn beside the others: models of one shape, prefix matching measured in all."""
    runs = [run for one in groups for run in one.runs]
    measured = all(run.has("prefix_matching", "score", valid=True) for run in runs)
    return measured and len({run.shape for run in runs}) == 1


def heads_by_arm(groups: tuple[Group, ...]) -> list[Block]:
    """Every head of every seed of all arms, of models of `one_shape`."""
    runs = [run for one in groups for run in one.runs]
    return [picture("heads-by-arm", figures.arm_grids(groups), runs)]


def _primary_curve(inputs: Inputs) -> list[Block]:
    """The measure that decides over training, where it is none of those that are drawn in any case."""
    rows = inputs.arms[0].rows
    primary = (
        rows.loc[rows["family"] == "primary", ["probe", "metric"]].head(1).itertuples(index=False, name=None)
    )
    return [block for one in primary if one not in _OVER_TRAINING for block in _curves(inputs.groups, (one,))]


def arm_curves(groups: tuple[Group, ...]) -> list[Block]:
    """Copying, test loss and the strongest head over training, a figure each with all arms in it."""
    return _curves(groups, _OVER_TRAINING)


def _curves(groups: tuple[Group, ...], metrics: Sequence[tuple[str, str]]) -> list[Block]:
    runs = [run for one in groups for run in one.runs]
    return [
        picture(
            f"{probe.replace('_', '-')}{'' if (probe, metric) in _OVER_TRAINING else '-primary'}-by-arm",
            figures.seed_curves(groups, probe=probe, metric=metric),
            runs,
        )
        for probe, metric in metrics
        if all(run.has(probe, metric, valid=True) and len(run.steps) > 1 for run in runs)
    ]


def _one(found: GroupComparison, index: int) -> list[Block]:
    a, b = clean(found.a.name), clean(found.b.name)
    how = (
        "paired by seed: they share init and unique data"
        if not found.why_unpaired
        else f"not paired: {found.why_unpaired}"
    )
    few = (
        ""
        if found.speaks_of_arms
        else f" With fewer than {MIN_SEEDS} seeds a side nothing is said of the arms, only of these runs."
    )
    blocks: list[Block] = [Prose(found.sentence), Prose(f"{seed_tally(found)}.")]
    if not index:
        blocks.append(
            Prose(
                f"Differences are {b} minus {a}, over training seeds, {how}. Intervals are Student's over seeds, with the variance "
                "of the choice of sequences added. A change is clear when its whole interval lies beyond the measure's smallest "
                "effect of interest and q is below 0.05. The primary measure is tested alone, the secondary ones are corrected "
                f"together (Holm), the further ones by Benjamini-Hochberg.{few}",
                "note",
            )
        )
    if found.notes:
        blocks.append(Prose(f"{sentence_case('; '.join(found.notes))}.", "note"))
    last = found.rows[found.rows["step"] == found.steps[-1]]
    order = last["family"].map(_FAMILIES.index)
    rows = tuple(
        _row(row) for row in last.loc[order.sort_values(kind="stable").index].itertuples(index=False)
    )
    caption = (
        f"A is {a}, B is {b}, at step {step_number(found.steps[-1])}: means over {len(found.a)} and {len(found.b)} seeds. Seeds over "
        "sequences: how many times as far as the choice of sequences moves one run's number the seeds move it."
    )
    columns = ("Family", "Measure", "A", "B", "B − A [95% interval]", "n", "q", "Seeds over sequences", "Each seed of A",
               "Each seed of B", "In words")  # fmt: skip
    blocks.append(Table(f"arms-table-{index}", caption, columns, rows))
    return blocks


def _measure(probe: str, metric: str) -> Words:
    unit = REGISTRY[probe].unit_of(metric.partition(":")[0]) if probe in REGISTRY else ""
    return Words(measure_name(probe, metric), detail=unit)


def _explained(probe: str, metric: str) -> Words:
    words, meaning_text = _measure(probe, metric), meaning(probe, metric)
    return Words(
        sentence_case(words.text), detail=f"{meaning_text} ({words.detail})" if meaning_text else words.detail
    )


def _row(row: Any) -> tuple[Value, ...]:
    known = not pd.isna(row.lo)
    difference: Value = number(row.difference, sign=True)
    if known:
        difference = Estimate(row.difference, row.lo, row.hi, n=int(row.n), signed=True)
    seeds = [", ".join(number(v) for v in values) for values in (row.values_a, row.values_b)]
    times = MISSING if pd.isna(row.seed_to_sequence) else number(row.seed_to_sequence, places=1)
    word = Words(row.change, TONES.get(row.change, "plain"))
    return (
        row.family, _measure(row.probe, row.metric), number(row.a), number(row.b), difference, int(row.n) or MISSING,
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
    caption = "What each run declares, by the manifest of its series or by byrote.toml beside the results; – means not declared."
    return Table("arms-declared", caption, columns, tuple(rows))
