"""`byrote logits`: two steps of a planted series that differ in the output of two heads."""

from __future__ import annotations

import json

from byrote.cli.session import Exit


def test_what_a_step_adds_is_said_for_every_text(byrote, series_copy):
    path = series_copy("planted", "one")
    done = byrote("logits", path, "--from", "0", "--to", "last", "--sequences", "8", "--json")
    assert done.exit_code == Exit.GAPS, done.stderr  # planted series carry no members
    rows = json.loads(done.stdout)
    assert {(row["run"], row["from_step"], row["to_step"]) for row in rows} == {("planted", 0, 20)}
    found = {(row["text"], row["metric"], row["scale"]): row for row in rows}
    assert found["repeats", "loss", 1.0]["valid"] and found["repeats", "size", None]["value"] >= 0
    assert "no training members" in found["members", "raised", None]["reason"]
    table = byrote("logits", path, "--from", "0", "--to", "20", "--sequences", "8", "-t")
    assert table.stdout.startswith("planted: what step 20 adds to the logits of step 0, sequence seed 0")


def test_two_steps_are_named(byrote, series_copy):
    done = byrote("logits", series_copy("planted", "two"), "--from", "0..20", "--to", "20")
    assert done.exit_code == Exit.USAGE and "'0..20' names 3 steps" in done.stderr
