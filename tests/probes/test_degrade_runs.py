"""Tables of runs made of results folders: facts, values and refusals; displacement on rows of heads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted_series import N, model_metric, write_results

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade import displacement, dose_response, run_rows
from byrote.probes.degrade.displacement import (
    ABSENT,
    DISPLACED,
    UNCLEAR_WHICH,
    head_shares,
    reading,
    shares_table,
)
from byrote.probes.degrade.runs import required
from byrote.probes.groups import Group, group
from byrote.probes.results import Results

MODEL = {
    "d_model": 8,
    "d_head": 4,
    "n_layers": 2,
    "n_heads": 3,
    "n_ctx": 16,
    "d_vocab": 12,
    "attn_only": True,
}


@pytest.fixture(scope="module")
def groups(degraded):
    return [
        Group("control", tuple(r for r in degraded if r.facts.pool == 0 and r.facts.parameters == 4000)),
        *(Group(f"P={pool}", tuple(r for r in degraded if r.facts.pool == pool)) for pool in (256, 16, 4)),
    ]


def test_a_row_per_run_with_what_it_declares_and_its_value(groups):
    table = run_rows(groups)
    assert len(table) == 20 and table["run"].is_unique
    first = table[table["run"] == "rep-p16-s3"].iloc[0]
    assert (first["pool"], first["repeat_frac"], first["epochs"], first["init_seed"]) == (16, 0.5, 62.5, 3)
    assert (first["parameters"], first["parameters_without_embeddings"]) == (4000, 2000)
    assert (first["tokens"], first["compute"], first["step"]) == (20_000, 6 * 4000 * 20_000, 20)
    assert first["value"] == pytest.approx(3.53, abs=0.02) and len(first["samples"]) == first["n"] == N
    assert (first["unit"], first["better"], first["smallest"]) == ("nats", "lower", 0.05)
    assert run_rows(groups, step=20)["tokens"].eq(20_000).all()


def test_a_dose_response_of_results(groups):
    control, *repeated = groups
    found = dose_response(run_rows(repeated), "pool", baseline=run_rows([control]))
    assert found.rows["dose"].tolist() == [4, 16, 256] and found.paired
    assert found.rows["damage"].tolist() == pytest.approx([0.8, 1.5, 0.1], abs=0.02)
    assert found.peak is not None and found.peak.dose == 16 and found.peak.interior


def test_the_strongest_head_is_one_number(groups):
    table = run_rows(groups, "prefix_matching", "score:best_head")
    assert table.groupby("pool")["value"].mean().round(1).tolist() == [1.0, 1.0, 0.0, 1.0]
    assert table["samples"].isna().all()
    with pytest.raises(ByroteError, match="not one number of the whole model") as error:
        run_rows(groups, "prefix_matching", "score")
    assert "prefix_matching/score:best_head" in error.value.help


def test_what_is_not_there_is_refused_by_name(groups):
    table = run_rows(groups)
    assert required(table, "pool", what_for="a test").tolist()[:5] == [0] * 5
    with pytest.raises(ByroteError, match="no step 7 in common") as error:
        run_rows(groups, step=7)
    assert "they share the steps 20" in error.value.help
    with pytest.raises(ByroteError, match="there is no run"):
        run_rows([])
    bare = table.assign(synthetic_share=np.nan)
    with pytest.raises(
        ByroteError, match="synthetic_share of control-4000-s0 is not declared, and a test needs it"
    ) as error:
        required(bare, "synthetic_share", what_for="a test")
    assert '[runs."control-4000-s0"] synthetic_share' in error.value.help


def test_sizes_with_and_without_embeddings_of_a_lab_model(tmp_path):
    meta = {"arm": {"kind": "unique"}, "seed": 1, "model": MODEL}
    units = {10: [model_metric("held_out_loss", "loss", 2.0)]}
    series = {
        "name": "a",
        "path": "runs/a",
        "format": "lab",
        "n_checkpoints": 1,
        "steps": [10],
        "loss_nats": {},
        "manifest": meta,
    }
    facts = Results.open(write_results(tmp_path, "a", units, series=series)).facts
    inner = 2 * 4 * 8 * 3 * 4
    assert (facts.parameters_without_embeddings, facts.parameters) == (inner, inner + (2 * 12 + 16) * 8)


# Displacement.


def frame(values, **more) -> pd.DataFrame:
    return pd.DataFrame({"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "value": values, **more})


def test_shares_by_class_of_head():
    verdict, previous = frame([0.0, 0.0, 1.0, 0.0]), frame([0.1] * 4, lo=[0.1, 0.8, 0.1, 0.1])
    found = head_shares(frame([1.0, 0.5, 2.0, -4.0]), verdict, previous)
    assert found == {"induction": 2 / 3.5, "previous token": 0.5 / 3.5, "other": 1 / 3.5, "all heads": 3.5}
    assert np.isnan(head_shares(frame([-1.0] * 4), verdict, previous)["other"])
    with pytest.raises(ByroteError, match="have no verdict"):
        head_shares(frame([1.0] * 4), verdict.iloc[:2], previous)


def test_a_head_that_is_gone_is_absent_and_one_whose_share_others_have_is_displaced(groups):
    control, _, worst, _ = groups
    table, said = displacement(control, worst)
    by = table.set_index("class")
    assert (
        said == ABSENT
        and by.loc["induction", "b"] == 0
        and by.loc["all heads", "difference"] == pytest.approx(-1.9)
    )
    assert displacement(control, control)[1] == UNCLEAR_WHICH

    def side(induction, total):
        return [{"induction": induction + 0.01 * i, "previous token": 0.0, "other": 1 - induction - 0.01 * i, "all heads": total + 0.01 * i}
                for i in range(5)]  # fmt: skip

    swapped = shares_table(side(0.8, 5.0), side(0.2, 5.0), paired=True)
    assert reading(swapped) == DISPLACED
    assert reading(shares_table(side(0.8, 5.0)[:4], side(0.2, 5.0)[:4], paired=True)) == UNCLEAR_WHICH


def test_runs_without_the_probes_are_refused(tmp_path):
    bare = group(
        "a", [Results.open(write_results(tmp_path, "a", {10: [model_metric("held_out_loss", "loss", 2.0)]}))]
    )
    with pytest.raises(ByroteError, match="induction_dla"):
        displacement(bare, bare)
