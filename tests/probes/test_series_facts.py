"""Losses above uniform, on values written down."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from byrote.checkpoints.atomic import write_json
from byrote.checkpoints.lint import Fact
from byrote.probes import findings
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.schema import from_frame, from_samples, unit_table
from byrote.probes.results.unit_files import step_folder, write_unit
from byrote.probes.series_facts import loss_facts
from byrote.report import alerts

UNIFORM = math.log(61)
SPREAD_NATS = np.linspace(-0.01, 0.01, 8)  # between sequences


@pytest.fixture
def results_of(tmp_path: Path):
    """`results_of({step: (first_block, later_blocks)})`: a results folder with these losses, eight sequences each."""

    def make(losses: dict[int, tuple[float, float]]) -> Results:
        for step, (first, later) in losses.items():
            rows = [
                from_samples(
                    REGISTRY["repeat_loss"], metric, value + SPREAD_NATS, axes=(), chance=UNIFORM, seed=0
                )
                for metric, value in (("first_block", first), ("later_blocks", later))
            ]
            table = unit_table(rows, run="run", step=step, tokens_seen=None)
            write_unit(step_folder(tmp_path, step) / "repeat.parquet", table, {})
        write_json(tmp_path / "run.json", {"schema": 1, "run": "run"})
        return Results.open(tmp_path)

    return make


def told(facts: list[Fact]) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    return [(f.severity, f.evidence["metric"], f.steps, f.leave_out) for f in facts]


def test_one_step_above_uniform_between_steps_below_is_a_warning(results_of):
    losses = dict.fromkeys((0, 10, 20, 30, 40), (UNIFORM - 0.5, 1.0))
    losses[20] = (UNIFORM - 0.5, UNIFORM + 2)
    (fact,) = loss_facts(results_of(losses))
    assert told([fact]) == [("warning", "later_blocks", (20,), (20,))]
    assert fact.evidence["loss_nats"] == pytest.approx(UNIFORM + 2, abs=1e-6)
    assert fact.evidence["uniform_nats"] == pytest.approx(UNIFORM)


def test_steps_above_uniform_in_a_row_or_at_an_end_are_notes(results_of):
    over, under = (UNIFORM + 1, UNIFORM + 1), (UNIFORM + 1, 1.0)
    found = loss_facts(results_of({0: over, 10: under, 20: under, 30: over, 40: over}))
    assert told(found) == [
        ("note", "first_block", (0, 10, 20, 30, 40), ()),
        ("note", "later_blocks", (0, 30, 40), ()),
    ]


def test_losses_below_uniform_or_not_surely_above_are_no_facts(results_of):
    assert loss_facts(results_of({0: (UNIFORM, UNIFORM), 10: (UNIFORM - 0.1, 1.0)})) == []


def test_results_without_the_probe_have_no_facts(results_of):
    results = results_of({0: (9.0, 9.0)})
    others = results.frame[results.frame["probe"] != "repeat_loss"]
    results = Results(results.path, results.meta, from_frame(others))
    assert loss_facts(results) == []


def text_losses_of(tmp_path: Path, losses: dict[int, float], n_checkpoints: int = 5) -> Results:
    info = REGISTRY["held_out_loss"]
    for step, value in losses.items():
        rows = [from_samples(info, "loss", value + SPREAD_NATS, axes=(), chance=UNIFORM, seed=0)]
        table = unit_table(rows, run="run", step=step, tokens_seen=None)
        write_unit(step_folder(tmp_path, step) / "natural.parquet", table, {})
    series = {"n_checkpoints": n_checkpoints}
    write_json(tmp_path / "run.json", {"schema": 1, "run": "run", "series": series})
    return Results.open(tmp_path)


def test_a_loss_on_text_worse_than_guessing_is_an_alert_everywhere(tmp_path):
    results = text_losses_of(tmp_path, {0: UNIFORM + 0.2, 10: 3.0, 20: UNIFORM + 5, 30: 1.5, 40: UNIFORM + 6})
    (fact,) = loss_facts(results)
    assert told([fact]) == [("warning", "held_out_loss", (20, 40), ())]
    (line, *_) = findings.at_end(results)
    assert (
        line.startswith("loss on text is worse than guessing at steps 20 and 40: 10.1")
        and line.capitalize() in fact.meaning
    )
    inputs = SimpleNamespace(results=[results])
    (alert,) = alerts._text_loss(inputs)
    assert (alert.level, alert.text) == ("warning", f"run: {line}.")


def test_a_loss_on_text_far_above_that_of_the_steps_beside_is_one_too(tmp_path):
    results = text_losses_of(tmp_path, {0: UNIFORM, 10: 1.0, 20: 2.5, 30: 1.0, 40: 0.9})
    (fact,) = loss_facts(results)
    assert told([fact]) == [("warning", "held_out_loss", (20,), (20,))]
    assert "far worse than at neighbouring steps" in fact.meaning


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ({9000: UNIFORM + 0.2}, (9000,)),  # a checkpoint alone, such as an altered copy of a trained model
        ({0: UNIFORM + 0.2}, ()),  # a fresh initialisation, of a series that goes on
        ({0: UNIFORM + 0.2, 1: UNIFORM, 2: UNIFORM, 512: UNIFORM - 0.5}, ()),  # learning has not begun
        ({0: UNIFORM, 512: UNIFORM - 0.4, 1000: UNIFORM + 0.1, 2000: UNIFORM - 0.4}, (1000,)),
    ],
)
def test_late_steps_no_better_than_guessing_are_one(losses, steps, tmp_path):
    found = findings.text_losses(text_losses_of(tmp_path, losses))
    assert [step for _, at, _ in found for step in at] == list(steps)
    assert all("no better than guessing" in sentence for sentence, _, _ in found)


def test_a_model_alone_that_says_no_step_is_one_though_it_is_shown_as_step_0(tmp_path):
    """Weights that were altered after training stand in a folder that names no step."""
    ((sentence, steps, _),) = findings.text_losses(
        text_losses_of(tmp_path, {0: UNIFORM + 0.2}, n_checkpoints=1)
    )
    assert steps == (0,) and "no better than guessing at step 0" in sentence
    assert sentence.endswith("or a model before training")


def test_learning_is_no_alert_and_neither_is_overfitting(tmp_path):
    assert (
        findings.text_losses(text_losses_of(tmp_path, {0: UNIFORM + 0.3, 10: 2.0, 20: 1.0, 30: 1.8, 40: 2.6}))
        == []
    )
