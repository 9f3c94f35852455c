"""`byrote show`, `byrote compare`, `byrote report` and `--expect` on measured planted models."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_series import SHAPE, head_metric, write_results

from byrote.probes.results.schema import Measured
from byrote.report.files import ReportFiles

SHOW_COLUMNS = [
    "run",
    "step",
    "probe",
    "metric",
    "head",
    "value",
    "lo",
    "hi",
    "chance",
    "n",
    "seed",
    "rank",
    "valid",
    "reason",
    "words",
]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# show


def test_show_ranks_the_planted_heads(byrote, planted_results):
    done = byrote("show", planted_results / "planted", "-p", "previous_token", "--top", "3")
    assert done.exit_code == 0
    rows = rows_of(done.stdout)
    assert list(rows[0]) == SHOW_COLUMNS
    assert [(row["head"], row["rank"]) for row in rows[:2]] == [("L0H0", "1"), ("L0H1", "2")]
    assert float(rows[0]["value"]) == pytest.approx(1.0, abs=1e-4)
    assert {(row["run"], row["step"], row["n"], row["valid"]) for row in rows} == {
        ("planted", "20", "16", "true")
    }


def test_verdicts_come_strongest_first_and_one_step_has_a_sentence(byrote, tmp_path):
    """Two heads are called: the stronger one is in the later layer, and was shown second."""
    verdict, prefix = np.zeros(SHAPE), np.full(SHAPE, 0.05)
    verdict[0, 1] = verdict[1, 2] = 1.0
    prefix[0, 1], prefix[1, 2] = 0.6, 0.9
    called = Measured(
        "induction", "verdict", verdict, verdict, verdict, np.full(SHAPE, np.nan), np.full(SHAPE, 32.0), ("layer", "head")
    )  # fmt: skip
    run = write_results(tmp_path, "one", {750: [head_metric("prefix_matching", prefix), called]})
    rows = rows_of(byrote("show", run, "-p", "induction").stdout)
    assert [row["head"] for row in rows[:3]] == ["L1H2", "L0H1", "L0H0"]
    said = byrote("show", run, "--events", "--table")
    assert said.exit_code == 0 and "what happened when needs two steps" in said.output


def test_show_agrees_with_the_stored_observations(byrote, planted_results):
    shown = json.loads(byrote("show", planted_results / "planted", "--top", "100", "--json").stdout)
    stored = pd.read_parquet(planted_results / "planted/observations.parquet")
    last = stored[
        (stored["step"] == 20) & (stored["probe"] == "previous_token") & (stored["metric"] == "score")
    ]
    expected = {
        f"L{int(l)}H{int(h)}": v for l, h, v in zip(last["layer"], last["head"], last["value"], strict=True)
    }
    assert {r["head"]: r["value"] for r in shown if r["probe"] == "previous_token"} == expected


@pytest.mark.parametrize(
    ("spec", "step"), [("last", 20), ("first", 0), ("10", 10), ("nearest:14", 10), ("nearest:1k", 20)]
)
def test_show_finds_the_step(byrote, planted_results, spec, step):
    done = byrote("show", planted_results / "planted", "--step", spec, "--json", "-p", "repeat_loss")
    (row,) = json.loads(done.stdout)
    assert row["step"] == step
    assert row["head"] is None and row["rank"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--step", "11"), "try nearest:11"),
        (("--step", "soon"), "try last"),
        (("--step", "0..10"), "name one step"),
        (("-p", "repeat_los"), "did you mean 'repeat_loss'?"),
        (("-p", "copy_curve"), "-p copy_curve -o"),
        (("--metric", "scor"), "did you mean 'score'?"),
    ],
)
def test_show_refuses_what_is_not_there(byrote, planted_results, args, message):
    done = byrote("show", planted_results / "planted", *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_show_lists_what_was_not_measured(byrote, planted_results):
    # Head L0H3 writes nothing, so its copying is undefined; see PLANTED_HEADS.
    done = byrote("show", planted_results / "planted", "-p", "copying_logit", "--top", "100", "--json")
    rows = {row["head"]: row for row in json.loads(done.stdout)}
    assert rows["L0H3"]["valid"] is False
    assert rows["L0H3"]["value"] is None and rows["L0H3"]["rank"] is None
    assert "writes nothing" in rows["L0H3"]["reason"]
    assert rows["L1H0"]["valid"] is True and rows["L1H0"]["reason"] is None
    few = byrote("show", planted_results / "planted", "-p", "copying_logit", "--top", "1", "--json")
    assert len(json.loads(few.stdout)) == 1 + sum(not row["valid"] for row in rows.values())
    table = byrote("show", planted_results / "planted", "-p", "copying_logit", "-t").stdout
    said = "not measured: copying_logit/score of L0H0 L0H1 L0H2 L0H3: the head raises no token"
    assert said in " ".join(table.split())


@pytest.mark.parametrize("width", ["80", "120"])
def test_tables_fit_the_terminal(byrote, planted_results, width):
    for args in (
        ("show", planted_results / "planted"),
        ("compare", planted_results / "planted", planted_results / "random"),
        ("probes",),
    ):
        done = byrote(*args, "-t", COLUMNS=width)
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert max(len(line) for line in lines) <= int(width)
        assert not any("…" in line for line in lines)


def test_narrow_tables_say_what_they_leave_out(byrote):
    assert "too narrow for: unit, range" in byrote("probes", "-t", COLUMNS="80").stderr
    assert "too narrow" not in byrote("probes", "-t", COLUMNS="120").stderr


# compare


def test_compare_says_the_finding_first(byrote, planted_results):
    a, b = planted_results / "planted", planted_results / "random"
    table = byrote("compare", a, b, "-t", COLUMNS="200")
    assert table.exit_code == 0
    assert table.stdout.startswith("planted: induction heads form by step 0")
    assert "A planted: the first lasting induction head" in table.stdout
    assert "B random: no induction head at any step" in table.stdout
    assert "A = planted, B = random, step 20" in table.stdout
    data = byrote("compare", a, b)
    assert data.stderr.startswith("planted: induction heads form by step 0")
    assert data.stdout.startswith("run_a,run_b,probe,metric,")


def test_compare_data_hold_every_difference(byrote, planted_results):
    a, b = planted_results / "planted", planted_results / "random"
    rows = json.loads(byrote("compare", a, b, "--json").stdout)
    for row in rows:
        assert row["difference"] == pytest.approx(row["b"] - row["a"], abs=1e-6)
        assert (row["p"] is None) == (row["reason"] is not None) == (row["n"] == 0)
    (loss,) = [r for r in rows if (r["probe"], r["metric"]) == ("repeat_loss", "later_blocks")]
    assert loss["change"] == "higher" and loss["lo"] > 0 and loss["n"] == 16
    heads = {r["head_a"] for r in rows if (r["probe"], r["metric"]) == ("induction", "verdict")}
    assert heads == {f"L{l}H{h}" for l in range(2) for h in range(4)}


def test_compare_at_other_steps(byrote, planted_results):
    a, b = planted_results / "planted", planted_results / "random"
    every = json.loads(byrote("compare", a, b, "--at", "all", "--json").stdout)
    assert {(row["step_a"], row["step_b"]) for row in every} == {(0, 0), (10, 10), (20, 20)}
    one = json.loads(byrote("compare", a, b, "--at", "10", "--align", "tokens", "--json").stdout)
    assert {row["tokens_b"] for row in one} == {1000}
    for at, message in (("11", "nearest are"), ("soon", "use last, all, or a step")):
        refused = byrote("compare", a, b, "--at", at)
        assert refused.exit_code == 2
        assert message in refused.stderr


def test_compare_refuses_unlike_measurements_with_the_command_that_mends_it(
    byrote, planted_runs, planted_results
):
    args = ("run", planted_runs / "random", "-p", "previous_token", "--sequences", "8", "-q")
    assert byrote(*args, "--seed", "1").exit_code == 0
    done = byrote("compare", planted_results / "planted", "results/random")
    assert done.exit_code == 2
    assert "were not measured alike" in done.stderr and "seed 0 against 1" in done.stderr
    assert "help: measure both with the same command: byrote run " in done.stderr


# expect


def expectations(text: str) -> str:
    Path("checks.toml").write_text(text)
    return "checks.toml"


GOOD = """
[[expect]]
probe = "induction"
head = "any"
run = "planted"
min = 1

