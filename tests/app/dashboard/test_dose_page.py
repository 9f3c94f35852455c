"""The dose page: damage over the dose, and the heads of one seed along it, for the browser to play."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from degrade_runs import write_run
from streamlit_client import heading

from byrote.dashboard.export import notebook_lines, shell_lines
from byrote.dashboard.library import open_library
from byrote.dashboard.page import View
from byrote.dashboard.query_params import damageable, read
from byrote.dashboard.views import PAGES
from byrote.dashboard.views.dose import along, dose_grid_data, heads_frame
from byrote.probes.comparable import measure_name
from byrote.probes.results.run_facts import declare
from byrote.probes.wording import sentence_case

RUN = "rep-p16-s2"


@pytest.fixture(scope="module")
def study(degraded):
    return degraded[0].path.parent


@pytest.fixture(scope="module")
def view(study):
    library = open_library([study])
    return View(
        library,
        read({"run": RUN, "probe": "prefix_matching", "base": "control-4000-s2"}, library),
        {},
        PAGES["dose"],
        "light",
    )


def test_it_draws_the_dose_response_beside_the_grids(open_page, study):
    at = open_page("dose", study, run=RUN, probe="prefix_matching")
    assert not at.exception and not at.error
    assert "is worst at E 62.5" in heading(at)
    assert (
        len(at.get("plotly_chart")) == 3 and len(at.get("bidi_component")) == 2
    )  # doses, sizes, displacement
    (grid,) = [
        json.loads(one.proto.json) for one in at.get("bidi_component") if "address" not in one.proto.json
    ]
    assert [label.split(" · ")[0] for label in grid["labels"]] == ["E 0", "E 3.90625", "E 62.5", "E 250"]


def test_the_grids_along_the_dose_are_those_of_one_seed(view):
    runs = along(view, "pool")
    assert [run.run for _, run in runs] == ["control-4000-s2", "rep-p4-s2", RUN, "rep-p256-s2"]
    data = dose_grid_data(runs, view.state)
    assert (data["index"], data["steps"], data["layers"], data["heads"]) == (2, [0, 1, 2, 3], 2, 3)
    assert data["labels"][2] == f"P 16 · {RUN}"
    frame = heads_frame(runs, view.state)
    assert frame["strongest"].tolist()[:2] == ["L1H2", "L1H2"] and frame["score"].tolist()[
        0
    ] == pytest.approx(1, abs=0.05)
    lost = dict(zip(frame["dose"], frame["score"], strict=True))["P 16"]
    assert np.isclose(lost, 0, atol=0.1)


def test_what_it_offers_to_run_runs(view, byrote):
    (command, _) = shell_lines(view)
    assert byrote(*shlex.split(command)[1:], "--measure", "dose", "--json").exit_code == 0
    scope: dict = {}
    *lines, last = notebook_lines(view)
    exec("\n".join(lines[:-1]), scope)
    assert set(eval(last, scope)["measure"]) >= {"dose", "peak", "band"}
    assert eval(lines[-1], scope).alt.startswith("Held-out loss is worst at E 62.5")


def test_what_damage_is_read_off_can_be_chosen_and_is_part_of_the_link(open_page, study):
    (run, other) = (open_library([study]).runs[name] for name in (RUN, "control-4000-s2"))
    names = [name for name in damageable(run) if name in damageable(other)]
    at = open_page("dose", study, run=RUN, probe="prefix_matching", damage=names[-1])
    assert not at.exception and not at.error
    assert heading(at).startswith(sentence_case(measure_name(*names[-1].split("/"))) + " is worst at ")
    at.selectbox(key="w_damage").set_value(names[0]).run()
    assert at.query_params["damage"] == names[0]
    reading = read({"run": RUN, "damage": "exact_match/loss"}, open_library([study]))
    assert reading.state.damage == "" and "with a better direction" in reading.complaints[0]


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Two arms of the same dose, of which the first has a second dose, and the control; five seeds each."""
    root = tmp_path_factory.mktemp("arms") / "results"
    declared = {}
    for arm, pool in (("control", 0), ("first", 16), ("first", 4), ("second", 16)):
        for seed in range(5):
            name = f"{arm}-{pool}-s{seed}"
            write_run(root, name, pool, 4000, seed)
            declared[name] = {"arm": arm, "parameters": 4000}
    declare(root, declared)
    return root


def opened(root, run):
    library = open_library([root])
    return View(library, read({"run": run, "base": "control-0-s0"}, library), {}, PAGES["dose"], "light")


def test_an_arm_of_several_doses_is_shown_by_itself_where_another_has_the_same(open_page, arms, byrote):
    at = open_page("dose", arms, run="first-16-s0")
    assert not at.exception and "is worst at E 62.5: +1.49 [+1.47, +1.51]" in heading(at)
    (said,) = [one.value for one in at.caption if "first against control" in one.value]
    assert "the same dose" in said and "To see another arm, choose one of its runs" in said
    (command, _) = shell_lines(opened(arms, "first-16-s0"))
    rows = json.loads(byrote(*shlex.split(command)[1:], "--measure", "dose", "--json").stdout)
    assert "second" not in command and [row["dose"] for row in rows] == [62.5, 250.0]


def test_arms_that_are_no_doses_of_one_another_are_held_against_the_control_one_by_one(open_page, arms):
    at = open_page("dose", arms, run="second-16-s0")
    assert not at.exception and not at.error
    assert heading(at).startswith(
        "Held-out loss against control is significantly worse in second (+1.49 [+1.47, +1.51]"
    )
    lines = notebook_lines(opened(arms, "second-16-s0"))
    assert not any("dose_response" in line for line in lines)
