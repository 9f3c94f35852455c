"""A verdict that is stored as a number is shown as its word."""

from __future__ import annotations

import json

import pytest

from byrote.checkpoints.lab.planted_cases import write_case
from byrote.probes.registry import lookup


def test_load_bearing_is_said_in_words(byrote, planted_runs):
    words = ("-p", "load_bearing", "--sequences", "16", "--steps", "last")
    done = byrote("run", planted_runs / "planted", *words, "-o", "results")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(byrote("show", "results/planted", "--metric", "verdict", "--json").stdout)
    word = lookup("load_bearing").words["verdict"][int(row["value"])]
    assert row["words"] == word
    shown = byrote("show", "results/planted", "--table").stdout
    assert f"load_bearing: verdict {word}, n_top" in shown
    assert byrote("report", "results/planted", "--light", "-o", "report").exit_code == 0
    assert word in (byrote.folder / "report/report.html").read_text(encoding="utf-8")


def test_top_heads_is_an_option_and_part_of_what_is_stored(byrote, tmp_path):
    series = write_case(tmp_path / "pair", "four_together")
    words = ["run", series, "-p", "load_bearing", "--sequences", "8", "-o", "results"]
    assert byrote(*words, "--top-heads", "4").exit_code == 0
    shown = byrote("show", "results/pair", "--metric", "n_top", "--json")
    assert json.loads(shown.stdout)[0]["value"] == 4
    again = byrote(*words)  # another k: measured anew
    assert again.exit_code == 0, again.stderr
    assert json.loads(byrote("show", "results/pair", "--metric", "n_top", "--json").stdout)[0]["value"] == 1


@pytest.mark.parametrize(
    ("value", "word"), [(0.0, "neither"), (3.0, "load-bearing"), (5.0, ""), (0.5, ""), (float("nan"), "")]
)
def test_only_whole_numbers_of_a_verdict_have_words(value, word):
    assert lookup("load_bearing").word_of("verdict", value) == word
    assert lookup("load_bearing").word_of("excess", value) == ""
