"""`byrote graft`: heads of one step in another, on a planted series whose steps are equal but for one head."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from byrote.cli.session import Exit


@pytest.fixture
def runs(series_copy) -> Path:
    """The planted series, without the output of L1H0 and L1H1 at step 0 and whole at steps 10 and 20."""
    path = series_copy("planted", "two")
    file = path / "step_00000000" / "model.safetensors"
    state = load_file(file)
    d_head = state["layers.1.attn.o.weight"].shape[1] // 4
    state["layers.1.attn.o.weight"][:, : 2 * d_head] = 0
    save_file(state, file)
    return path


def test_grafted_heads_bring_copying_back(byrote, runs):
    done = byrote(
        "graft", runs, "--from", "last", "--into", "0", "--heads", "l1h0,L1H1", "--sequences", "8", "--json"
    )
    assert done.exit_code == Exit.DONE, done.stderr
    found = {(row["way"], row["metric"]): row for row in json.loads(done.stdout)}
    assert {row["heads"] for row in found.values()} == {"L1H0,L1H1"}
    assert {(row["from_step"], row["into_step"], row["run"]) for row in found.values()} == {
        (20, 0, "planted")
    }
    assert found["", "into"]["value"] > found["", "from"]["value"]
    assert found["weights", "loss"]["value"] == pytest.approx(found["", "from"]["value"], abs=1e-4)
    assert found["weights", "returned"]["value"] == pytest.approx(1, abs=1e-3)
    assert found["z", "returned"]["value"] == pytest.approx(0, abs=1e-3)  # written by nothing at step 0
    table = byrote("graft", runs, "--from", "20", "--into", "0", "--heads", "L1H0", "--sequences", "8", "-t")
    assert table.stdout.splitlines()[0] == "planted: L1H0 of step 20 in step 0, sequence seed 0"
    assert "returned" in table.stdout
    rows = list(
        csv.DictReader(
            io.StringIO(byrote("graft", runs, "--from", "20", "--into", "20", "--heads", "L1H0").stdout)
        )
    )
    (returned,) = [row for row in rows if row["metric"] == "returned" and row["way"] == "z"]
    assert (returned["valid"], returned["reason"]) == ("false", "the two steps do not clearly differ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--heads": "L7H0"}, "there is no L7H0: the model has 2 layers of 4 heads"),
        ({"--heads": "seven"}, "'seven' is not a head"),
        ({"--from": "5"}, "step 5 is not in"),
        ({"--into": "0..20"}, "'0..20' names 3 steps"),
    ],
)
def test_mistakes_are_said_before_anything_is_measured(byrote, runs, changes, words):
    options = {"--from": "20", "--into": "0", "--heads": "L1H0"} | changes
    done = byrote("graft", runs, *(word for pair in options.items() for word in pair))
    assert done.exit_code == Exit.USAGE
    assert words in done.stderr
    assert done.stdout == ""


def test_several_series_are_one_too_many(byrote, planted_runs):
    done = byrote("graft", planted_runs, "--from", "20", "--into", "0", "--heads", "L1H0")
    assert done.exit_code == Exit.USAGE
    assert "holds 2 runs" in done.stderr and "name one series" in done.stderr
