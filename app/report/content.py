"""The content of a report, made from results, section by section; independent of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from byrote.probes.comparable import Comparison
from byrote.probes.figures.theme import run_styles
from byrote.probes.findings import arm_words, runs
from byrote.probes.findings_memory import memorised_members
from byrote.probes.groups import Group
from byrote.probes.results import Results
from byrote.probes.wording import clean, counted, listed, sentence_case
from byrote.report.alerts import alerts_of, status_of
from byrote.report.arms import arms_sections, arms_title
from byrote.report.background import (
    errors_section,
    intervals_section,
    methods_section,
    provenance_section,
    reproduce_section,
    words_section,
)
from byrote.report.comparing import comparison_section
from byrote.report.degradation import degradation_of, degradation_sections
from byrote.report.front import finding_section
from byrote.report.model import Report, RunLine
from byrote.report.report_inputs import Inputs, report_inputs
from byrote.report.summary import summary_section, verdict_section
from byrote.report.training import (
    curves_section,
    events_section,
    heads_section,
    memory_section,
    timeline_section,
)


def report_content(
    results: Sequence[Results],
    *,
    base: str | None = None,
    comparison: Comparison | Sequence[Comparison] | None = None,
    groups: Sequence[Group] | None = None,
    title: str | None = None,
    date: str,
    light: bool = False,
    out_name: str = "report.html",
) -> Report:
    """Everything a report says about these runs.

    Args:
        results: one run or more.
        base: name of the baseline run.
        comparison: one or several, made before; None makes those that the baseline implies.
        groups: arms of several seeds, the baseline first; None groups runs by the arm they declare.
        title: replaces the finding as title.
        date: as it will be printed.
        light: whether the static rendering is requested, which `Reproduce` repeats.
        out_name: name of the HTML file, which `Reproduce` repeats.

    Raises:
        ByroteError: no run, two runs of one name, or an unknown baseline.
    """
    inputs = report_inputs(results, base=base, comparison=comparison, groups=groups)
    alerts = alerts_of(inputs)
    degraded = degradation_of(inputs)
    shown, arms = inputs.shown, (*arms_sections(inputs), *degradation_sections(degraded))
    course = (verdict_section(shown), timeline_section(shown, front=not inputs.arms))
    summary = summary_section(shown, chosen=_chosen(inputs))
    if shown is inputs:
        opening = (*course, *arms, summary)
    else:  # what is said of one run stands behind what is said of its arm, and behind the note on which run that is
        alone = (replace(one, title=f"{one.title}, one run of each arm", folded=True) for one in course)
        opening = (*arms, summary, *alone)
    sections = (
        finding_section(inputs, degraded),
        *opening,
        events_section(shown),
        heads_section(shown),
        curves_section(shown),
        memory_section(shown),
        comparison_section(shown),
        intervals_section(inputs),
        words_section(),
        methods_section(inputs),
        provenance_section(inputs),
        reproduce_section(inputs, light=light, out_name=out_name),
        errors_section(inputs),
    )
    return Report(
        title or title_of(inputs),
        run_lines(inputs),
        date,
        status_of(inputs, alerts),
        alerts,
        sections,
    )


def title_of(inputs: Inputs) -> str:
    """The finding: when induction heads appeared in which runs, and what was memorised."""
    memory = memorised_members(inputs.results, title=True)
    if memory and not any(one.measured for one in inputs.onsets.values()) and not arms_title(inputs):
        return sentence_case(memory)
    found = arms_title(inputs) or runs(inputs.results, inputs.onsets)
    return "; ".join(filter(None, (found, memory)))


def _chosen(inputs: Inputs) -> str:
    """Which runs are shown where there are too many to show each; "" where all are."""
    if inputs.shown is inputs:
        return ""
    names = listed([clean(run.run, limit=40) for run in inputs.shown.results], most=8)
    return (
        f"There are {len(inputs.results)} runs. What follows shows one of each arm, the one with the lowest seed, whatever it shows: "
        f"{names}. What is said of the arms stands above, over all seeds; scores.csv has every number of every run."
    )


def run_lines(inputs: Inputs) -> tuple[RunLine, ...]:
    """The runs, or of many runs their arms, as the head of a page names them."""
    if inputs.shown is not inputs:  # a line for every arm, in the colours of the figures of arms
        names = [one.name for one in inputs.groups]
        base = names[0] if inputs.arms else None
        styles = run_styles(names, base=base)
        return tuple(
            RunLine(
                one.name, f"{counted(len(one), 'seed')}: {arm_words(one.runs[0])}", styles[one.name].token, styles[one.name].dash,
                one.name == base,
            )
            for one in inputs.groups
        )  # fmt: skip
    styles = run_styles(inputs.names, base=inputs.drawn_base)
    return tuple(
        RunLine(r.run, arm_words(r), styles[r.run].token, styles[r.run].dash, r.run == inputs.base)
        for r in inputs.results
    )
