"""Pairs of heads on the command line: both heads are named, from the run to the report."""

from __future__ import annotations

import csv
import io
import json

from byrote.checkpoints.lab.planted import PlantedConfig, write_planted
from byrote.interp.axes import pair_label

PAIRS = {"L0H0 → L1H0", "L0H0 → L1H1", "L0H0 → L1H2"}


def test_pairs_are_named_by_both_heads(byrote):
    assert pair_label((0, 1), (11, 3)) == "L0H1 → L11H3"
    for kind in ("planted", "random"):
        write_planted(byrote.folder / "runs" / kind, PlantedConfig(d_vocab=48, n_ctx=104), kind=kind)
    done = byrote(
        "run", "runs", "-p", "composition", "-p", "previous_token", "--sequences", "8", "-o", "results"
    )
    assert done.exit_code == 0, done.stderr

    rows = json.loads(byrote("show", "results/planted", "-p", "composition", "--top", "3", "--json").stdout)
    ranked = [row for row in rows if row["valid"]]
    assert {row["head"] for row in ranked} == PAIRS
    assert {row["n"] for row in ranked} == {256}
    assert {row["head"] for row in rows if not row["valid"]} == {f"L0H3 → L1H{h}" for h in range(4)}

    done = byrote("compare", "results/planted", "results/random", "--csv")
    assert done.exit_code == 0, done.stderr
    rows = [r for r in csv.DictReader(io.StringIO(done.stdout)) if r["metric"] == "k_z"]
    assert {row["head_a"] for row in rows} > PAIRS
    assert len({row["head_a"] for row in rows}) == len(rows) == 12  # dead L0H3 is left out
    assert {row["change"] for row in rows} == {"exact"}

    done = byrote("report", "results/planted", "results/random", "--base", "planted", "--light", "-o", "out")
    assert done.exit_code == 0, done.stderr
    text = (byrote.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert any(pair in text for pair in PAIRS)