[[expect]]
probe = "induction"
head = "all"
run = "random"
max = 0

[[expect]]
probe = "repeat_loss"
metric = "top1_later"
run = "planted"
step = 10
min = 0.5

[[expect]]
probe = "previous_token"
head = "L0H0"
run = "planted"
min = 0.63
max = 1
"""  # the last: eight sequences of 1.00 are sure of 0.63, as eight tosses are


def test_expectations_that_hold(byrote, planted_results):
    pair = (planted_results / "planted", planted_results / "random")
    done = byrote("compare", *pair, "--expect", expectations(GOOD), "-t", COLUMNS="200")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-5] == (
        "pass  planted: induction/verdict any at step 20: expected at least 1, found L1H1 1.00 [exact]"
    )
    assert done.stdout.splitlines()[-1] == "4 checks: all passed"
    data = byrote("compare", *pair, "--expect", "checks.toml", "-q")
    assert data.stderr.count("pass  ") == 4
    assert "pass" not in data.stdout


FAILING = {
    'probe = "induction"\nhead = "any"\nrun = "random"\nmin = 1': "found L1H3 0 [exact]",
    'probe = "induction"\nhead = "all"\nmax = 0': "FAIL  planted: induction/verdict all",
    'probe = "previous_token"\nhead = "L0H0"\nmin = 1.5': "found L0H0 1.00",
    'probe = "previous_token"\nhead = "L7H7"\nmin = 0': "found nothing: not in the results",
    'probe = "copying_logit"\nhead = "L0H3"\nrun = "planted"\nmin = -1': "found L0H3 not measured: ",
    'probe = "duplicate_token"\nhead = "any"\nmin = 0': "duplicate_token",
}


def test_expectations_that_fail_exit_1(byrote, planted_results):
    file = expectations("".join(f"[[expect]]\n{text}\n" for text in FAILING))
    done = byrote("compare", planted_results / "planted", planted_results / "random", "--expect", file)
    assert done.exit_code == 1
    failed = [line for line in done.stderr.splitlines() if line.startswith(("FAIL  ", "undecided  "))]
    for text, found in FAILING.items():
        assert any(found in line for line in failed), (text, failed)
    assert all("not in the results" in line for line in failed if "duplicate_token" in line)
    assert re.search(r"\d+ checks: \d+ failed", done.stderr)


def test_the_interval_decides_not_the_value(byrote, planted_results):
    (row,) = json.loads(byrote("show", planted_results / "random", "-p", "repeat_loss", "--json").stdout)
    assert row["lo"] < row["value"] < row["hi"]

    def outcome(**bounds: float) -> tuple[int, int]:
        """The exit code, and how many of the bounds hold, each a check of its own."""
        of = '[[expect]]\nprobe = "repeat_loss"\nrun = "random"\n'
        file = expectations("".join(f"{of}{name} = {value!r}\n" for name, value in bounds.items()))
        done = byrote("compare", planted_results / "planted", planted_results / "random", "--expect", file)
        return done.exit_code, done.stderr.count("pass  random: ")

    assert outcome(min=row["lo"], max=row["hi"]) == (0, 2)
    between = {name: (row[end] + row["value"]) / 2 for name, end in (("min", "lo"), ("max", "hi"))}
    assert outcome(**between) == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[expect]]\nprobe = "inductoin"\nhead = "any"\nmin = 1', "did you mean 'induction'?"),
        ('[[expect]]\nprobe = "induction"\nmin = 1', 'add head = "any"'),
        ('[[expect]]\nprobe = "repeat_loss"\nhead = "any"\nmin = 1', "leave head out"),
        ('[[expect]]\nprobe = "induction"\nhead = "any"', "add one: min"),
        ('[[expect]]\nprobe = "induction"\nhead = "some"\nmin = 1', "write layer and head as L5H1"),
        (
            '[[expect]]\nprobe = "induction"\nmetric = "verdit"\nhead = "any"\nmin = 1',
            "did you mean 'verdict'?",
        ),
        ('[[expect]]\nprobe = "induction"\nhead = "any"\nmn = 1', "did you mean 'min'?"),
        ('[[expect]]\nprobe = "induction"\nhead = "any"\nmin = "1"', "numbers are bare"),
        ('[[expect]]\nprobe = "induction"\nhead = "any"\nmin = 1\nrun = "plantd"', "did you mean 'planted'?"),
        ('[[expect]]\nprobe = "induction"\nhead = "any"\nmin = 1\nstep = 7', "try nearest:7"),
        ("[[expect]\n", "cannot be read as TOML"),
        ("x = 1\n", "must contain only [[expect]] tables"),
        ("", "must contain only [[expect]] tables"),
    ],
)
def test_a_check_that_cannot_be_understood_is_a_usage_error(byrote, planted_results, text, message):
    pair = (planted_results / "planted", planted_results / "random")
    done = byrote("compare", *pair, "--expect", expectations(text))
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_missing_file_of_checks(byrote, planted_results):
    done = byrote("report", planted_results / "planted", "--expect", "nowhere.toml")
    assert done.exit_code == 2
    assert "nowhere.toml does not exist" in done.stderr
    assert not Path("reports").exists()


# report


def test_report_of_a_folder_of_results(byrote, planted_results):
    done = byrote("report", planted_results, "--base", "planted", "--light")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "reports/planted-random/report.html\n"
    assert "data: reports/planted-random/report.json reports/planted-random/scores.csv" in done.stderr
    for name in ("report.html", "report.json", "scores.csv"):
        assert (Path("reports/planted-random") / name).stat().st_size > 1000


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Any]:
    """What a report was to be made of, which is not drawn."""
    options: dict[str, Any] = {}

    def build(results, *, out: Path, **rest: Any) -> ReportFiles:
        options.update(rest, runs=[run.run for run in results])
        return ReportFiles(out, out.with_suffix(".json"), out.with_suffix(".csv"))

    monkeypatch.setattr("byrote.report.build_report", build)
    return options


def test_report_takes_the_baseline_from_a_folder_too(byrote, planted_results, drawn):
    done = byrote(
        "report",
        planted_results / "random",
        "--base",
        planted_results / "planted",
        "-o",
        "page.html",
        "--light",
    )
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "page.html\n"
    assert sorted(drawn["runs"]) == ["planted", "random"] and drawn["base"] == "planted"


def test_report_opens_the_browser_when_asked(byrote, planted_results, drawn, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))
    done = byrote("report", planted_results / "planted", "-o", "page.html", "--light", "--open")
    assert done.exit_code == 0
    assert opened == [Path("page.html").resolve().as_uri()]
    assert "no browser could be started; open page.html by hand" in done.stderr


def test_report_checks(byrote, planted_results):
    failing = expectations('[[expect]]\nprobe = "induction"\nhead = "all"\nmax = 0\n')
    done = byrote("report", planted_results / "planted", "-o", "page.html", "--light", "--expect", failing)
    assert done.exit_code == 1
    assert "1 check: 1 failed" in done.stderr
    assert Path("page.html").is_file()  # a finding, not a fault


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nowhere",), 2, "nowhere is not a results folder"),
        (("nothing-*",), 4, "nothing-* matches no folder"),
        (("{results}/planted", "--base", "nope"), 2, "nope"),
    ],
)
def test_report_refuses_what_is_not_there(byrote, planted_results, args, code, message):
    done = byrote("report", *(arg.format(results=planted_results) for arg in args))
    assert done.exit_code == code
    assert message in done.stderr


def test_hostile_names_in_results_are_printed_safely(byrote, results_copy):
    results = results_copy()
    meta = json.loads((results / "run.json").read_text())
    hostile = "evil\x1b]0;title\x07\u202e"
    meta |= {"run": hostile, "gaps": [{"step": 5, "path": hostile, "reason": hostile, "help": hostile}]}
    (results / "run.json").write_text(json.dumps(meta))
    for args in (("show", results, "-t"), ("compare", results, results, "-t"), ("compare", results, results)):
        done = byrote(*args)
        assert done.exit_code == 0, done.stderr
        assert all(c.isprintable() or c == "\n" for c in done.output)
