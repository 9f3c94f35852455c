"""Arms of several seeds on the command line, in the report and on the compare page."""

from __future__ import annotations

import json
import shutil

import pytest
from planted_series import flat, rising, write_results

import byrote as br
from byrote.probes.findings_compared import seed_tally

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
    assert "it takes 5 a side" in words and "repeated: induction heads seed 0 never, seed 1 never" in words
    assert "In these runs (2 and 2 seeds)" in words and not {"better", "worse"} & set(words.split())
    rows = json.loads(here("compare", *GROUPS, "--json").stdout)
    loss = next(row for row in rows if row["metric"] == "later_blocks")
    assert len(loss["values_a"]) == loss["seeds_a"] == 2 and loss["runs_b"] == ["rep-0", "rep-1"]
    assert (loss["family"], loss["how"]) == ("secondary", "paired by seed")
    assert loss["n"] == 32 and loss["sd_a"] is not None and loss["seed_to_sequence"] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "--group", "a=results/uni-*"), "1 groups are given"),
        (("compare", "--group", "results/uni-*", "--group", "b=results/rep-*"), "is no ARM=GLOB"),
        (("compare", "--group", "a=results/uni-*", "--group", "a=results/rep-*"), "two groups are called 'a'"),
        (("compare", "--group", "a=results/*", "--group", "b=results/rep-*"), "differ in more than their seeds"),
        (("compare", "results/uni-0", *GROUPS), "give two results folders A and B, or two groups"),
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
    assert here("report", "results", "--base", "unique", "-o", "report").exit_code == 0
    content = json.loads((here.folder / "report" / "report.json").read_text())
    assert content["title"].startswith("2 of 2 seeds of unique and 0 of 2 of repeated f=0.5 P=64 form")
    arms = next(section for section in content["sections"] if section["name"] == "arms")
    tables = {block["name"]: block["rows"] for block in arms["blocks"] if block["kind"] == "table"}
    assert [row["Parameters"] for row in tables["arms-declared"]] == [4096, 4096, "–", "–"]
    later = next(
        row for row in tables["arms-table-0"] if row["Measure"]["text"] == "repeat loss: later blocks"
    )
    assert later["Each seed of A"].count(",") == 1 and later["In words"]["tone"] == "plain"
    figure = next(block for block in arms["blocks"] if block["kind"] == "figure")
    assert "median of 2" in figure["finding"]
    assert "uni-1" in str(figure["table"]["rows"][0])
    header = (here.folder / "report" / "scores.csv").read_text().partition("\n")[0]
    assert header.startswith("run,arm,step,")


def test_the_compare_page_shows_every_seed(seeds, open_page):
    page = open_page("compare", seeds, run="rep-0", base="uni-0", step=40)
    assert not page.exception
    found = br.compare_groups(
        [br.Results.open(seeds / f"uni-{i}") for i in range(2)],
        [br.Results.open(seeds / f"rep-{i}") for i in range(2)],
    )
    shown = " ".join(one.value.replace("\\", "") for one in page.markdown)
    assert seed_tally(found).replace("A", "unique").split(",")[0] in shown
    assert "seed 0 never" in shown and "2 of 2 seeds of unique" in shown
    assert "Arm against arm, over the seeds" in [one.value for one in page.subheader]


def test_heads_of_other_seeds_are_not_drawn_beside_each_other(seeds, open_page):
    page = open_page("compare", seeds, run="uni-1", base="uni-0", step=40)
    assert not page.exception
    assert "compared by name" in " ".join(one.value for one in (*page.info, *page.markdown, *page.caption))
