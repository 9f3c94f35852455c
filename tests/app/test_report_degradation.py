"""The report's section on degradation: there where arms differ in a dose, saying what the command line says."""

from __future__ import annotations

import pytest

from byrote.probes.degrade.measures import degradation
from byrote.probes.findings_degrade import degradation_sentences
from byrote.report.degradation import degradation_sections
from byrote.report.html import render
from byrote.report.model import Picture, Prose, Report, Table
from byrote.report.report_inputs import Inputs


def inputs(runs) -> Inputs:
    """Of a report on these runs that compares nothing else."""
    return Inputs(tuple(runs), None, (), (), {})


@pytest.fixture(scope="module")
def section(degraded):
    (found,) = degradation_sections(inputs(degraded))
    return found


def test_a_study_has_both_figures_and_all_numbers(section, degraded):
    pictures = {block.name: block for block in section.blocks if isinstance(block, Picture)}
    assert set(pictures) == {"doses", "sizes"} and all(one.table.rows for one in pictures.values())
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    named: dict[str, list] = {}
    for run in degraded:
        named.setdefault(run.facts.arm, []).append(run)
    found = degradation(list(named.items()))
    assert len(table.rows) == len(found.rows)
    said = [block.text for block in section.blocks if isinstance(block, Prose) and block.style == "lead"]
    assert said == degradation_sentences(found) and "is worst at E 62.5" in said[0]


def test_it_is_written_out(section):
    page, _ = render(Report("A study", (), "2026-01-01", "complete", (), (section,)))
    assert "Half of that damage or more" in page and "times its size" in page


def test_one_arm_and_arms_without_a_clear_baseline_have_none(degraded):
    assert degradation_sections(inputs([run for run in degraded if run.facts.pool == 16][:2])) == ()
    assert degradation_sections(inputs([run for run in degraded if run.facts.pool])) == ()
