"""Results in a notebook: one metric at a time, printed, ranked, sliced, drawn."""

from __future__ import annotations

import importlib.util
import types

import numpy as np
import pytest
from paper_runs import planted_run, rebuilt

from byrote import interp, probes
from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes.results import Results, Scores


@pytest.fixture(scope="module")
def unique() -> Results:
    return planted_run()


@pytest.fixture(scope="module")
def repeated() -> Results:
    return planted_run("repeated", learns=False, seed=1)


@pytest.fixture(scope="module")
def matching(unique: Results) -> Scores:
    return unique["prefix_matching"]


def test_the_main_metric_is_what_a_name_gives(unique: Results, matching: Scores) -> None:
    assert (matching.metric, matching.unit) == ("score", "attention fraction")
    assert unique["prefix_matching", "score"].rows.equals(matching.rows)
    assert unique["repeat_loss"].metric == "later_blocks"
    with pytest.raises(ByroteError, match="no 'prefix_matchin'") as caught:
        unique["prefix_matchin"]
    assert "prefix_matching" in caught.value.help
    with pytest.raises(ByroteError, match="no metric 'scor'"):
        unique["prefix_matching", "scor"]


def test_top_ranks_by_the_probes_own_direction(unique: Results, matching: Scores) -> None:
    frame = unique.select("prefix_matching", "score", step=unique.steps[-1])
    top = matching.top(3)
    assert list(top.columns) == ["head", "value", "lo", "hi", "chance", "n", "rank"]
    assert top["value"].tolist() == sorted(frame["value"], reverse=True)[:3]
    assert top["head"][0] == "L1H0" and top["rank"].tolist() == [1, 2, 3]
    assert unique["repeat_loss"].top()["head"].tolist() == [""]


def test_steps_and_heads_are_picked_by_name(matching: Scores) -> None:
    assert matching.at(320).steps == [320]
    with pytest.raises(ByroteError, match="step 321 is not in these results") as caught:
        matching.at(321)
    assert "320" in caught.value.help
    for named in ("L1H0", (1, 0), ["L1H0"], [(1, 0)]):
        rows = matching.head(named).rows
        assert set(zip(rows["layer"], rows["head"], strict=True)) == {(1, 0)}
    assert len(matching.head(["L1H0", (0, 1)]).at(320).rows) == 2
    with pytest.raises(ByroteError, match="no head L7H0"):
        matching.head("L7H0")


def test_array_holds_every_value_in_its_place(unique: Results, matching: Scores) -> None:
    array = matching.array()
    model = unique.meta["model"]
    assert array.shape == (len(unique.steps), model["n_layers"], model["n_heads"])
    at = unique.steps.index(320)
    row = unique.select("prefix_matching", "score", step=320).query("layer == 1 and head == 0")
    assert array[at, 1, 0] == row["value"].item()
    assert matching.array("lo")[at, 1, 0] == row["lo"].item()
    doubted = rebuilt(unique, lint={"facts": [], "left_out": {"320": "swapped steps"}})
    holed = doubted["prefix_matching"].array()
    assert np.isnan(holed[at]).all() and np.isfinite(np.delete(holed, at, axis=0)).all()
    with pytest.raises(ByroteError, match="whole model"):
        unique["repeat_loss"].array()


def test_history_holds_every_metric_of_one_head(unique: Results) -> None:
    found = unique.history((1, 0))
    assert set(found) == {name for name, kind in unique.kinds.items() if kind == "head"}
    for (probe, metric), values in found.items():
        rows = unique.rows(probe, metric, head=(1, 0))
        assert list(values) == rows["step"].tolist()
        assert np.array_equal(list(values.values()), rows["value"], equal_nan=True)


def test_it_prints_usefully_and_safely(unique: Results, matching: Scores) -> None:
    assert "prefix_matching of unique (attention fraction)" in repr(matching) and "L1H0" in repr(matching)
    hostile = rebuilt(unique, run="<script>alert(1)</script>")
    for shown in (hostile._repr_html_(), hostile["prefix_matching"]._repr_html_()):
        assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "appears between steps 256 and 320" in unique._repr_html_()


def test_figures_take_scores_as_they_take_results(
    unique: Results, repeated: Results, matching: Scores
) -> None:
    assert (
        figures.head_grid(matching).to_json() == figures.head_grid(unique, probe="prefix_matching").to_json()
    )
    base = figures.trajectory(repeated["prefix_matching"], base=matching)
    same = figures.trajectory([unique, repeated], probe="prefix_matching", base="unique")
    assert base.to_json() == same.to_json()
    with pytest.raises(ByroteError, match="no probe was named"):
        figures.head_grid(unique)
    with pytest.raises(ByroteError, match="one metric of one probe"):
        figures.trajectory([matching, unique["copying_logit"]])


def test_parts_of_a_figure_can_be_switched_off(matching: Scores) -> None:
    names = {t.name for t in figures.trajectory(matching).data}
    bare = {t.name for t in figures.trajectory(matching, visuals={"band": False, "chance": False}).data}
    assert names - bare == {"95% interval", "chance"}
    with pytest.raises(ByroteError, match="no part 'bands'") as caught:
        figures.trajectory(matching, visuals={"bands": False})
    assert "band" in caught.value.help


def test_highlighted_heads_are_framed(matching: Scores) -> None:
    fig = figures.head_grid(matching, highlight=["L1H0", (0, 2)])
    frame = next(t for t in fig.data if t.name == "highlight L0H2")
    assert (min(frame.x), max(frame.x)) == pytest.approx((1.53, 2.47))
    assert (min(frame.y), max(frame.y)) == pytest.approx((-0.47, 0.47))


@pytest.mark.parametrize("package", [probes, interp], ids=lambda package: package.__name__)
def test_public_names_are_not_hidden_by_modules_of_the_same_name(package) -> None:
    for name in package._LAZY:
        assert importlib.util.find_spec(f"{package.__name__}.{name}") is None, name
        assert not isinstance(getattr(package, name), types.ModuleType)
