"""The results folder: written whole or not at all, readable without us, and clear about what it is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import beta
from tiny_models import BASIC_PROBES, write_lab_series

from byrote.checkpoints import ByroteError, open_series
from byrote.probes.registry import lookup
from byrote.probes.results import Results
from byrote.probes.results.schema import (
    OBSERVATION_SCHEMA,
    Measured,
    from_samples,
    not_measured,
    to_frame,
    unit_table,
)
from byrote.probes.results.series_place import results_folder
from byrote.probes.results.unit_files import step_folder, unit_provenance, write_unit
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

COLUMNS = [
    "run", "step", "tokens_seen", "probe", "metric", "layer", "head", "src_layer", "src_head", "position", "value", "lo",
    "hi", "chance", "n", "valid", "reason",
]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    root = tmp_path_factory.mktemp("store")
    series = open_series(write_lab_series(root / "tiny", (0, 16)))
    return sweep(series, SweepConfig(BASIC_PROBES, n_seq=4), out=root / "results").results


def test_columns_and_types(results):
    frame = results.frame
    assert list(frame.columns) == COLUMNS == OBSERVATION_SCHEMA.names
    integers = ["tokens_seen", "layer", "head", "src_layer", "src_head", "position"]
    assert {str(frame[c].dtype) for c in integers} == {"Int64"}
    assert {str(frame[c].dtype) for c in ("step", "n")} == {"int64"}
    assert {str(frame[c].dtype) for c in ("value", "lo", "hi", "chance")} == {"float64"}
    assert frame["valid"].dtype == bool
    assert set(frame["run"]) == {"tiny"}
    assert frame["tokens_seen"].tolist() == (100 * frame["step"]).tolist()


def test_anything_opens_it(results):
    table = pq.read_table(results.path / "observations.parquet")
    assert table.schema.names == COLUMNS
    plain = pd.read_parquet(results.path / "observations.parquet")
    assert len(plain) == len(results.frame) == table.num_rows > 0


def test_absent_axes_are_absent_and_not_zero(results):
    model_level = results.select("repeat_loss", "later_blocks")
    assert model_level["layer"].isna().all()
    assert model_level["head"].isna().all()
    heads = results.select("previous_token", "score", step=16)
    assert sorted(zip(heads["layer"], heads["head"], strict=True)) == [
        (l, h) for l in range(2) for h in range(4)
    ]
    curve = results.select("copy_curve", "loss", step=0)
    assert curve["position"].tolist() == [1, 2]
    assert results.select("offset_profile", "profile", step=0)["position"].min() == 0


def test_not_measured_has_a_reason_and_no_number(results):
    frame = results.frame
    invalid = frame[~frame["valid"]]
    assert len(invalid)  # two copies make no slope
    assert (invalid["reason"] != "").all()
    assert invalid[["value", "lo", "hi"]].isna().all().all()
    assert (frame.loc[frame["valid"], "reason"] == "").all()
    assert frame.loc[frame["valid"], ["value", "lo", "hi"]].notna().all().all()
    valid = frame[frame["valid"] & ~frame["metric"].isin(["verdict"])]
    assert ((valid["lo"] <= valid["value"] + 1e-9) & (valid["value"] <= valid["hi"] + 1e-9)).all()


def test_per_sequence_values_average_to_the_value(results):
    rows = results.samples(16)
    kept = rows[(rows["samples"].map(len) > 0) & rows["valid"]]
    assert set(kept["probe"]) >= {"prefix_matching", "copying_logit", "repeat_loss"}
    for row in kept.itertuples():
        finite = [v for v in row.samples if np.isfinite(v)]
        assert len(finite) == row.n
        assert np.mean(finite) == pytest.approx(row.value, abs=1e-5)


def test_the_values_of_one_probe_are_all_that_it_has(results):
    rows = results.samples(16)
    probes = set(rows["probe"])
    assert len(probes) > 5 and {"score@shuffled_repeat", "score"} <= set(rows["metric"])
    for probe in probes:
        mine = rows[rows["probe"] == probe].reset_index(drop=True)
        pd.testing.assert_frame_equal(results.samples(16, probe=probe).reset_index(drop=True), mine)
    alone, whole = (
        results.curves("repeat_loss", "later_blocks", sequences=False)[None],
        results.curve("repeat_loss", "later_blocks"),
    )
    assert alone.samples is None and whole.samples is not None
    np.testing.assert_array_equal(alone.value, whole.value)


def test_units_say_what_they_were_measured_with(results):
    for path in sorted(step_folder(results.path, 16).glob("*.parquet")):
        facts = unit_provenance(path)
        assert {
            "fingerprint",
            "stimulus",
            "seed",
            "dtype",
            "device",
            "weight_processing",
            "intervals",
            "versions",
            "probes",
        } <= set(facts)
        assert facts["versions"]["torch"]
        kind = path.name.split(".")[0]
        assert facts["stimulus"].startswith(kind)


def test_run_json_and_repr(results):
    assert (results.run, results.steps, results.gaps) == ("tiny", [0, 16], [])
    assert results.meta["series"]["loss_nats"] == {"0": 3.0, "16": 3.0}
    assert "2 checkpoints, steps 0-16" in repr(results)


def test_what_is_not_a_results_folder(results, tmp_path):
    with pytest.raises(ByroteError, match="is not a results folder"):
        Results.open(tmp_path)
    with pytest.raises(ByroteError, match="by its path, and NoneType was given"):
        results_folder(None)
    with pytest.raises(ByroteError, match=r"holds runs: tiny; name one, such as .*tiny"):
        Results.open(results.path.parent)
    for text, words in (("{", "cannot be read"), ('{"schema": 99}', "schema 99"), ("{}", "schema None")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ByroteError, match=words):
            Results.open(tmp_path)


def test_a_failed_write_keeps_the_old_unit_and_leaves_nothing_behind(tmp_path, monkeypatch):
    file = tmp_path / "units" / "u.parquet"
    table = unit_table(
        [not_measured(lookup("previous_token"), "score", "why")], run="r", step=1, tokens_seen=None
    )
    write_unit(file, table, {"seed": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        write_unit(file, table, {"seed": 2})
    assert unit_provenance(file) == {"seed": 1}
    assert [p.name for p in file.parent.iterdir()] == ["u.parquet"]


def test_a_file_that_is_no_unit_has_no_provenance(tmp_path):
    for data in (b"", b"PAR1", b"not parquet at all"):
        (tmp_path / "x.parquet").write_bytes(data)
        assert unit_provenance(tmp_path / "x.parquet") == {}
    assert unit_provenance(tmp_path / "missing.parquet") == {}


def test_rows_of_a_small_grid_by_hand():
    info = lookup("previous_token")
    samples = np.array([[[0.1, np.nan], [0.3, 0.5]], [[0.3, np.nan], [0.3, 0.7]]])  # [sequence, layer, head]
    measured = from_samples(
        info, "score", samples, axes=("layer", "head"), chance=0.05, seed=0, layer_reasons={0: "leaks"}
    )
    frame = to_frame(unit_table([measured], run="r", step=7, tokens_seen=70))
    assert frame[["layer", "head", "valid", "reason", "n"]].values.tolist() == [
        [0, 0, False, "leaks", 2], [0, 1, False, "leaks", 0], [1, 0, True, "", 2], [1, 1, True, "", 2],
    ]  # fmt: skip
    assert frame["value"].tolist()[2:] == pytest.approx([0.3, 0.6])
    assert frame["value"][:2].isna().all()
    equal = beta.ppf([0.025, 0.975], [0.6, 1.6], [2.4, 1.4])  # Clopper-Pearson, 0.6 of 2
    assert (frame["lo"][2], frame["hi"][2]) == pytest.approx(tuple(equal))
    assert 0 < frame["lo"][3] < 0.5 and 0.7 < frame["hi"][3] < 1
    assert frame["samples"].map(list)[3] == pytest.approx([0.5, 0.7])


def test_positions_start_where_the_curve_starts():
    info = lookup("copy_curve")
    values = np.array([3.0, 2.0, 1.0])
    measured = Measured(
        info.name, "loss", values, values, values, values, np.ones(3), ("position",), position_start=1
    )
    frame = to_frame(unit_table([measured], run="r", step=0, tokens_seen=None))
    assert frame["position"].tolist() == [1, 2, 3]
    assert frame["layer"].isna().all()
    assert frame["tokens_seen"].isna().all()


def test_damaged_files_of_a_results_folder(tmp_path):
    series = open_series(write_lab_series(tmp_path / "tiny", (0, 16)))
    config = SweepConfig(("previous_token",), n_seq=4)
    outcome = sweep(series, config, out=tmp_path / "results")
    whole, observations = outcome.results.frame, outcome.path / "observations.parquet"
    observations.write_bytes(observations.read_bytes()[:-30])
    assert outcome.results.frame.equals(whole)  # derived again from the units
    unit = next(outcome.path.glob("units/*/*.parquet"))
    unit.write_bytes(unit.read_bytes()[:-30])
    with pytest.raises(ByroteError, match=r"the unit .* is damaged.*run the same sweep again"):
        _ = outcome.results.frame
    assert sweep(series, config, out=tmp_path / "results").results.frame.equals(whole)
