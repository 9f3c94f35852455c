"""Arms of several seeds on the command line, in the report and on the compare page."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from planted_series import flat, head_metric, model_metric, rising, write_results
from streamlit_client import heading

import byrote as br
from byrote.dashboard.library import MAX_RUNS_OPEN, open_library
from byrote.probes.findings_compared import seed_tally
from byrote.report.report_inputs import report_inputs

UNIQUE = {"kind": "unique", "repeat_frac": 0.0, "pool_size": 0}
REPEATED = {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64}
GROUPS = ("--group", "unique=results/uni-*", "--group", "repeated=results/rep-*")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two seeds of an arm in which L1H2 rises, and two of one in which nothing does."""
    root = tmp_path_factory.mktemp("seeds") / "results"
    for seed in range(2):
        write_results(root, f"uni-{seed}", rising(at=10 + 10 * seed), arm=UNIQUE, seed=seed)
        write_results(root, f"rep-{seed}", flat(), arm=REPEATED, seed=seed)
    return root


@pytest.fixture
def here(seeds, byrote):
    shutil.copytree(seeds, byrote.folder / "results")
    return byrote


def test_two_groups_on_the_command_line(here):
    done = here("compare", *GROUPS, "-t", COLUMNS="200")
    words = " ".join(done.stdout.split())
    assert done.exit_code == 0, done.output
    assert "2 of 2 seeds of unique and 0 of 2 of repeated form lasting induction heads" in words
    assert (
        "5 a side are needed" in words
        and "repeated, first lasting induction head: never (both seeds)" in words
    )
    assert "In these runs (2 and 2 seeds)" in words and not {"better", "worse"} & set(words.split())
    rows = json.loads(here("compare", *GROUPS, "--json").stdout)
    loss = next(row for row in rows if row["metric"] == "later_blocks")
    assert len(loss["values_a"]) == loss["seeds_a"] == 2 and loss["runs_b"] == ["rep-0", "rep-1"]
    assert (loss["family"], loss["how"]) == ("secondary", "paired by seed")
    assert loss["n"] == 32 and loss["sd_a"] is not None and loss["seed_to_sequence"] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "--group", "a=results/uni-*"), "1 group given; a comparison takes two"),
        (("compare", "--group", "results/uni-*", "--group", "b=results/rep-*"), "is not ARM=GLOB"),
        (("compare", "--group", "a=results/uni-*", "--group", "a=results/rep-*"), "two groups are called 'a'"),
        (("compare", "--group", "a=results/*", "--group", "b=results/rep-*"), "differ in more than their seeds"),
        (("compare", "results/uni-0", *GROUPS), "give results folders, the baseline first, or two groups"),
        (("compare", "results/uni-0"), "argument 'B'"),
        (("compare", "results/uni-0", "results/rep-1", "--heads", "name"), "heads are not compared by name"),
        (("report",), "argument 'RESULT...'"),
        (("report", "results/uni-0", "--base", "unknown"), "is not among the runs"),
    ],
)  # fmt: skip
def test_what_is_no_comparison_of_groups_is_refused(here, words, message):
    done = here(*words)
    assert done.exit_code == 2 and message in done.stderr and "help:" in done.stderr


