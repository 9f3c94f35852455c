"""`byrote reproduce`: from nothing to verdicts, resumed where it was stopped, and judged again without its runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from byrote.checkpoints.lab.run_grid import grid_from, read_grid, shipped_grids
from byrote.cli.main import cli
from byrote.probes.claims import pipeline
from byrote.probes.claims.catalogue import CLAIMS, GRIDS
from byrote.probes.claims.gather import series_rows
from byrote.probes.claims.pipeline import measured_steps, reproduce, table_file
from byrote.probes.claims.record import Grid
from byrote.probes.claims.runs_table import read_runs
from byrote.probes.results import Results

TINY = """
recipe = "tiled-small"
seeds = 5
checkpoints = 3

[settings]
steps = 12
batch = 4
n_held_out = 16

[sizes.d8]
d_model = 8

[arms.none]
kind = "unique"

[arms.P2]
kind = "repeated"
repeat_frac = 0.5
pool_size = 2
control = "none"
"""


def byrote(*words: object):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Grid:
    """A grid of two arms of one seed, trained in a moment, known by its name."""
    (tmp_path / "tiny.toml").write_text(TINY)
    grid = Grid(
        "tiny",
        "nothing much",
        file=str(tmp_path / "tiny.toml"),
        sizes=("d8",),
        probes=("prefix_aggregates",),
        seeds=1,
    )
    monkeypatch.setitem(GRIDS, "tiny", grid)
    return grid


def claim(grid: Grid):
    known = CLAIMS["hernandez-double-descent"]
    control, arm = grid.places("none", "P2")
    final = lambda runs: pipeline_difference(runs, control, arm)  # noqa: E731
    return replace(known, grids=(grid.name,), final=final, exchange=(control, arm))


def pipeline_difference(runs, control, arm):
    from byrote.probes.claims.seed_effects import difference

    return difference(runs, control, arm, "prefix_matching")


def test_claims_are_listed_and_an_unknown_name_is_refused():
    listed = json.loads(byrote("reproduce", "--list", "--json").stdout)
    assert [row["name"] for row in listed] == list(CLAIMS)
    assert byrote("reproduce").exit_code == 2
    refused = byrote("reproduce", "hernandes")
    assert refused.exit_code == 2 and "hernandez" in refused.stderr


def test_a_page_with_its_data_is_written_and_nothing_is_computed_twice(tmp_path, monkeypatch):
    grid = GRIDS["linear-duplicates"]
    monkeypatch.setitem(GRIDS, grid.name, replace(grid, seeds=5))
    done = byrote("reproduce", "linear-duplicates", "-o", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "reproduced" and row["lo"] < row["value"] < row["hi"] and row["seeds"] == 5
    kept = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert kept["claims"][0]["final"]["values"] and kept["made"]["command"].startswith(
        "byrote reproduce linear-duplicates"
    )
    page = (tmp_path / "out" / "claims.html").read_text()
    assert "<svg" in page and "<script" not in page and CLAIMS["linear-duplicates"].statement in page
    assert (tmp_path / "out" / "figures" / "claim-linear-duplicates.svg").read_text().startswith("<svg")
    assert len(read_runs(tmp_path / "out" / "runs.parquet")) == 5 * 11

    def computed(seed: int):
        raise AssertionError("its table is there")

    monkeypatch.setitem(GRIDS, grid.name, replace(grid, seeds=5, rows=computed))
    again = byrote("reproduce", "linear-duplicates", "-o", tmp_path / "out", "--json")
    assert again.exit_code == 0 and json.loads(again.stdout) == [row]


def test_a_plan_makes_nothing(tmp_path):
    done = byrote("reproduce", "hernandez", "--plan", "--json", "-o", tmp_path / "out")
    planned = {row["grid"]: row for row in json.loads(done.stdout)}
    assert planned["hernandez"]["runs"] == 55 and planned["hernandez"]["state"] == "to be made"
    assert not (tmp_path / "out").exists()


def test_what_is_trained_and_measured_is_in_the_table(tmp_path, tiny):
    found = reproduce([claim(tiny)], tmp_path / "out", jobs=1)
    (place,) = (path for path in (tmp_path / "out").glob("tiny-*") if path.is_dir())
    logged = list(series_rows(place / "P2" / "d8" / "seed0", grid="tiny", arm="P2", size="d8"))
    rows = found.table[found.table["arm"] == "P2"].set_index("step")
    manifest = json.loads((place / "P2" / "d8" / "seed0" / "manifest.json").read_text())
    for entry, row in zip(manifest["checkpoints"], logged, strict=True):
        assert row["test_loss"] == entry["test_loss_nats"] == rows.loc[entry["step"], "test_loss"]
        assert row["copy_part_loss"] == entry["mechanism_loss_nats"]["copy"]
    assert rows["pool"].unique() == [2] and rows["epochs"].unique() == [12 * 2 / 2]
    results = Results.open(place / "results" / "P2-d8-seed0")
    value = results.select("prefix_aggregates", "max", step=12)["value"].item()
    assert rows.loc[12, "prefix_matching"] == value and rows["prefix_matching"].notna().sum() == 1
    assert found.judgements[0].word == "undecided" and found.judgements[0].verdict.seeds == 1


def test_stopped_anywhere_it_ends_in_the_same_table(tmp_path, tiny):
    whole = reproduce([claim(tiny)], tmp_path / "whole", jobs=1).table
    stopped = [_stopped(tiny, tmp_path / "cut", after=after) for after in (1, 4, 7)]
    assert any(stopped)
    found = reproduce([claim(tiny)], tmp_path / "cut", jobs=1)
    cut = found.table
    assert found.seconds == 0, "this call made a part of it"
    pd.testing.assert_frame_equal(cut, whole)


def _stopped(grid: Grid, out: Path, *, after: int) -> bool:
    """Whether reproducing into a folder was stopped after so many events."""
    seen: list[object] = []
    try:
        reproduce([claim(grid)], out, jobs=1, on_event=seen.append, stopping=lambda: len(seen) >= after)
    except KeyboardInterrupt:
        return True
    return False


def test_another_definition_is_another_table(tmp_path, tiny):
    seeds = range(5)
    files = {
        table_file(one, tmp_path, chosen)
        for one, chosen in (
            (tiny, seeds),
            (tiny, range(5, 10)),
            (replace(tiny, probes=("previous_token",)), seeds),
            (replace(tiny, measured=2), seeds),
        )
    }
    assert len(files) == 4


def test_steps_that_are_measured_end_with_the_last():
    (run, *_) = grid_from({"recipe": "tiled-small", "checkpoints": 20, "arms": {"unique": {}}}).plan().runs
    steps = run.config.schedule
    assert measured_steps(Grid("g", "", measured=1, probes=("sink",)), run) == (steps[-1],)
    assert measured_steps(Grid("g", "", measured=10**6, probes=("sink",)), run) == steps
    some = measured_steps(Grid("g", "", measured=7, probes=("sink",)), run)
    assert len(some) == 7 and some[-1] == steps[-1] and set(some) <= set(steps)
    assert measured_steps(Grid("g", "", measured=7), run) == ()


def test_every_grid_is_one_of_the_lab_with_the_places_of_its_claims():
    for grid in GRIDS.values():
        if grid.rows is not None:
            continue
        assert grid.file in shipped_grids()
        declared = read_grid(Path(pipeline.grid_file(grid.file)))
        arms = {arm.name for arm in declared.arms}
        for one in CLAIMS.values():
            places = [*(one.picture.places if one.picture else ()), *one.exchange]
            for place in (place for place in places if place.grid == grid.name):
                arm = (
                    place.arm.partition(" ")[0] if grid.members else place.arm
                )  # members of an arm: "ARM x16"
                assert arm in arms and place.size in declared.sizes, (one.name, place)


def test_a_plan_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from byrote.probes.claims.catalogue import chosen; "
        "from byrote.probes.claims.pipeline import plan_of; plan_of(chosen([]), Path('nowhere')); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
