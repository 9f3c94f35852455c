"""Rows come out of the cache as they were read, in a fraction of the memory; parts of a metric come from the whole of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from paper_runs import planted_run

from byrote.probes.results import Results
from byrote.probes.results.compact import Compact
from byrote.probes.results.schema import from_frame, to_frame
from byrote.probes.results.source import encoded


@pytest.fixture(scope="module")
def unique() -> Results:
    return planted_run()


@pytest.mark.parametrize("prepared", [lambda table: table, encoded], ids=["plain", "as it is read"])
def test_a_frame_comes_out_bit_for_bit(unique: Results, prepared) -> None:
    frame = unique.frame.copy()
    frame.loc[3, ["value", "chance"]] = -0.0, np.nan
    frame.loc[5, ["layer", "reason"]] = pd.NA, "no query has a target"
    frame.loc[7, "tokens_seen"] = 2**40
    parts = [frame, *(part for _, part in frame.groupby(["probe", "metric"])), frame.head(0), frame.head(1)]
    for part in parts:
        table = from_frame(part)
        out = Compact(prepared(table)).frame()
        pd.testing.assert_frame_equal(out, to_frame(table), check_exact=True)
        zeros = out["value"].to_numpy() == 0
        assert (np.signbit(out["value"]) == np.signbit(part["value"].to_numpy()))[zeros].all()


def test_a_large_metric_takes_a_quarter_of_the_memory(unique: Results) -> None:
    one = unique.select("prefix_matching", "score")
    many = pa.concat_tables([from_frame(one)] * 200)
    assert Compact(many).nbytes < to_frame(many).memory_usage().sum() / 4


@pytest.mark.parametrize("few", [0, 20_000], ids=["read", "cut out"])
def test_one_head_at_one_step_is_the_same_read_alone_or_cut_out(unique: Results, monkeypatch, few) -> None:
    monkeypatch.setattr("byrote.probes.results.table._FEW_ROWS", few)
    run = planted_run()
    whole = run.frame[(run.frame["probe"] == "prefix_matching") & (run.frame["metric"] == "score")]
    for step, head in ((320, (1, 0)), (None, (1, 0)), (320, None)):
        mine = whole[(whole["step"] == step) | (step is None)]
        mine = mine[
            ((mine["layer"] == head[0]) & (mine["head"] == head[1])) if head else mine["layer"].notna()
        ]
        found = run.rows("prefix_matching", "score", step=step, head=head).drop(columns="left_out")
        pd.testing.assert_frame_equal(found, mine[found.columns].reset_index(drop=True), check_exact=True)
    assert run.rows("offset_profile", "profile", step=320, single=True).empty