def test_the_report_has_the_arms_each_seed_and_what_was_declared(here):
    (here.folder / "results" / "byrote.toml").write_text('[runs."uni-*"]\nparameters = 4_096\n')
    assert here("report", "results", "--base", "unique", "--light", "-o", "report").exit_code == 0
    content = json.loads((here.folder / "report" / "report.json").read_text())
    assert (
        content["title"] == "Lasting induction heads in both seeds of unique, 0 of 2 of repeated f=0.5 P=64"
    )
    course, arms = (
        next(section for section in content["sections"] if section["name"] == name)
        for name in ("arms-training", "arms")
    )
    assert course["folded"]  # of so few runs each is shown
    tables = {block["name"]: block["rows"] for block in arms["blocks"] if block["kind"] == "table"}
    assert [row["Parameters"] for row in tables["arms-declared"]] == [4096, 4096, "–", "–"]
    later = next(
        row for row in tables["arms-table-0"] if row["Measure"]["text"] == "repeat loss: later blocks"
    )
    assert later["Each seed of A"].count(",") == 1 and later["In words"]["tone"] == "plain"
    front = content["sections"][0]
    figures = {
        block["name"]: block
        for part in (front, course)
        for block in part["blocks"]
        if block["kind"] == "figure"
    }
    assert "unique 0.300 (0.300 to 0.300 over 2 seeds)" in figures["repeat-loss-by-arm"]["finding"]
    assert "uni-1" in str(figures["repeat-loss-by-arm"]["table"]["rows"][0])
    assert "unique 0.900 (0.900 to 0.900 over 2 seeds); repeated" in figures["heads-by-arm"]["finding"]
    header = (here.folder / "report" / "scores.csv").read_text().partition("\n")[0]
    assert header.startswith("run,arm,step,")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Three arms of five seeds: in unique L1H2 rises, in repeated and control nothing does."""
    root = tmp_path_factory.mktemp("many") / "results"
    for seed in range(5):
        for arm, units, gain in (
            ("control", flat(), 0.2),
            ("repeated", flat(), 0.2),
            ("unique", rising(), 4.5),
        ):
            units = {
                step: [*found, model_metric("repeat_loss", "difference", -gain)]
                for step, found in units.items()
            }
            write_results(root, f"{arm}-{seed}", units, arm={"kind": arm}, seed=seed, notes=["a note of all"])
    return root


def test_a_report_of_many_runs_speaks_of_arms_and_shows_one_run_of_each(many, byrote):
    done = byrote("report", many, "--base", "control", "--figures", "--light", "-o", "report")
    assert done.exit_code == 0, done.output
    content = json.loads((byrote.folder / "report" / "report.json").read_text())
    assert content["title"] == (
        "Lasting induction heads in all 5 seeds of unique, 0 of 5 each of control and repeated"
    )
    assert [(run["name"], run["is_base"]) for run in content["runs"]] == [
        ("control", True), ("repeated", False), ("unique", False),
    ]  # fmt: skip
    assert [alert["text"] for alert in content["alerts"]] == ["all 15 runs: a note of all."]
    front, runs = (
        next(one for one in content["sections"] if one["name"] == name) for name in ("finding", "summary")
    )
    assert "lowest seed" in runs["blocks"][0]["text"]
    page = (byrote.folder / "report" / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    opened = [one["name"] for one in content["sections"] if not one["folded"]]
    copying = re.compile(
        r"Copying lowers the loss by 0\.20 nats in control, 0\.20 in repeated \(no clear change, 0 .*\), "
        r"4\.50 in unique \(better, \+4\.30 \[\+4\.\d\d, \+4\.\d\d\]\)\. "
    )
    said = [block.get("text", "") for block in front["blocks"]]
    assert any(map(copying.match, said)), said
    assert any(
        text.startswith("Means over 5 seeds an arm; in brackets the difference from control") for text in said
    )
    by_arm = next(block for block in front["blocks"] if block.get("name") == "by-arm")["rows"]
    assert by_arm[0]["control, baseline"] == "0 of 5" and by_arm[0]["unique"]["text"] == "5 of 5"
    assert opened == ["finding", "arms-training", "intervals", "words"]  # what is said of one run is folded
    assert [one.name for one in report_inputs(list(open_library([many]).runs.values())).groups] == [
        "control",
        "repeated",
        "unique",
    ]
    course = next(one for one in content["sections"] if one["name"] == "arms-training")
    by_seed = next(block["table"]["rows"] for block in course["blocks"] if block["kind"] == "figure")
    assert (
        len(by_seed) == 15 + 3 and {"Run", "Step 10", "Step 20"} <= by_seed[0].keys()
    )  # a row a line, not a column
    (table,) = (block for block in runs["blocks"] if block["kind"] == "table")
    assert {row["Run"] for row in table["rows"]} == {"control-0", "repeated-0", "unique-0"}
    (table,) = (block for block in front["blocks"] if block.get("name") == "by-arm")
    later = next(row for row in table["rows"] if row["Measure"]["text"] == "Repeat loss: later blocks")
    assert later["control, baseline"] == "4.80" and later["repeated"]["tone"] == "muted"
    assert later["unique"]["text"] == "0.300" and later["unique"]["tone"] == "good"
    assert "−4.50 [" in later["unique"]["detail"] and later["unique"]["detail"].endswith("better")
    drawn = {path.stem for path in (byrote.folder / "report" / "figures").glob("*.svg")}
    assert {"heads-by-arm", "repeat-loss-by-arm", "prefix-matching-by-arm"} <= drawn
    commands = next(section for section in content["sections"] if section["name"] == "reproduce")
    assert "byrote report results --base control --light -o report.html" in commands["blocks"][0]["text"]
    assert len((byrote.folder / "report" / "scores.csv").read_text().splitlines()) > 15 * 4


def test_many_runs_stay_open_and_the_overview_counts_them_by_arm(many, open_page):
    page = open_page("overview", many, run="repeated-3", step=40)
    assert not page.exception
    assert (
        heading(page)
        == "Lasting induction heads in all 5 seeds of unique, 0 of 5 each of control and repeated"
    )
    assert page.session_state["byrote_state"].base == "unique-3"  # of the same seed
    kept = open_library([many]).runs
    assert len(kept) == 15 > MAX_RUNS_OPEN
    assert all(open_library([many]).runs[name] is run for name, run in kept.items())


def test_arms_that_are_drawn_beside_each_other_have_the_same_heads(tmp_path):
    other = write_results(
        tmp_path, "other", {0: [head_metric("prefix_matching", np.full((1, 4), 0.5))]}, shape=(1, 4)
    )
    one = write_results(tmp_path, "one", rising())
    groups = [br.group(path.name, [br.Results.open(path)]) for path in (one, other)]
    with pytest.raises(br.ByroteError, match="models of 2 shapes"):
        br.figures.arm_grids(groups)
    figure = br.figures.arm_grids(groups[0], step=20)
    cells = figure.data[0].z
    assert len(cells) == 1 and cells[0][5] == 0.9 and cells[0][0] == 0.05  # L0H0 first, L1H2 last
    assert "step 20" in figure.layout.title.text and figure.alt.endswith("one 0.900 (1 seed).")


def test_the_compare_page_shows_every_seed(seeds, open_page):
    page = open_page("compare", seeds, run="rep-0", base="uni-0", step=40)
    assert not page.exception
    found = br.compare_groups(
        [br.Results.open(seeds / f"uni-{i}") for i in range(2)],
        [br.Results.open(seeds / f"rep-{i}") for i in range(2)],
    )
    shown = " ".join(one.value.replace("\\", "") for one in page.markdown)
    assert seed_tally(found).replace("A", "unique").split(",")[0] in shown
    assert "never (both seeds)" in shown and "2 of 2 seeds of unique" in shown
    assert "Arm against arm, over the seeds" in [one.value for one in page.header]


def test_heads_of_other_seeds_are_not_drawn_beside_each_other(seeds, open_page):
    page = open_page("compare", seeds, run="uni-1", base="uni-0", step=40)
    assert not page.exception
    assert "compared by name" in " ".join(one.value for one in (*page.info, *page.markdown, *page.caption))
