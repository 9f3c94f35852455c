"""Several series measured with one bridge, or in several processes: what each gets alone, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import write_lab_series

from byrote.checkpoints import open_series
from byrote.checkpoints.engines import Engine
from byrote.checkpoints.errors import ByroteError
from byrote.interp import bridge
from byrote.probes.results.derived import rebuild_observations
from byrote.probes.results.unit_files import WrittenUnits, read_unit, unit_paths
from byrote.probes.sweep import many
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.many import SweepTask, sweep_many
from byrote.probes.sweep.run import sweep

CONFIG = SweepConfig(probes=("previous_token", "prefix_matching", "repeat_loss"), n_seq=8)
STEPS = {"a": (0, 1, 2), "b": (3, 4), "c": (5,)}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("series")
    return [open_series(write_lab_series(folder / name, steps)) for name, steps in STEPS.items()]


@pytest.fixture(scope="module")
def alone(series, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone")
    for one in series:
        sweep(one, CONFIG, out=out)
    return parquet(out)


def parquet(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.parquet"))}


def test_one_bridge_for_several_series(series, alone, tmp_path, monkeypatch):
    many.shared_models.cache_clear()
    built = []
    real = bridge.load_fresh
    monkeypatch.setattr(bridge, "load_fresh", lambda *args, **more: built.append(args) or real(*args, **more))
    tasks = [SweepTask(one, CONFIG, tmp_path) for one in series]
    events: list = []
    done = list(sweep_many(tasks, on_event=lambda place, event: events.append((place, event["step"]))))
    assert [place for place, _ in done] == [0, 1, 2]
    assert [outcome.measured // len(one) for (_, outcome), one in zip(done, series, strict=True)] == [3, 3, 3]
    assert events == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (2, 5)]
    assert len(built) == 2  # the first step, and the second, which proves swapping; no other
    assert parquet(tmp_path) == alone


def test_stopped_and_gone_on_with(series, alone, tmp_path):
    tasks, seen = [SweepTask(one, CONFIG, tmp_path) for one in series], []
    with pytest.raises(KeyboardInterrupt):
        list(
            sweep_many(
                tasks, on_event=lambda place, event: seen.append(place), stopping=lambda: len(seen) == 2
            )
        )
    assert 0 < len(parquet(tmp_path)) < len(alone)
    list(sweep_many(tasks))
    assert parquet(tmp_path) == alone


def test_steps_on_the_hub_are_fetched_by_one_process(series, tmp_path, monkeypatch):
    class Hub:
        def fetch(self, checkpoint):
            raise AssertionError("nothing is fetched")

        def release(self, checkpoint):
            raise AssertionError("nothing was fetched")

    fetched = replace(series[0][0], source=Hub())
    task = SweepTask(replace(series[0], checkpoints=(fetched,)), CONFIG, tmp_path)
    with pytest.raises(ByroteError, match="fetched by one process"):
        list(sweep_many([task, task], engine=Engine(jobs=2)))


def test_units_just_written_are_not_read_again_unless_they_changed(series, tmp_path):
    root = sweep(series[0], CONFIG, out=tmp_path).path
    whole, unit = parquet(root), unit_paths(root)[0]
    written = WrittenUnits()
    for path in unit_paths(root):
        written.add(path, read_unit(path))
    assert written.get(unit).equals(read_unit(unit))
    rebuild_observations(root, written=written)
    assert parquet(root) == whole
    data = unit.read_bytes()
    unit.write_bytes(data)
    assert written.get(unit) is None
    unit.unlink()
    assert written.get(unit) is None


@pytest.mark.processes
def test_several_processes(series, alone, tmp_path):
    tasks = [SweepTask(one, CONFIG, tmp_path) for one in series]
    assert sorted(place for place, _ in sweep_many(tasks, engine=Engine(jobs=2))) == [0, 1, 2]
    assert parquet(tmp_path) == alone


@pytest.mark.processes
def test_an_error_of_one_process_is_that_of_all(series, tmp_path):
    tasks = [SweepTask(one, CONFIG, tmp_path) for one in series]
    with pytest.raises(ByroteError, match="nothing"):
        list(
            sweep_many(
                [*tasks, SweepTask(series[0], SweepConfig(n_seq=8, probes=("nothing",)), tmp_path / "x")],
                engine=Engine(jobs=2),
            )
        )
