"""The overview's timeline and what it says is missing; the results folders of the Runs page, digested and put away."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from planted_series import STEPS, damage, head_metric, model_metric, rising, with_gap, write_results
from streamlit.testing.v1 import AppTest

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard import jobs, trash
from byrote.dashboard.jobs import Job
from byrote.dashboard.library import _ANSWERS, PATHS_VARIABLE, open_library, run_folders
from byrote.dashboard.query_params import read
from byrote.dashboard.tasks import Task
from byrote.dashboard.views import overview
from byrote.dashboard.views.overview import runs_frame
from byrote.probes.figures import timeline
from byrote.probes.figures.axis import StepAxis
from byrote.probes.registry import resolve
from byrote.probes.results import Results
from byrote.probes.trajectory import event_head, events
from byrote.probes.trajectory.verdict import milestones
from byrote.probes.verify import digest

SHOWN = {"run": "repeated", "base": "unique", "probe": "prefix_matching", "step": 40}


def chart(at, name: str) -> dict:
    (found,) = [c for c in at.get("plotly_chart") if c.proto.id.endswith(f"figure_{name}")]
    return json.loads(found.proto.spec)


def said(at) -> str:
    kinds = ("title", "markdown", "caption", "error", "code")
    return "\n".join(str(e.value) for kind in kinds for e in getattr(at, kind)).replace("\\", "")


def with_customdata(spec: dict, name: str) -> list:
    (trace,) = [t for t in spec["data"] if t["name"].startswith(name)]
    return trace["customdata"]


def test_strips_scale_and_band_are_part_of_the_link(open_page, full_runs):
    spec = chart(open_page("overview", full_runs, **SHOWN), "timeline")
    assert spec["layout"]["xaxis"]["type"] == "log"
    assert [t["name"] for t in spec["data"]].count("95% interval") == 2
    at = open_page("overview", full_runs, **SHOWN, also="previous_token", scale="linear", band="off")
    assert not at.exception
    spec = chart(at, "timeline")
    assert spec["layout"]["xaxis"]["type"] == "linear"
    assert "95% interval" not in [t["name"] for t in spec["data"]]
    assert [t["yaxis"] for t in spec["data"] if t["name"].startswith("repeated ")] == ["y", "y2"]
    headings = [a["text"] for a in spec["layout"]["annotations"]]
    assert {"Prefix matching, attention fraction", "Previous token, attention fraction"} <= set(headings)
    assert (at.multiselect(key="w_also").value, at.session_state["w_scale"]) == (["previous_token"], "linear")
    at.multiselect(key="w_also").set_value(["previous_token", "repeat_loss"]).run()
    at.toggle(key="w_band").set_value(True).run()
    state = at.session_state["byrote_state"]
    assert (state.also, state.band, state.scale) == (("previous_token", "repeat_loss"), "on", "linear")
    assert at.query_params["also"] == "previous_token,repeat_loss"
    at.button(key="reproduce").click().run()
    assert not at.exception
    line = "figures.trajectory([base, run], probe='previous_token', metric='score', base='unique')"
    assert line in said(at)


def test_a_link_to_strips_that_are_not_there_says_so(open_page, two_runs):
    at = open_page(
        "overview", two_runs, run="unique", also="nope,prefix_matching,induction", scale="moon", band="x"
    )
    assert not at.exception
    told = said(at)
    assert "also=nope is not a probe with one line to draw in unique" in told
    assert "scale=moon is not one of log, linear" in told
    assert "band=x is not one of on, off" in told
    assert at.session_state["byrote_state"].also == ("induction",)  # the probe itself is drawn anyway


def clicked(selection: dict) -> None:
    import streamlit as st

    from byrote.dashboard import page
    from byrote.dashboard.views import overview

    page.look_around({}, overview.PAGE)
    st.session_state["figure_timeline"] = {"selection": selection}
    overview.to_clicked_step()


@pytest.mark.parametrize(
    ("points", "step"),
    [
        ([{"x": 1.3, "y": 0.5, "customdata": 20}], 20),
        ([{"x": 3.16, "y": 0.5, "customdata": [0]}], 0),  # step 0 stands elsewhere on a log axis
        ([], 40),  # the same point again lets go of it
        ([{"x": 20, "y": 0.5}], 40),
    ],
)
def test_a_click_goes_to_the_step_the_point_says_it_is_of(two_runs, monkeypatch, points, step):
    monkeypatch.setenv(PATHS_VARIABLE, str(two_runs))
    at = AppTest.from_function(clicked, kwargs={"selection": {"points": points}})
    for name, value in {"run": "unique", "step": "40", "band": "off"}.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    assert at.session_state["byrote_state"].step == step
    assert at.query_params["step"] == str(step)
    assert at.query_params["band"] == "off"


def test_every_point_carries_its_step_and_the_step_looked_at_has_a_rule(open_page, two_runs):
    spec = chart(open_page("overview", two_runs, run="unique", base="", step=20), "timeline")
    assert with_customdata(spec, "unique L1H2") == list(STEPS)
    (rule,) = [t for t in spec["data"] if t["name"] == "step 20"]
    assert rule["x"] == [20, 20]
    (line,) = [t for t in spec["data"] if t["name"] == "unique L1H2"]
    assert line["x"][1:] == [10, 20, 40] and 0 < line["x"][0] < 10
    assert line["unselected"] == {"marker": {"opacity": 1}}


def test_a_probe_measured_at_fewer_steps_stands_where_the_others_do(tmp_path):
    units = rising()
    units[10] = units[10][1:]  # without prefix matching: its own axis would begin at 20
    write_results(tmp_path, "holes", units)
    run = open_library([tmp_path]).runs["holes"]
    pairs = [("prefix_matching", "score"), ("previous_token", "score")]
    fig = timeline(run, pairs, events=())
    first, second = (t for t in fig.data if t.mode == "lines+markers")
    assert (list(first.customdata), list(second.customdata)) == ([0, 20, 40], [0, 10, 20, 40])
    assert first.x[0] == second.x[0] == StepAxis.over(run.steps).place(0)
    linear = timeline(run, pairs, events=(), log=False)
    assert list(next(t for t in linear.data if t.mode == "lines+markers").x) == [0, 20, 40]


def test_milestones_are_told_once_each_with_the_steps_they_lie_between(open_page, full_runs):
    spec = chart(open_page("overview", full_runs, **SHOWN), "timeline")
    words = [a["text"] for a in spec["layout"]["annotations"]]
    # L0H1 looks back more than its null from the first step on, and has half of its rise at step 20, where the head that needs
    # it appears; of the baseline only its induction heads are shown
    assert "previous token L0H1: by 0" in words
    assert "induction L1H2: 10–20" in words
    assert "unique: induction 0–10" in words
    assert len([w for w in words if "–" in w]) == 2
    assert with_customdata(spec, "appeared: previous token") == [0]


def test_a_head_that_is_there_from_the_start_is_told_so(two_runs):
    run = open_library([two_runs]).runs["unique"]
    assert [(one.what, one.head, one.when) for one in milestones(run)] == [
        ("previous token", "L0H1", "by 0"),
        ("induction", "L1H2", "10–20"),
    ]


def test_milestones_agree_with_the_events_of_the_command_line(full_runs):
    for run in open_library([full_runs]).runs.values():
        table = events(Results.open(run.path))
        rows = table[(table["event"] == "above_null") & (table["probe"] == "previous_token")]
        (mine,) = [one for one in milestones(run) if one.what == "previous token"]
        (row,) = [one._asdict() for one in rows.itertuples(index=False) if event_head(one) == mine.head]
        assert pd.isna(row["step_lo"]) and mine.bracket == (None, row["step_hi"])


def test_what_is_missing_has_its_reason_and_the_command_that_measures_it(tmp_path):
    units = with_gap(rising(), 10)
    units[40] = units[40][1:]
    gap = {"step": 30, "path": "step_30", "reason": "the file is truncated", "help": "copy it again"}
    folder = write_results(
        tmp_path / "my results", "holes", units, gaps=[gap],
        series={"path": "runs/it's here", "steps": [0, 10, 20, 30, 40, 80], "loss_nats": {}},
        provenance={"seed": 3, "dtype": "bfloat16", "device": "cpu"}, stimuli=[{"kind": "repeated_random", "id": "x", "n": 16}],
    )  # fmt: skip
    found = overview.missing(open_library([folder]).runs["holes"])
    as_measured = [
        "--dtype",
        "bfloat16",
        "--seed",
        "3",
        "--sequences",
        "16",
        "-o",
        str(tmp_path / "my results"),
    ]
    start = ["byrote", "run", "runs/it's here"]
    told = {one.what: one for one in found}
    assert told["Step 80"].why == "not measured"
    assert (told["Step 30"].why, told["Step 30"].help) == ("the file is truncated", "copy it again")
    assert told["Prefix matching, step 10"].why == "not measured: attention is not causal"
    assert told["Prefix matching, step 10"].command == ""  # asked again it says the same
    not_run = shlex.split(told["Prefix matching, step 40"].command)
    assert not_run == [*start, "-p", "prefix_matching", *as_measured]
    never = shlex.split(found[-1].command)
    here = {
        "prefix_matching",
        "prefix_aggregates",
        "previous_token",
        "induction",
        "composition",
        "repeat_loss",
    }
    wanted = [w for info in resolve(None) if info.name not in here for w in ("-p", info.name)]
    assert never == [*start, *wanted, *as_measured]
    assert "ICL score" in found[-1].what


def test_a_reason_that_asks_for_a_file_becomes_a_command_with_its_place(tmp_path):
    from byrote.probes.registry import lookup
    from byrote.probes.results.schema import not_measured

    why = "no training members for this series: add --members FILE"
    units = {s: [*ms, *(not_measured(lookup(p), m, why) for p, m in (("mem_gap", "gap"), ("extraction", "rate")))]
             for s, ms in rising().items()}  # fmt: skip
    write_results(tmp_path, "bare", units)
    run = open_library([tmp_path]).runs["bare"]
    (story,) = [one for one in overview.missing(run) if "Memory gap" in one.what]
    assert story.what == "Memory gap, extraction, every step"
    assert story.command.split()[3:9] == ["-p", "mem_gap", "-p", "extraction", "--members", "FILE"]


def test_the_page_tells_what_is_missing_and_says_when_nothing_is(open_page, two_runs, monkeypatch):
    at = open_page("overview", two_runs, run="repeated")
    (box,) = [e for e in at.expander if "missing" in e.label]
    assert box.label == "What is missing: 2 things" and not box.code  # drawn when it is opened
    at.session_state["missing"] = True
    at.run()
    (box,) = [e for e in at.expander if "missing" in e.label]
    assert "Prefix matching, step 10: not measured: attention is not causal" in said(at).replace("**", "")
    assert any(code.value.startswith("byrote run runs/repeated -p ") for code in box.code)
    monkeypatch.setattr(overview, "resolve", lambda names: ())
    at = open_page("overview", two_runs / "unique")
    _ANSWERS.clear()
    at.run()
    assert "Nothing is missing" in said(at)
    _ANSWERS.clear()


def test_the_table_of_runs_names_the_strongest_head_at_the_end(two_runs):
    from byrote.dashboard.page import View
    from byrote.dashboard.views import PAGES

    library = open_library([two_runs])
    reading = read({"run": "unique"}, library)
    frame = runs_frame(View(library, reading, {}, PAGES["overview"], "light")).set_index("run")
    assert frame.loc["unique", "strongest, prefix matching, last step"] == "L1H2 0.90 [0.88, 0.92]"
    assert frame.loc["repeated", "strongest, prefix matching, last step"].startswith("L1H2 0.06 ")


def test_the_digest_is_of_the_units_alone_and_survives_copying(two_runs, tmp_path):
    copy = Path(shutil.copytree(two_runs / "unique", tmp_path / "copy"))
    mine = digest(copy)
    assert mine == digest(two_runs / "unique") != digest(two_runs / "repeated")
    (copy / "observations.parquet").unlink()
    assert digest(copy) == mine
    unit = next(copy.glob("units/step_00000020/*.parquet"))
    unit.rename(unit.with_name("other.00000000.parquet"))
    assert digest(copy) != mine
    unit.with_name("other.00000000.parquet").rename(unit)
    unit.write_bytes(b"short")
    assert digest(copy) != mine


def test_the_table_of_results_shows_the_digest(open_page, two_runs):
    at = open_page("runs", two_runs)
    frame = at.dataframe[0].value.set_index("run")
    assert frame.loc["unique", "digest"] == digest(two_runs / "unique")[:12]


@pytest.fixture
def three(tmp_path) -> Path:
    root = tmp_path / "results"
    for name in ("one", "two", "-three"):
        write_results(root, name, rising())
    return root


def test_removing_asks_again_moves_the_folder_and_says_how_to_bring_it_back(open_page, three):
    before = {p.name: p.read_bytes() for p in (three / "one").rglob("*") if p.is_file()}
    at = open_page("runs", three, run="one", base="two")
    at.button(key="folder_remove").click().run()
    assert (three / "one").is_dir()
    at.button(key="folder_remove_no").click().run()
    assert not [b for b in at.button if b.key == "folder_remove_yes"]
    at.button(key="folder_remove").click().run()
    at.button(key="folder_remove_yes").click().run()
    assert not at.exception
    assert not (three / "one").exists()
    (moved,) = (three / ".removed").iterdir()
    assert moved.name.startswith("one-2")
    assert f"Moved to {moved}" in said(at)
    assert [p.name for p in run_folders([three])] == ["-three", "two"]
    assert at.session_state["byrote_state"].run in ("two", "-three")
    assert "is not among the runs" not in said(at)  # a removed run is no bad link
    (command,) = [c.value for c in at.code if c.value.startswith("mv ")]
    assert command in said(at.run())  # until it is heeded
    subprocess.run(shlex.split(command), check=True)
    assert "mv -- " not in said(at.run())
    after = {p.name: p.read_bytes() for p in (three / "one").rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before


def test_two_removed_in_one_second_do_not_meet(three, monkeypatch):
    monkeypatch.setattr(trash.time, "strftime", lambda _: "20300101-000000")
    first = trash.remove(three / "one", [three])
    write_results(three, "one", rising())
    second = trash.remove(three / "one", [three])
    assert (first.name, second.name) == ("one-20300101-000000", "one-20300101-000000-2")
    assert trash.remove(three / "-three", [three]).is_dir()


def test_nothing_is_removed_while_a_sweep_writes_there(open_page, three, monkeypatch):
    with (three / "one" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        at = open_page("runs", three, run="one")
        at.button(key="folder_remove").click().run()
        at.button(key="folder_remove_yes").click().run()
        assert "a sweep is writing to one" in said(at)
        at.button(key="folder_verify").click().run()
        assert "a sweep is writing to one" in said(at)
    assert (three / "one").is_dir()
    running = Job(three, Task("run", ("runs",), {"out": str(three)}), 0.0, "running")
    monkeypatch.setattr(jobs, "all_jobs", lambda root, most=30: [running])
    with pytest.raises(ByroteError, match="a job is running on two"):
        trash.remove(three / "two", [three])
    other = Job(three, Task("run", ("elsewhere/three",), {"out": str(three)}), 0.0, "running")
    monkeypatch.setattr(jobs, "all_jobs", lambda root, most=30: [other])
    assert trash.remove(three / "two", [three]).is_dir()


def test_nothing_is_removed_while_shards_write_there(three):
    (three / "one" / ".shards").mkdir()
    with (three / "one" / ".shards" / "plan.token.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ByroteError, match="a sweep is writing to one"):
            trash.remove(three / "one", [three])
    assert trash.remove(three / "one", [three]).is_dir()


def test_only_results_among_the_opened_folders_are_removed(three, tmp_path):
    outside = write_results(tmp_path / "outside", "mine", rising())
    for folder in (outside, three, three / "one" / "units", three / ".." / "outside" / "mine", Path("/")):
        with pytest.raises(ByroteError, match="not a results folder among those that were opened"):
            trash.remove(folder, [three])
    (three / "linked").symlink_to(outside)
    with pytest.raises(ByroteError, match="is a link"):
        trash.remove(three / "linked", [three])
    assert outside.is_dir()


def test_the_page_verifies_a_folder_and_says_what_it_looked_at(open_page, two_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # run.json names runs/unique, which may be there after a demo
    root = Path(shutil.copytree(two_runs, tmp_path / "results"))
    at = open_page("runs", root, run="unique")
    at.button(key="folder_verify").click().run()
    assert not at.exception
    assert "No problems found in unique" in said(at)
    assert "Checked: run.json; 4 units of 4 steps; " in said(at)
    next(root.glob("unique/units/step_00000020/*.parquet")).write_bytes(b"PAR1 no more")
    at.selectbox(key="folder_chosen").set_value(root / "unique").run()
    assert "No problems found" not in said(at)  # what was said of the folder as it was is no longer said
    at.button(key="folder_verify").click().run()
    assert "units are damaged" in said(at)


def test_a_folder_that_cannot_be_read_can_be_verified_and_removed(open_page, with_broken, tmp_path):
    root = Path(shutil.copytree(with_broken, tmp_path / "results"))
    at = open_page("runs", root, run="unique")
    torn = root / "torn"
    at.selectbox(key="folder_chosen").set_value(torn).run()
    at.button(key="folder_verify").click().run()
    assert "run.json cannot be read" in said(at)
    at.button(key="folder_remove").click().run()
    at.button(key="folder_remove_yes").click().run()
    assert not torn.exists()
    assert "torn" not in at.selectbox(key="folder_chosen").options


def test_where_nothing_can_be_read_a_folder_can_still_be_put_away(open_page, tmp_path):
    for root in ("a", "b"):
        damage(write_results(tmp_path / root, "torn", rising()))
    at = open_page("runs", tmp_path / "a", tmp_path / "b")
    assert at.selectbox(key="folder_chosen").options == [
        f"torn, cannot be read: {tmp_path / root / 'torn'}" for root in ("a", "b")
    ]
    at.selectbox(key="folder_chosen").set_value(tmp_path / "b" / "torn").run()
    at.button(key="folder_remove").click().run()
    at.button(key="folder_remove_yes").click().run()
    assert not at.exception
    assert (tmp_path / "a" / "torn").is_dir() and not (tmp_path / "b" / "torn").exists()
    assert "Moved to" in said(at)


def test_model_probes_are_strips_too(tmp_path):
    units = {s: [*ms, model_metric("icl_score", "score", 0.1 * s), head_metric("sink", [[0.1] * 3] * 2)]
             for s, ms in rising().items()}  # fmt: skip
    write_results(tmp_path, "icl", units)
    library = open_library([tmp_path])
    state = read({"run": "icl", "also": "icl_score,sink,repeat_loss,composition"}, library).state
    assert state.also == ("icl_score", "sink", "repeat_loss")  # pairs of heads have no single line
