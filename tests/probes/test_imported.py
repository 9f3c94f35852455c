"""Published scores as results: what works without samples, what is refused, and tables that cannot be used."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

import byrote as br
from byrote.probes.results.derived import observations_current
from byrote.probes.trajectory import events, turnover
from byrote.probes.trajectory.turnover import total_mass
from byrote.probes.verify import verify

STEPS = (0, 10, 100, 1000)
RISING = {0: 0.02, 10: 0.04, 100: 0.62, 1000: 0.8}  # half of the rise, 0.41, lies between steps 10 and 100


def table(shift: float = 0.0, **columns: object) -> pd.DataFrame:
    rows = [
        {
            "step": s,
            "layer": l,
            "head": h,
            "value": RISING[s] - shift * (s == 1000) if (l, h) == (1, 0) else 0.02,
        }
        for s in STEPS
        for l in (0, 1)
        for h in (0, 1)
    ]
    return pd.DataFrame(rows).assign(**columns)


def refusal(frame: pd.DataFrame, tmp_path, **said: object) -> br.ByroteError:
    """The one error of a table, whether it is a frame or a CSV file; nothing is left behind that opens."""
    with pytest.raises(br.ByroteError) as of_frame:
        br.import_scores(frame, tmp_path / "frame", **said)
    file = tmp_path / "table.csv"
    frame.to_csv(file, index=False)
    with pytest.raises(br.ByroteError):
        br.import_scores(file, tmp_path / "csv", **said)
    assert not (tmp_path / "frame/run.json").exists() and not (tmp_path / "csv/run.json").exists()
    return of_frame.value


def test_a_frame_becomes_results_that_say_what_they_are(tmp_path):
    results = br.import_scores(table(), tmp_path / "published", metric="prefix_matching", source="Table 2")
    assert results.imported == "Table 2" and results.steps == list(STEPS) and results.shape == (2, 2)
    rows = results.rows("prefix_matching", "score")
    assert rows[["lo", "hi", "chance"]].isna().all(axis=None) and not rows["n"].any()
    assert results["prefix_matching"].top(1)["head"].tolist() == ["L1H0"]
    assert "no samples: no intervals" in repr(results) and "no samples" in repr(results["prefix_matching"])
    assert verify(results.path).findings == () and observations_current(results.path)
    with pytest.raises(br.ByroteError, match="imported from Table 2, which has no values per sequence"):
        results.samples(10)
    assert not br.onset(results).measured and "no samples" in br.onset(results).text


def test_onsets_are_brackets_without_intervals(tmp_path):
    scores = br.import_scores(table(), tmp_path / "published", metric="prefix_matching")["prefix_matching"]
    (row,) = scores.onset(0.4).table.itertuples()
    assert (row.head, row.between_step_lo, row.between_step_hi) == ("L1H0", 10, 100)
    assert np.isnan(row.lo) and np.isnan(row.hi) and "no intervals" in row.method
    half = scores.onset().table.iloc[0]
    assert (half["between_step_lo"], half["between_step_hi"]) == (
        10,
        100,
    )  # half of 0.04 to 0.78 is 0.41: 0.04, 0.62
    assert "[" not in scores.onset().text and "[" not in scores.peak().text
    found = events(scores.results)
    assert set(found["event"]) >= {"onset_10", "onset_50", "onset_90"}
    assert found[["lo", "hi", "value_lo", "value_hi"]].isna().all(axis=None)


def test_turnover_and_mass_have_values_and_no_intervals(tmp_path):
    frame = table()
    swapped = (frame["step"] == 1000) & (frame["layer"] == 0)
    frame.loc[swapped, "value"] = 0.9
    results = br.import_scores(frame, tmp_path / "published", metric="prefix_matching")
    last = turnover(results, k=2).iloc[-1]
    assert last["jaccard"] == pytest.approx(1 / 3) and last["left"] == "L1H0" and not last["sure"]
    assert np.isnan(last[["lo", "hi", "change_lo", "change_hi"]].astype(float)).all()
    mass = total_mass(results)
    assert mass["value"].iloc[-1] == pytest.approx(0.9 + 0.9 + 0.8 + 0.02) and mass[["lo", "hi"]].isna().all(
        axis=None
    )


def test_comparing_tests_nothing(tmp_path):
    a = br.import_scores(table(), tmp_path / "a", metric="prefix_matching")
    b = br.import_scores(table(0.1), tmp_path / "b", metric="prefix_matching")
    found = br.compare(a, b)
    row = found.rows[found.rows["head_a"] == "L1H0"].iloc[0]
    assert (
        row["difference"] == pytest.approx(-0.1) and row["change"] == "not tested" and row["step_a"] == 1000
    )
    assert found.rows[["lo", "hi", "p", "q"]].isna().all(axis=None)
    assert "nothing is tested" in found.sentence and "L1H0" in found.sentence
    with pytest.raises(br.ByroteError, match="by the names of heads, not 'sorted'"):
        br.compare(a, b, heads="sorted")
    other = br.import_scores(table(), tmp_path / "other", metric="loss_drop", unit="nats")
    with pytest.raises(br.ByroteError, match="no metric in common"):
        br.compare(a, other)
    bits = br.import_scores(table(), tmp_path / "bits", metric="loss_drop", unit="bits")
    with pytest.raises(br.ByroteError, match="'nats', that of bits in 'bits'"):
        br.compare(other, bits)


def test_figures_and_pages_of_imports(tmp_path):
    a = br.import_scores(table(), tmp_path / "a", metric="prefix_matching")
    b = br.import_scores(table(0.1), tmp_path / "b", metric="prefix_matching")
    drawn = [
        br.figures.trajectory([a, b], probe="prefix_matching"),
        br.figures.head_grid(a, probe="prefix_matching"),
        br.figures.timeline([a, b]),
        br.figures.differences(br.compare(a, b)),
        br.figures.difference_grid(br.compare(a, b), probe="prefix_matching"),
    ]
    for figure in drawn:
        assert len(figure.table)
        assert "no clear change" not in figure.layout.title.text and "n = 0" not in str(figure.layout.title)
    assert "no samples: no intervals" in str(drawn[0].layout) + str(drawn[1].layout)


def test_a_measured_run_beside_an_imported_one(tmp_path):
    from planted_series import rising, write_results

    folder = write_results(tmp_path / "results", "unique", rising())
    measured = br.Results.open(folder)
    step = measured.steps[-1]
    frame = table().query("step == 0").assign(step=step)
    published = br.import_scores(frame, tmp_path / "published", metric="prefix_matching")
    found = br.compare(measured, published)
    assert set(found.rows["change"]) == {"not tested"} and set(found.rows["probe"]) == {"prefix_matching"}
    with pytest.raises(br.ByroteError, match="holds other results"):
        br.import_scores(table(), folder, metric="prefix_matching")


def test_the_same_table_again_changes_nothing_and_another_is_refused(tmp_path):
    br.import_scores(table(), tmp_path / "r", metric="prefix_matching")
    before = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.parquet")}
    br.import_scores(table(), tmp_path / "r", metric="prefix_matching")
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*.parquet")} == before
    with pytest.raises(br.ByroteError, match="holds other imported scores"):
        br.import_scores(table(0.1), tmp_path / "r", metric="prefix_matching")
    again = br.import_scores(table(0.1), tmp_path / "r", metric="prefix_matching", fresh=True)
    assert again["prefix_matching"].top(1)["value"].tolist() == pytest.approx([0.7])


def test_no_verdict_is_derived_from_numbers_without_samples(tmp_path):
    both = pd.concat([table(metric="prefix_matching"), table(metric="copying_logit")])
    results = br.import_scores(both, tmp_path / "r")
    assert not results.has("induction") and results.has("copying_logit")


def test_whole_model_curves_and_several_metrics(tmp_path):
    curve = pd.DataFrame({"step": STEPS, "value": (4.0, 3.9, 1.2, 1.0), "metric": "repeat_loss/later_blocks"})
    results = br.import_scores(pd.concat([table(metric="my score", unit="bits"), curve]), tmp_path / "r")
    assert results.kinds == {("repeat_loss", "later_blocks"): "model", ("my_score", "score"): "head"}
    assert results.info("my_score").unit == "bits"
    found = results["repeat_loss", "later_blocks"].onset(2.0)
    assert found.table["between_step_hi"].tolist() == [100]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("value", np.nan, "row 3 has the value nan, not a finite number"),
        ("value", np.inf, "row 3 has the value inf"),
        ("value", "high", "row 3 has the value 'high'"),
        ("layer", -1, "row 3 has layer -1, not a whole number from 0"),
        ("head", 1.5, "row 3 has head 1.5"),
        ("step", -10, "row 3 has step -10"),
        ("step", "soon", "row 3 has step 'soon'"),
        ("head", None, "row 3 has no head"),
        ("layer", 100_001, "row 3 has layer 100001"),
        ("layer", 0, "row 3 gives prefix_matching of L0H0 at step 0 again, after row 1"),
        ("value", 1.5, "row 3 has the value 1.5, and prefix_matching lies within 0 to 1"),
    ],
)
def test_the_row_that_cannot_be_used_is_named(tmp_path, column, value, said):
    frame = table().astype({column: object})
    frame.loc[2, column] = value
    assert said in refusal(frame, tmp_path, metric="prefix_matching").message


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (table().drop(columns="value"), "no column 'value' (it has step, layer, head)"),
        (table().drop(columns="head"), "a column 'layer' and none called 'head'"),
        (table(metric="induction"), "verdicts are byrote's own judgement"),
        (table(metric="prefix_matching/nothing"), "has no such metric"),
        (table(metric="prefix_matching", unit="nats"), "byrote's name of a number in 'attention fraction'"),
        (table(metric="repeat_loss"), "byrote's name of a number about the whole model"),
        (table(metric="../up"), "not a name of letters"),
        (table(range="1 to 0"), "row 1 has the range '1 to 0'"),
        (table(layer=99_999, head=[*range(84, 100)]), "places, and at most"),
        (table(unit=["nats", *["bits"] * 15]), "row 2 gives score another unit or range than row 1"),
        (table(run=["a", *["b"] * 15]), "row 2 is of the run 'b', those before it of 'a'"),
        (table().head(0), "the table has no rows"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, frame, said):
    assert said in refusal(frame, tmp_path).message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("step,value\n1\n", "row 2 has 1 cell, the header 2"),
        ('step,value\n1,"2\n', "cannot be read as CSV"),
        ("step,value\n1,0x10\n", "row 2 has the value '0x10'"),
        ("step,value\n\n1,2\n1,3\n", "row 4 gives score of the whole model at step 1 again, after row 3"),
        ("step,value,value\n1,2,3\n", "has the column 'value' twice"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(br.ByroteError) as error:
        br.import_scores(tmp_path / "t.csv", tmp_path / "r")
    assert said in error.value.message


def test_what_is_no_text_and_what_is_no_file(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"step,value\n1,\xff\n")
    with pytest.raises(br.ByroteError, match="not UTF-8 text"):
        br.import_scores(tmp_path / "t.csv", tmp_path / "r")
    with pytest.raises(br.ByroteError, match="cannot be read"):
        br.import_scores(tmp_path / "none.csv", tmp_path / "r")


def test_other_spellings_of_a_table(tmp_path):
    text = "\ufeffStep;Head;Value;se\n0;L1H0;0.25;0.1\n10.0;L1H0;0.5;0.1\n"
    (tmp_path / "t.csv").write_text(text)
    results = br.import_scores(tmp_path / "t.csv", tmp_path / "r", range="[0, 1]", better="higher")
    assert results["score"].array()[:, 1, 0].tolist() == [0.25, 0.5]
    assert results.info("score").range == (0.0, 1.0) and results.meta["notes"] == [
        "the column se was not read"
    ]


def test_one_run_of_several(tmp_path):
    frame = pd.concat([table(run="a"), table(0.1, run="b")])
    assert br.import_scores(frame, tmp_path / "r", run="b")["score"].top(1)[
        "value"
    ].tolist() == pytest.approx([0.7])
    with pytest.raises(br.ByroteError, match="no run 'c'"):
        br.import_scores(frame, tmp_path / "s", run="c")


def test_a_sweep_does_not_write_into_imported_scores(tmp_path):
    from tiny_models import write_lab_series

    from byrote.probes.sweep.folder import open_run_folder

    series = br.open_series(write_lab_series(tmp_path / "tiny", (0, 1)))
    br.import_scores(io_table(), tmp_path / "out/tiny")
    with (
        pytest.raises(br.ByroteError, match="holds scores imported from"),
        open_run_folder(tmp_path / "out", series, fresh=False),
    ):
        pass


def io_table() -> pd.DataFrame:
    return pd.read_csv(io.StringIO("step,value\n1,2\n2,3\n"))
