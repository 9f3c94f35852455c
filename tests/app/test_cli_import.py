"""`byrote import`, and every verb and page that meets what it made."""

from __future__ import annotations

import csv
import io

import pytest
from tiny_models import write_lab_series

CURVES = "step,layer,head,value\n" + "".join(
    f"{step},{layer},{head},{0.02 if (layer, head) != (1, 0) or step < 100 else 0.02 + step / 2000:.3f}\n"
    for step in (0, 10, 100, 1000)
    for layer in (0, 1)
    for head in (0, 1)
)


@pytest.fixture
def imported(byrote, tmp_path):
    root = tmp_path
    (root / "scores.csv").write_text(CURVES)
    (root / "less.csv").write_text(CURVES.replace("0.520", "0.420"))
    for name in ("scores", "less"):
        done = byrote(
            "import", root / f"{name}.csv", "--metric", "prefix_matching", "-o", root / "results" / name
        )
        assert done.exit_code == 0, done.stderr
        assert "16 values (1 metric, 4 steps)" in done.stderr and "no samples, so no intervals" in done.stderr
    return root / "results"


def test_show_compare_and_verify_say_what_it_is(byrote, imported):
    done = byrote("show", imported / "scores", "-t")
    assert "imported from scores.csv, no samples: no intervals" in " ".join(done.stdout.split())
    (first, *_) = csv.DictReader(io.StringIO(byrote("show", imported / "scores", "--csv").stdout))
    assert (first["head"], first["value"], first["lo"], first["hi"], first["n"]) == (
        "L1H0",
        "0.52",
        "",
        "",
        "0",
    )
    events = csv.DictReader(io.StringIO(byrote("show", imported / "scores", "--events", "--csv").stdout))
    half = next(row for row in events if row["event"] == "onset_50" and row["head"] == "L1H0")
    assert (half["step_lo"], half["step_hi"], half["lo"], half["hi"]) == ("100", "1000", "", "")
    done = byrote("compare", imported / "scores", imported / "less", "--csv")
    rows = {row["head_a"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert rows["L1H0"]["change"] == "not tested" and rows["L1H0"]["reason"].startswith("imported")
    assert float(rows["L1H0"]["difference"]) == pytest.approx(-0.1) and rows["L1H0"]["lo"] == ""
    done = byrote("verify", imported / "scores")
    assert done.exit_code == 0 and "there are no checkpoints to compare" in done.stdout


def test_the_report_says_it_first(byrote, imported, tmp_path):
    page = tmp_path / "r.html"
    done = byrote("report", imported / "scores", imported / "less", "--base", "scores", "--light", "-o", page)
    assert done.exit_code == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "scores was imported from scores.csv, no samples: no intervals" in text
    assert "not tested" in text and "n = 0 sequences" not in text and "paired by test sequence" not in text
    assert "byrote import scores.csv -o results/scores" in text


def test_a_bad_row_is_one_error(byrote, tmp_path):
    (tmp_path / "t.csv").write_text("step,layer,head,value\n1,0,0,0.5\n1,0,-1,0.5\n")
    done = byrote("import", tmp_path / "t.csv", "-o", tmp_path / "r")
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith("error: row 3 has head '-1', not a whole number")


def test_results_given_where_checkpoints_belong_and_the_other_way_round(byrote, imported, tmp_path):
    for given in (imported, imported / "scores", imported / "scores/units"):
        done = byrote("run", given)
        assert done.exit_code == 4 and f"{given} holds results, not checkpoints" in done.stderr
        assert "byrote show" in done.stderr
    done = byrote("scan", tmp_path / "scores.csv")
    assert "is a table, not a checkpoint" in done.stderr and "byrote import" in done.stderr
    done = byrote("show", tmp_path / "scores.csv")
    assert "if it is a table of scores: byrote import" in done.stderr
    write_lab_series(tmp_path / "runs/tiny", (0, 1))
    done = byrote("show", tmp_path / "runs/tiny")
    assert f"it holds checkpoints, not results: byrote run {tmp_path / 'runs/tiny'} -o results" in done.stderr


def test_a_check_needs_intervals(byrote, imported, tmp_path):
    (tmp_path / "e.toml").write_text('[[expect]]\nprobe = "prefix_matching"\nhead = "any"\nmin = 0.1\n')
    done = byrote("compare", imported / "scores", imported / "less", "--expect", tmp_path / "e.toml")
    assert done.exit_code == 2 and "has no intervals to check" in done.stderr
