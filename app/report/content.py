"""From results to what a report says, in the order it says it. Nothing here knows about HTML."""

from __future__ import annotations

from collections.abc import Sequence

from byrote.probes.comparable import Comparison
from byrote.probes.figures.theme import run_styles
from byrote.probes.findings import arm_words, runs
from byrote.probes.results import Results
from byrote.report.alerts import alerts_of, status_of
from byrote.report.background import (
    errors_section,
    intervals_section,
    methods_section,
    provenance_section,
    reproduce_section,
)
from byrote.report.comparing import comparison_section
from byrote.report.model import Report, RunLine
from byrote.report.scene import Scene, scene_of
from byrote.report.summary import summary_section, verdict_section
from byrote.report.training import curves_section, heads_section, timeline_section


def report_content(
    results: Sequence[Results],
    *,
    base: str | None = None,
    comparison: Comparison | Sequence[Comparison] | None = None,
    title: str | None = None,
    date: str,
    light: bool = False,
    out_name: str = "report.html",
) -> Report:
    """Everything a report says about these runs.

    Args:
        results: one run or more.
        base: name of the baseline run.
        comparison: one or several, made before; None makes those the baseline asks for.
        title: replaces the finding as title.
        date: as it will be printed.
        light: whether the still rendering is asked for, which `Reproduce` repeats.
        out_name: name of the HTML file, which `Reproduce` repeats.

    Raises:
        ByroteError: no run, two runs of one name, or an unknown baseline.
    """
    scene = scene_of(results, base=base, comparison=comparison)
    alerts = alerts_of(scene)
    sections = (
        summary_section(scene),
        verdict_section(scene),
        timeline_section(scene),
        heads_section(scene),
        curves_section(scene),
        comparison_section(scene),
        intervals_section(scene),
        methods_section(scene),
        errors_section(scene),
        provenance_section(scene),
        reproduce_section(scene, light=light, out_name=out_name),
    )
    return Report(
        title or runs(scene.results, scene.onsets),
        _run_lines(scene),
        date,
        status_of(scene, alerts),
        alerts,
        sections,
    )


def _run_lines(scene: Scene) -> tuple[RunLine, ...]:
    styles = run_styles(scene.names, base=scene.base)
    return tuple(
        RunLine(r.run, arm_words(r), styles[r.run].token, styles[r.run].dash, r.run == scene.base)
        for r in scene.results
    )
