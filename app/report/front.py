"""The first two pages: what was found, the figure and the few numbers that show it, and memory beside the rule."""

from __future__ import annotations

from collections.abc import Sequence

from byrote.probes import figures
from byrote.probes.degrade.measures import Degradation
from byrote.probes.figures.memory_plane import MEMORY_AXES, RULE_AXES, available
from byrote.probes.findings import MAX_RUNS_NAMED, worth_of_copying
from byrote.probes.findings_arms import MAX_COUNTS_NAMED
from byrote.probes.findings_compared import copying_sentence, formed_headline, tally
from byrote.probes.findings_memory import (
    NOT_MEASURED,
    completed_members,
    memorised_members,
    trained_on_members,
)
from byrote.probes.group_comparison import GroupComparison
from byrote.probes.groups import seeds_an_arm
from byrote.probes.rules import PRIMARY, SECONDARY
from byrote.probes.wording import clean
from byrote.report.arms import arm_curves, by_arm_table, heads_by_arm, one_shape
from byrote.report.degradation import over_doses
from byrote.report.model import Block, Prose, Section, Table
from byrote.report.report_inputs import Inputs
from byrote.report.summary import front_table, no_baseline
from byrote.report.tables import picture
from byrote.report.training import key_figure

FINDING = "The finding"
WHAT_IS_MEASURED = (
    "An induction head is an attention head that copies: it finds where the current token stood earlier in the text, and raises the "
    "token that followed it there, even among random tokens that the model never saw. Such a model has learned a rule; one that "
    "memorised sequences of its training data has learned by rote. Copying is measured by how far the loss falls where random tokens "
    "are repeated, memory by training sequences (members) beside fresh ones of the same kind (twins). The words used here are "
    "explained at the end."
)


def finding_section(inputs: Inputs, degraded: Degradation | None = None) -> Section:
    """What a reader needs who reads nothing else: sentences, one key figure, the named measures, the memory plane.

    Of arms it says what holds over their seeds, and of doses how damage goes with the dose; of runs, what holds of the runs
    that are shown.

    Args:
        inputs: all runs.
        degraded: what `degradation_of` found in them.
    """
    shown = inputs.shown
    compared = inputs.arms or shown.comparisons
    blocks: list[Block] = [Prose(WHAT_IS_MEASURED, "note")]
    copying = copying_sentence(inputs.arms) if len(inputs.arms) > 1 else ""
    blocks += [Prose(text, "lead") for text in _differences(inputs, copying)]
    blocks += [Prose(_how_compared(inputs.arms), "note")] if copying else []
    if memory := memorised_members(inputs.results):
        blocks.append(Prose(f"{memory}.", "lead"))
    both = [run for run in shown.results if available(MEMORY_AXES, [run]) and available(RULE_AXES, [run])]
    remembered = available(MEMORY_AXES, shown.results)
    if not (memory or remembered):
        blocks.append(Prose(NOT_MEASURED, "lead"))
    if not compared:
        blocks.append(Prose(no_baseline(inputs), "note"))
    blocks += [*over_doses(degraded), *_members_by_arm(inputs)]
    if inputs.arms:
        key = heads_by_arm(inputs.groups) if one_shape(inputs.groups) else arm_curves(inputs.groups)[:1]
        by_arm = by_arm_table(inputs.arms)
        blocks += [*key, *([by_arm] if by_arm.rows else [])]
    else:
        table = front_table(shown, "finding-table", named_measures(shown))
        blocks += [*key_figure(shown), *([table] if table else [])]
    if both:
        first = inputs.groups[0].name if inputs.arms else shown.drawn_base
        figure = figures.memory_plane(inputs.groups or shown.results, base=first)
        runs = [run for one in inputs.groups for run in one.runs] or shown.results
        blocks.append(picture("memory-plane", figure, runs))
    return Section("finding", FINDING, tuple(blocks))


def _members_by_arm(inputs: Inputs) -> list[Block]:
    """How many members each arm completes, where they are too many for a sentence."""
    in_order = [run for one in inputs.groups for run in one.runs]
    found = completed_members(in_order)
    if len(found) <= MAX_COUNTS_NAMED:
        return []
    untrained = {clean(run.facts.arm or run.run) for run in in_order if not trained_on_members(run)}
    rows = tuple(
        (name, counts, "no: a control" if name in untrained else "yes") for name, counts in found.items()
    )
    caption = "Sequences completed without an error, of those that were tested in all seeds of an arm."
    return [Table("members-by-arm", caption, ("Arm", "Completed", "Trained on them"), rows)]


def _differences(inputs: Inputs, copying: str) -> list[str]:
    """What was found in a run, between runs, or over the seeds of arms; of more than two arms, how much each of them copies.

    Args:
        inputs: all runs.
        copying: the sentence on more than two arms; "" where there is none.
    """
    if copying:
        formed = formed_headline(inputs.arms)
        return [f"{copying}.{f' {formed}.' if formed else ''}"]
    if inputs.arms:
        return without_repeats(list(dict.fromkeys(one.sentence for one in inputs.arms)))
    if not inputs.shown.comparisons:
        worth = [sentence for run in inputs.shown.results if (sentence := worth_of_copying(run))]
        return [f"{sentence}." for sentence in worth[:MAX_RUNS_NAMED]]
    compared = inputs.shown.comparisons
    by_primary = all(any(one.row(*key) is not None for key in PRIMARY) for one in compared)
    return [f"{tally(one)}." if by_primary else one.sentence for one in compared]


def _how_compared(compared: Sequence[GroupComparison]) -> str:
    """What the numbers of the sentence on more than two arms are."""
    arms = [compared[0].a, *(one.b for one in compared)]
    return (
        f"Means over {seeds_an_arm(arms)}; in brackets the difference from {clean(arms[0].name)} with its 95% interval over seeds "
        "and sequences. Without copying, nothing is gained: 0 nats."
    )


def without_repeats(texts: Sequence[str]) -> list[str]:
    """Texts, with a first sentence that all share stated once."""
    first = {text.partition(". ")[0] for text in texts}
    if len(texts) < 2 or len(first) > 1:
        return list(texts)
    return [f"{first.pop()}.", *(text.partition(". ")[2] for text in texts)]


def named_measures(inputs: Inputs) -> list[tuple[str, str]]:
    """The primary measure and the eight secondary ones, as far as some run has them: (probe, metric) of the summary."""
    named = dict.fromkeys((probe, metric.partition(":")[0]) for probe, metric in (*PRIMARY, *SECONDARY))
    found = [key for key in named if any(not r.rows(*key, step=r.last_step).empty for r in inputs.measured)]
    primary = [key for key in PRIMARY if key in found]
    return [key for key in found if key not in primary[1:]]
