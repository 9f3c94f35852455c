"""The figure of loss by place in the context, and the report's use of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from lookup_models import lookup_state, random_state, write_series

from byrote.checkpoints import ByroteError, open_series
from byrote.cli.main import cli
from byrote.probes import figures
from byrote.probes.figures.by_position import MAX_POINTS, spread_places
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep
from byrote.report.report_inputs import report_inputs
from byrote.report.training import curves_section


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Results]:
    """One run that learns to copy, one that never learns; both on the same text of repeating blocks."""
    folder = tmp_path_factory.mktemp("runs")
    blocks = np.random.default_rng(0).integers(1, 64, size=(16, 12))
    text = np.concatenate([np.zeros((16, 1), dtype=np.int64), np.tile(blocks, 3)[:, :31]], axis=1)
    states = {"learns": lookup_state([], copies=True), "never": random_state(1)}
    found = []
    for name, state in states.items():
        path = write_series(
            folder / name, {0: random_state(), 30: state}, data={"held_out": {"tokens": text}}
        )
        config = SweepConfig(("loss_by_position",), n_seq=16)
        found.append(sweep(open_series(path), config, out=folder / "results").results)
    return found


def test_one_line_per_run_through_the_measured_losses(runs):
    fig = figures.loss_by_position(runs, base="never")
    for results in runs:
        line = next(t for t in fig.data if t.name == results.run)
        rows = results.select("loss_by_position", "loss", step=30).sort_values("position")
        assert list(line.x) == rows["position"].tolist() == list(range(1, 32))
        assert list(line.y) == rows["value"].tolist()
        assert "token 31" in line.hovertext[-1] and "n=16" in line.hovertext[-1]
    assert fig.layout.xaxis.type == "log" and list(fig.layout.xaxis.tickvals) == [1, 2, 4, 8, 16]
    chance = next(t for t in fig.data if t.name == "chance")
    assert chance.y[0] == pytest.approx(math.log(63))
    assert "each run" not in fig.layout.title.text and "step 30" in fig.layout.title.text
    alt = fig.layout.meta["alt"]
    assert "learns" in alt and "never" in alt and "on token 31" in alt
    earlier = figures.loss_by_position(runs, step=0)
    assert "step 0" in earlier.layout.title.text


def test_what_was_not_measured_is_refused(runs):
    with pytest.raises(ByroteError, match="7"):
        figures.loss_by_position(runs, step=7)


def test_places_of_a_long_context_are_spread_over_the_log_axis(runs):
    rows = runs[0].select("loss_by_position", "loss", step=30).iloc[:1]
    long = rows.loc[rows.index.repeat(1023)].assign(position=np.arange(1, 1024))
    places = spread_places(long.sample(frac=1, random_state=0))["position"].tolist()
    assert len(places) <= MAX_POINTS and places == sorted(set(places))
    assert (places[0], places[-1]) == (1, 1023)
    ratios = np.diff(np.log(places[20:]))
    assert ratios.max() < 1.3 * ratios.mean()
    assert spread_places(long.iloc[:31])["position"].tolist() == list(range(1, 32))


def test_the_report_holds_the_picture_and_its_numbers(runs):
    (picture,) = curves_section(report_inputs(runs, base="never")).blocks
    assert picture.table.columns == ("Token", "learns", "never")
    assert len(picture.table.rows) + picture.table.n_left_out == 31
    assert [picture.table.rows[0][0], picture.table.rows[-1][0]] == ["1", "31"]
    rows = runs[0].select("loss_by_position", "loss", step=30).set_index("position")
    assert picture.table.rows[-1][1].value == pytest.approx(rows.loc[31, "value"])
    assert f"n = 16 sequences, chance {math.log(63):.2f}" in picture.table.caption


def test_a_report_of_runs_without_text_has_no_such_picture(tmp_path):
    path = write_series(tmp_path / "bare", {0: random_state()})
    results = sweep(
        open_series(path), SweepConfig(("loss_by_position", "repeat_loss"), n_seq=8), out=tmp_path
    ).results
    assert not any(hasattr(b, "figure") for b in curves_section(report_inputs([results])).blocks)


def test_the_command_line_draws_it(runs, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["report", *(str(r.path) for r in runs), "-o", str(out), "--light"])
    assert done.exit_code == 0, done.output
    (page,) = out.glob("*.html")
    assert "Loss of real text by place in the context" in page.read_text(encoding="utf-8")
    (data,) = out.glob("*.json")
    assert json.loads(data.read_text())["status"] == "complete"
