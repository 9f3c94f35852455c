"""What is worked out once per run, and how a large run is read."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted_series import rising, write_results, write_step

from byrote.dashboard import figure_cache
from byrote.dashboard.library import open_library, run_cache
from byrote.probes.figures import Look
from byrote.probes.results import Results


@pytest.fixture
def counted():
    """A kept function that counts its calls."""
    calls: list[tuple] = []

    @run_cache(2)
    def answer(run: Results, base: Results | None, word: str) -> tuple:
        calls.append((run.run, base and base.run, word))
        if word == "bad":
            raise ValueError(word)
        return (run.run, word)

    return answer, calls


def test_an_answer_is_worked_out_once_and_the_oldest_is_let_go(two_runs, counted):
    answer, calls = counted
    library = open_library([two_runs])
    run, base = library.runs["unique"], library.runs["repeated"]
    assert answer(run, base, "a") is answer(run, base, "a")
    answer(run, None, "a")
    answer(base, None, "a")
    assert len(calls) == 3
    answer(run, None, "b")  # a third answer of this run: that for the baseline goes
    answer(run, base, "a")
    assert len(calls) == 5
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            answer(run, base, "bad")
    assert len(calls) == 7


def test_answers_go_with_the_run_and_know_a_baseline_that_changed(tmp_path, counted):
    answer, calls = counted
    units = rising()
    write_results(tmp_path, "run", units)
    folder = write_results(tmp_path, "base", {0: units[0]}, rebuild=False)
    library = open_library([tmp_path])
    run, base = library.runs["run"], library.runs["base"]
    answer(run, base, "a")
    gone = weakref.ref(base)
    write_step(folder, "base", 20, units[20])
    del base, library
    library = open_library([tmp_path])
    gc.collect()
    assert gone() is None  # neither the library nor the answers hold on to what was read before
    answer(run, library.runs["base"], "a")
    assert len(calls) == 2


def test_a_table_in_parts_with_words_of_their_own_is_read_as_one(tmp_path):
    folder = write_results(tmp_path, "parts", rising())
    file = folder / "observations.parquet"
    whole = open_library([tmp_path]).runs["parts"]
    pq.write_table(pq.read_table(file), file, row_group_size=7)
    parts = open_library([tmp_path]).runs["parts"]
    assert parts is not whole
    assert parts.kinds == whole.kinds
    assert parts.n_rows == whole.n_rows
    for name in ("value", "lo", "hi", "chance", "n"):
        mine, theirs = (getattr(run.cube("prefix_matching", "score"), name) for run in (parts, whole))
        np.testing.assert_array_equal(mine, theirs)


def test_a_figure_is_made_once_for_each_look(two_runs):
    run = open_library([two_runs]).runs["unique"]
    before = figure_cache.covered(run).to_json()
    dark = figure_cache.covered(run, look=Look("dark", "half"))
    assert figure_cache.covered(run, look=Look("dark", "half")) is dark
    assert dark.layout.paper_bgcolor == "rgba(0,0,0,0)"  # the page's own ground
    assert dark.data[0].texttemplate is None  # no text, so none is laid out
    assert figure_cache.covered(run).to_json() == before


def test_a_damaged_table_is_read_from_its_units(tmp_path):
    folder = write_results(tmp_path, "torn", rising())
    whole = open_library([tmp_path]).runs["torn"].n_rows
    file = folder / "observations.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)  # the end, which tells what the file holds, stays
    file.write_bytes(content)
    run = open_library([tmp_path]).runs["torn"]
    assert run.n_rows == whole
    assert run.cube("prefix_matching").strongest(20) == (1, 2)
