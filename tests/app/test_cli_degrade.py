"""`byrote degrade` on a planted study: what it prints, what it refuses by name, and that forms agree."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

COLUMNS = {
    "measure", "arm", "dose", "size", "metric", "value", "lo", "hi", "p", "seeds", "unit", "how", "baseline", "over", "of", "reason",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(degraded):
    return degraded[0].path.parent


@pytest.fixture
def rows(byrote, study):
    def call(*args):
        done = byrote("degrade", *args, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout), done.stderr

    return call


def test_everything_that_a_study_says(rows, study):
    found, said = rows(study)
    assert set(found[0]) == COLUMNS and {row["baseline"] for row in found} == {"control"}
    by = {
        (row["measure"], row["metric"], row["dose"]): row
        for row in found
        if row["reason"] is None or not row["reason"]
    }
    worst = by["dose", "damage", 62.5]
    assert (
        worst["value"] == pytest.approx(1.5, abs=0.02)
        and worst["lo"] < 1.5 < worst["hi"]
        and worst["seeds"] == 5
    )
    assert by["peak", "interior", 62.5]["value"] == 1 and worst["how"] == "paired by seed"
    halves = [row for row in found if row["measure"] == "effective_size" and row["arm"].endswith("E=62.5")]
    halves = halves or [row for row in found if row["measure"] == "effective_size" and "P=16" in row["arm"]]
    assert 0.25 < halves[0]["value"] < 0.5 and halves[0]["size"] == 4000
    assert by["near_zero", "distance", 62.5]["value"] == 0
    gone = [
        row
        for row in found
        if row["measure"] == "displacement" and row["metric"] == "induction" and "P=16" in row["arm"]
    ]
    assert gone[0]["how"] == "absent, not replaced" and gone[0]["value"] < -0.5
    missing = {row["measure"]: row["reason"] for row in found if row["reason"]}
    assert {"preferential", "capacity", "extraction", "churn", "double_descent"} <= set(missing)
    assert "boundary" in missing and "two sizes or more" in missing["boundary"]
    assert "Held-out loss is worst at E 62.5: +1.49 [" in said and "significantly worse than both" in said
    assert "is as good as a baseline of" in said and "embeddings included" in said
    assert "P=16, most of the direct raise of a copied token is gone, and no head took it over" in said
    assert "P=4, heads raise a copied token less" in said


def test_forms_agree_and_the_table_names_what_is_missing(byrote, study):
    done = byrote("degrade", study, "--measure", "dose", "--csv")
    read = list(csv.DictReader(io.StringIO(done.stdout)))
    assert set(read[0]) == COLUMNS and len(read) == 3
    table = byrote("degrade", study, "--table", COLUMNS="160")
    assert (
        "worst at E 62.5" in table.stdout and "not measured: " in table.stderr and "capacity" in table.stderr
    )
    assert "bits" not in byrote("degrade", study, "--measure", "noise_floor", "--table", COLUMNS="160").stdout


def test_groups_may_hold_several_doses_and_the_first_is_the_baseline(rows, study):
    groups = ("--group", f"healthy={study}/control-4000-*", "--group", f"repeated={study}/rep-*")
    found, _ = rows(*groups, "--over", "pool", "--measure", "dose", "--measure", "band")
    assert [row["dose"] for row in found if row["measure"] == "dose"] == [4, 16, 256]
    assert {row["baseline"] for row in found} == {"healthy"} and {row["over"] for row in found} == {"pool"}
    left, right = (row for row in found if row["measure"] == "band")
    assert left["reason"] and left["value"] is None  # at P = 4 damage is above half of the largest
    assert 16 < right["value"] < 256


def test_sizes_without_embeddings_and_a_floor(rows, study):
    args = ("--measure", "effective_size", "--size", "parameters_without_embeddings", "--floor", "1")
    found, said = rows(study, *args)
    assert {row["size"] for row in found} == {2000, None}
    assert "parameters N without embeddings" in said and "above 1 nats" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--measure", "dosis"), "there is no measure 'dosis' of degradation"),
        (("--over", "epoch"), "there is no dose 'epoch'"),
        (
            ("--over", "synthetic_share", "--measure", "dose"),
            "all runs have synthetic_share 0: a dose-response needs two",
        ),
        (("--baseline", "unique"), "there is no group 'unique'"),
        (("--measure", "capacity"), "unintended_bits"),
        (("--metric", "held_out_loss", "--measure", "dose"), "'held_out_loss' is not PROBE/METRIC"),
        (("--floor", "3", "--measure", "effective_size"), "is not above the floor of 3"),
    ],
)
def test_what_was_requested_and_cannot_be_had_is_refused(byrote, study, args, words):
    done = byrote("degrade", study, *args)
    assert done.exit_code == 2 and words in done.stderr and "help:" in done.stderr, done.stderr


def test_an_undeclared_dose_is_refused_by_name(byrote, tmp_path):
    from planted_series import model_metric, write_results

    for name, loss in (("control-a", 2.0), ("rep-a", 3.0)):
        write_results(tmp_path, name, {0: [model_metric("held_out_loss", "loss", loss)]})
    groups = ("--group", f"control={tmp_path}/control-*", "--group", f"repeated={tmp_path}/rep-*")
    done = byrote("degrade", *groups, "--over", "epochs", "--measure", "dose")
    assert (
        done.exit_code == 2
        and "epochs of rep-a is not declared, and a dose-response over epochs needs it" in done.stderr
    )
    assert '[runs."rep-a"] epochs' in done.stderr
    none = byrote("degrade", *groups, "--measure", "dose")
    assert none.exit_code == 2 and "no declared setting varies" in none.stderr
    few = byrote("degrade", *groups, "--json")
    assert few.exit_code == 0 and "only seeds are compared" in few.stderr
    both = byrote("degrade", str(tmp_path), *groups)
    assert both.exit_code == 2 and "give results folders, or groups" in both.stderr


def test_numbers_are_those_of_the_functions(rows, study, degraded):
    from byrote.probes.degrade.measures import degradation

    found, _ = rows(study, "--measure", "noise_floor")
    named: dict[str, list] = {}
    for run in sorted(degraded, key=lambda run: run.run):
        named.setdefault(run.facts.arm, []).append(run)
    same = degradation(list(named.items()), measures=["noise_floor"]).rows
    assert [row["value"] for row in found] == pytest.approx(same["value"].tolist())
    assert np.isclose([row["value"] for row in found], 0.0158, atol=0.01).all()
