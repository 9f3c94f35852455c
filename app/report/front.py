"""The first two pages: what was found, the figure and the few numbers that show it, and memory beside the rule."""

from __future__ import annotations

from collections.abc import Sequence

from byrote.probes import figures
from byrote.probes.degrade.measures import Degradation
from byrote.probes.figures.memory_plane import MEMORY_AXES, available
from byrote.probes.findings_memory import memorised_members
from byrote.probes.rules import PRIMARY, SECONDARY
from byrote.report.arms import arm_curves, by_arm_table, heads_by_arm, one_shape
from byrote.report.degradation import over_doses
from byrote.report.model import Block, Prose, Section
from byrote.report.report_inputs import Inputs
from byrote.report.summary import measures_table, no_baseline
from byrote.report.tables import picture
from byrote.report.training import trajectories

FINDING = "The finding"
WHAT_IS_MEASURED = (
    "An induction head is an attention head that copies: it finds the earlier place in the text where the current token stood, and "
    "raises the token that followed it there. With such heads a model continues a sequence that is repeated in front of it, even one of "
    "random tokens that it never saw: it has learned a rule. A model can also lower its training loss by rote, by memorising sequences "
    "of its training data. Copying is measured by how far the loss falls when random tokens are repeated (the repeat loss), "
    "heads by where they attend (prefix matching), and memory by sequences of the training data (members) beside fresh "
    "ones of the same kind (twins)."
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
    blocks: list[Block] = [
        Prose(text, "lead") for text in without_repeats([one.sentence for one in compared])
    ]
    if memory := memorised_members(inputs.results):
        blocks.append(Prose(f"{memory}.", "lead"))
    if not compared:
        blocks.append(Prose(no_baseline(inputs), "note"))
    blocks += [Prose(WHAT_IS_MEASURED, "note"), *over_doses(degraded)]
    if inputs.arms:
        key = heads_by_arm(inputs.groups) if one_shape(inputs.groups) else arm_curves(inputs.groups)[:1]
        blocks += [*key, by_arm_table(inputs.arms)]
    else:
        table = measures_table(shown, "finding-table", named_measures(shown))
        blocks += [*trajectories(shown), *([table] if table else [])]
    if available(MEMORY_AXES, shown.results):
        figure = figures.memory_plane(shown.results, base=shown.drawn_base)
        blocks.append(picture("memory-plane", figure, shown.results))
    return Section("finding", FINDING, tuple(blocks))


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
