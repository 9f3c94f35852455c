"""The report's section on degradation: there where arms differ in a dose, saying what the command line says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_series import model_metric, write_results

from byrote.probes.degrade.measures import degradation
from byrote.probes.findings_degrade import degradation_sentences
from byrote.probes.results import Results
from byrote.probes.results.schema import Measured
from byrote.report.degradation import degradation_of, degradation_sections, over_doses
from byrote.report.html import render
from byrote.report.model import Picture, Prose, Report, Table
from byrote.report.report_inputs import Inputs


def inputs(runs) -> Inputs:
    """Of a report on these runs that compares nothing else."""
    return Inputs(tuple(runs), None, (), (), {})


@pytest.fixture(scope="module")
def section(degraded):
    found = degradation_of(inputs(degraded))
    (folded,) = degradation_sections(found)
    in_front = over_doses(found)
    *said, figure = in_front
    assert len(said) == len(found.doses) and isinstance(figure, Picture) and figure.name == "doses"
    assert not any(block in folded.blocks for block in said)
    return replace(folded, blocks=(*in_front, *folded.blocks))


def test_a_study_has_its_figures_and_all_numbers(section, degraded):
    pictures = {block.name: block for block in section.blocks if isinstance(block, Picture)}
    assert set(pictures) == {"doses", "sizes", "displacement"} and all(
        one.table.rows for one in pictures.values()
    )
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
    assert (
        degradation_sections(degradation_of(inputs([run for run in degraded if run.facts.pool == 16][:2])))
        == ()
    )
    assert degradation_sections(degradation_of(inputs([run for run in degraded if run.facts.pool]))) == ()


BITS = {8: 0.5, 32: 1.39, 128: 1.4}  # per parameter, by sequences
OUT = (0, 0, 1, 8)  # of 8 members planted 1, 4, 16 and 64 times


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """A control, three pools with what is memorised of them, and members extracted by count; three seeds each."""
    root = tmp_path_factory.mktemp("memorised") / "results"
    share = np.full(7, np.nan)
    share[::2] = np.array(OUT) / 8
    known, n = ~np.isnan(share), np.full(7, 8.0)
    runs = []
    for seed in range(3):
        for pool in (0, *BITS):
            arm = {"kind": "repeated" if pool else "control", "repeat_frac": 0.5 if pool else 0.0, "pool_size": pool,
                   "repeats_per_sequence": 1000 / pool if pool else 0}  # fmt: skip
            units = [model_metric("held_out_loss", "loss", 2.0 + pool / 100 + 0.01 * seed)]
            if pool:
                bits = BITS[pool] + 0.001 * seed
                units.append(model_metric("unintended_bits", "per_parameter", bits, half=0.001))
                units.append(
                    Measured(
                        "extraction",
                        "by_repeats",
                        share,
                        share,
                        share,
                        np.zeros(7),
                        n,
                        ("position",),
                        exists=known,
                    )
                )
            path = write_results(root, f"{pool}-s{seed}", {20: units}, arm=arm, seed=seed)
            runs.append(Results.open(path))
    return runs


def test_what_is_memorised_is_drawn_and_said(memorised):
    (section,) = degradation_sections(degradation_of(inputs(memorised)))
    pictures = {block.name: block for block in section.blocks if isinstance(block, Picture)}
    assert {"capacity", "extraction"} <= set(pictures)
    said = " ".join(block.text for block in section.blocks if isinstance(block, Prose))
    assert "A parameter holds 1.40 [" in said and said.count("is extracted from") == 3
    drawn = pictures["capacity"].figure.table
    assert drawn["members"].tolist() == [8.0, 32.0, 128.0] and drawn["value"].tolist() == pytest.approx(
        [0.501, 1.391, 1.401], abs=2e-3
    )
    shares = pictures["extraction"].figure.table
    assert shares["value"].tolist()[:4] == [0.0, 0.0, 1 / 8, 1.0] and shares["duplicates"].tolist()[:4] == [
        1.0,
        4.0,
        16.0,
        64.0,
    ]
