"""A training loss that another tool logged, from the command line to what shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import write_hf_series

from byrote.probes import figures
from byrote.probes.results import Results

EXPORT = '"Step","fire-3 - train/loss"\n"10","4.5"\n"20","4.0"\n'
MEASURE = ("-p", "previous_token", "--sequences", "8", "-q")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_hf_series(tmp_path / "run", "gpt2", (0, 10, 25), name="checkpoint-{step}", n_layer=1)


def test_losses_reach_scan_results_show_report_and_figure(byrote, run):
    Path("export.csv").write_text(EXPORT)
    rows = json.loads(byrote("scan", "run", "--losses", "export.csv", "--json").stdout)
    assert [row["loss_nats"] for row in rows] == [None, 4.5, 4.0]
    assert byrote("run", "run", *MEASURE, "--losses", "export.csv").exit_code == 0
    results = Results.open("results/run")
    assert results.loss == {10: 4.5, 25: 4.0}
    shown = byrote("show", "results/run", "-t", COLUMNS="100")
    assert "training loss at step 25: 4.00 nats" in shown.stdout
    drawn = figures.training_loss(results)
    assert drawn.table["value"].tolist() == [4.5, 4.0] and "4.00 nats at step 25" in drawn.alt
    assert byrote("report", "results/run", "-o", "page.html", "--light").exit_code == 0
    assert "Training loss" in Path("page.html").read_text()
    assert byrote("run", "run", *MEASURE).exit_code == 0  # a later sweep without the file takes nothing away
    assert Results.open("results/run").loss == {10: 4.5, 25: 4.0}


def test_losses_that_cannot_be_read_stop_before_anything_is_measured(byrote, run):
    done = byrote("run", "run", *MEASURE, "--losses", "no.csv")
    assert done.exit_code == 2 and "no.csv does not exist" in done.stderr and not Path("results").exists()
    assert "--loss-name needs a file" in byrote("run", "run", *MEASURE, "--loss-name", "x").stderr
    write_hf_series(Path("more/a"), "gpt2", (0,), name="checkpoint-{step}", n_layer=1)
    write_hf_series(Path("more/b"), "gpt2", (0,), name="checkpoint-{step}", n_layer=1)
    Path("export.csv").write_text(EXPORT)
    done = byrote("scan", "more", "--losses", "export.csv")
    assert done.exit_code == 2 and "--losses belongs to one training run, but 2 are given" in done.stderr


def test_watch_takes_losses_as_they_are_logged(byrote, run):
    quick = ("--poll", "0.05", "--settle", "0.05", "--until-step", "25", *MEASURE)
    assert byrote("watch", "run", *quick, "--losses", "not-yet.csv").exit_code == 0
    assert Results.open("results/run").loss == {}
    Path("not-yet.csv").write_text(EXPORT)
    assert byrote("watch", "run", *quick, "--losses", "not-yet.csv").exit_code == 0
    assert Results.open("results/run").loss == {10: 4.5, 25: 4.0}
