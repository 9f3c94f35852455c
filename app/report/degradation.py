"""Degradation: damage over the dose, the healthy size that is as good, and what else arms of several seeds say."""

from __future__ import annotations

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.measures import Degradation, degradation
from byrote.probes.degrade.study import DegradeSettings, by_arm
from byrote.probes.figures.study_figures import degradation_figures
from byrote.probes.findings_degrade import degradation_sentences, measured_words
from byrote.probes.results import Results
from byrote.probes.wording import MISSING, clean, number, p_value, sentence_case
from byrote.report.model import Block, Estimate, Prose, Section, Table, Value
from byrote.report.report_inputs import Inputs
from byrote.report.tables import picture

_LEAST_ARMS = 3  # the baseline and two doses, or sizes
_LEAST_DOSES = 3  # of a curve on the front
_DOSES = "doses"  # the figure of them
_NOTE = (
    "Damage is the mean over training seeds less that of the baseline; intervals are over seeds, and over test sequences where "
    "all runs saw the same. The worst dose is chosen on all seeds but one and read on that one, for each in turn: the largest of "
    "many noisy doses is no peak. docs/calibration.md says how each number is computed and what was calibrated."
)


def degradation_of(inputs: Inputs) -> Degradation | None:
    """What repeated or synthetic data cost, where arms differ in a dose or in size; None elsewhere."""
    named = _named(inputs)
    if sum(len(runs) for _, runs in named) < _LEAST_ARMS:
        return None
    try:
        found = degradation(named, DegradeSettings(baseline=named[0][0] if inputs.arms else ""))
    except ByroteError:
        return None  # arms without a clear baseline are compared in their own section
    if found.sizes is None and not any(len(one.rows) > 1 for one in found.doses.values()):
        return None
    return found


def _is_curve(found: Degradation) -> bool:
    return any(len(one.rows) >= _LEAST_DOSES for one in found.doses.values())


def over_doses(found: Degradation | None) -> list[Block]:
    """Damage over the dose, for the front of a report: a sentence and its figure, where there are doses enough for a curve."""
    if found is None or not _is_curve(found):
        return []
    sentences = degradation_sentences(found)[: len(found.doses)]
    runs = [run for one in found.groups for run in one.runs]
    return [
        *(Prose(text, "lead") for text in sentences),
        picture(_DOSES, degradation_figures(found)[_DOSES](), runs),
    ]


def degradation_sections(found: Degradation | None) -> tuple[Section, ...]:
    """All that was found of degradation but what stands on the front; () where nothing was."""
    if found is None:
        return ()
    runs = [run for one in found.groups for run in one.runs]
    in_front = len(found.doses) if _is_curve(found) else 0
    blocks: list[Block] = [Prose(text, "lead") for text in degradation_sentences(found)[in_front:]]
    blocks += [
        picture(name, draw(), runs)
        for name, draw in degradation_figures(found).items()
        if not in_front or name != _DOSES
    ]
    return (
        Section("degradation", "Degradation", (*blocks, _table(found), Prose(_NOTE, "note")), folded=True),
    )


def _named(inputs: Inputs) -> list[tuple[str, list[Results]]]:
    """Runs by arm, the baseline first; declared ones where they could not be grouped for having several sizes or doses."""
    runs = [run for one in inputs.groups for run in one.runs]
    if any(run.facts.size for run in runs):  # of a grid of several sizes, each of which is a group of its own
        return by_arm(runs)
    if inputs.groups:
        return [(one.name, list(one.runs)) for one in inputs.groups]
    return by_arm(run for run in inputs.measured if run.facts.arm is not None)


def _table(found: Degradation) -> Table:
    """Every number, and why others are none."""
    rows: list[tuple[Value, ...]] = []
    for row in found.rows.to_dict("records"):
        known = not row["reason"]
        value: Value = Estimate(None, reason=row["reason"])
        if known:
            has_ends = row["lo"] == row["lo"]
            value = Estimate(row["value"], row["lo"], row["hi"]) if has_ends else number(row["value"])
        at = [MISSING if v != v else number(v) for v in (row["dose"], row["size"])]
        rows.append(
            (
                sentence_case(row["measure"].replace("_", " ")), clean(row["arm"]) or MISSING, *at, row["metric"] or MISSING,
                value, row["unit"] or MISSING, p_value(row["p"]), row["seeds"] or MISSING, row["how"] or MISSING,
            )
        )  # fmt: skip
    columns = (
        "Measure",
        "Arm",
        "Dose",
        "Size",
        "Metric",
        "Value [95% interval]",
        "Unit",
        "p",
        "Seeds",
        "How",
    )
    caption = f"Against {clean(found.baseline)}, of {clean(measured_words(found.metric))}."
    return Table("degradation-rows", caption, columns, tuple(rows))
