"""Links, libraries and the bytes a grid is made of."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from planted_series import flat, rising, write_results, write_step

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.components.base import ABOVE, BELOW, LEVELS, VOID, encode
from byrote.dashboard.components.head_grid import grid_data
from byrote.dashboard.launch import PROGRAM, command, options, results_to_open
from byrote.dashboard.library import look, open_library
from byrote.dashboard.query_params import State, link, read


def test_a_link_reads_back_as_the_state_it_was_made_of(two_runs):
    library = open_library([two_runs])
    state = State(
        "unique", "prefix_matching", "score", 20, "L1H0", base="repeated", pin=("L0H1", "L0H2"), align="tokens",
        show="base", way="q", z=3.5, text=1, q=7, shade="from", sink="without", rule="ICL score", memory="bits", passage=2,
        also=("previous_token",), scale="linear", band="off", damage="repeat_loss/later_blocks",
    )  # fmt: skip
    reading = read(link(state), library)
    assert reading.state == state
    assert reading.complaints == ()


def test_no_link_shows_the_first_event_the_strongest_head_and_the_counterpart_as_baseline(two_runs):
    state = read({}, open_library([two_runs])).state
    assert (state.run, state.base, state.step, state.head) == ("unique", "repeated", 20, "L1H2")
    state = read({"run": "repeated"}, open_library([two_runs])).state
    assert (state.base, state.step) == ("unique", 40)  # nothing happens in it: its last step


def test_a_run_that_is_still_measured_is_read_from_its_units(tmp_path):
    units = rising()
    folder = write_results(tmp_path, "live", {0: units[0]}, rebuild=False)
    (folder / "run.json").unlink()
    before = look([tmp_path])
    run = open_library([tmp_path]).runs["live"]
    assert (run.steps, run.meta["status"]) == ([0], "running")
    write_step(folder, "live", 20, units[20])
    assert look([tmp_path]) != before
    run = open_library([tmp_path]).runs["live"]
    assert run.steps == [0, 20]
    assert run.cube("prefix_matching", "score").strongest(20) == (1, 2)
    assert not (folder / "observations.parquet").exists()  # the dashboard writes nothing into results


def test_what_did_not_change_is_not_read_again(two_runs):
    first, again = open_library([two_runs]), open_library([two_runs])
    assert first.runs["unique"] is again.runs["unique"]


def test_two_runs_of_one_name_are_not_mixed(tmp_path):
    write_results(tmp_path, "twin", rising(), folder="a")
    write_results(tmp_path, "twin", flat(), folder="b")
    library = open_library([tmp_path])
    assert list(library.runs) == ["twin"]
    assert "another run is called twin" in library.broken[0].reason


def test_values_become_bytes_with_marks_for_what_is_no_value():
    codes = encode(np.array([0.0, 0.5, 1.0, -0.1, 1.2, np.nan]), (0.0, 1.0))
    assert codes.tolist() == [0, LEVELS // 2, LEVELS, BELOW, ABOVE, VOID]


def test_the_grid_gets_the_series_and_the_baseline_beside_it(two_runs):
    library = open_library([two_runs])
    run, base = library.runs["unique"], library.runs["repeated"]
    state = read({"run": "unique", "base": "repeated", "step": "20"}, library).state
    data = grid_data(
        run,
        state,
        base=base,
        pairs={s: s for s in run.all_steps if s != 10},
        events=[(20, "onset")],
        difference=True,
    )
    assert [panel["role"] for panel in data["panels"]] == ["run", "base", "difference"]
    codes = np.frombuffer(base64.b64decode(data["panels"][0]["codes"]), dtype="<u2").reshape(4, 2, 3)
    assert codes[2:, 1, 2].tolist() == [0.9 * LEVELS] * 2
    beside = np.frombuffer(base64.b64decode(data["panels"][1]["codes"]), dtype="<u2").reshape(4, 2, 3)
    assert (beside[1] == VOID).all()  # not measured there
    assert data["panels"][1]["at"] == [0, -1, 2, 3]
    assert data["marks"] == [{"index": 2, "kind": "event", "text": "onset"}]
    assert data["selected"] == "L1H2"


def test_the_server_answers_this_machine_alone_and_tells_nobody():
    said = options(port=8600)
    assert (said["server.address"], said["server.port"]) == ("127.0.0.1", 8600)
    assert said["browser.gatherUsageStats"] is False
    assert command()[1:] == ["-P", str(PROGRAM)]


def test_folders_without_results_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(ByroteError, match="not a folder"):
        results_to_open([tmp_path / "no"], here=tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(ByroteError, match="contains no results"):
        results_to_open([tmp_path], here=tmp_path)
    assert results_to_open([], here=tmp_path) == [tmp_path / "results"]
