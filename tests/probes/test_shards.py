"""Shards of a sweep write what one process writes, byte for byte, in whatever order and however often they are run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from lookup_models import lookup_state, random_state, write_series
from tiny_models import write_hf_series, write_lab_series

from byrote.checkpoints import atomic, open_series
from byrote.checkpoints.errors import ByroteError, PlaceError
from byrote.interp.bridge import HookedSeries
from byrote.probes import contexts
from byrote.probes.results import run_json as store
from byrote.probes.results.unit_files import unit_paths
from byrote.probes.sweep.config import SweepConfig, installed_versions
from byrote.probes.sweep.folder import open_run_folder
from byrote.probes.sweep.run import sweep
from byrote.probes.sweep.shards import NOTHING, Shard, open_shared_folder

N_STEPS, N_SHARDS = 18, 16
CONFIG = SweepConfig(probes=("previous_token", "ov_copying"), n_seq=8)
FEW = SweepConfig(probes=("previous_token",), n_seq=8)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Of 18 steps; the last but one is half written: its tensors are zeros, and its neighbours' are not."""
    folder = write_lab_series(tmp_path_factory.mktemp("series") / "run", range(N_STEPS), n_layers=1)
    file = folder / f"step_{N_STEPS - 2:08d}" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    file.write_bytes(data)
    return open_series(folder)


@pytest.fixture(scope="module")
def whole(series, tmp_path_factory) -> dict[str, bytes]:
    outcome = sweep(series, CONFIG, out=tmp_path_factory.mktemp("whole"))
    assert [gap["step"] for gap in outcome.gaps] == [N_STEPS - 2]
    return contents(outcome.path)


def contents(root: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    del found[atomic.LOCK]
    return found


def one_bridge():
    """A walker of series for many sweeps of one process, as engines have one."""
    kept = []

    def of(series):
        kept.append(kept[0] if kept else HookedSeries(series))
        return kept[0]

    return of


def status(root: Path) -> str:
    return json.loads((root / "run.json").read_text())["status"]


def test_sixteen_shards_in_any_order_and_twice_over(series, whole, tmp_path):
    models = one_bridge()
    root, order = tmp_path / series.name, random.Random(7)
    for twice in (False, True):
        for k in order.sample(range(1, N_SHARDS + 1), N_SHARDS):
            outcome = sweep(series, CONFIG, out=tmp_path, shard=Shard(k, N_SHARDS), models=models)
            assert outcome.path == root and (outcome.measured == 0) >= twice
        assert contents(root) == whole


def test_a_part_of_the_shards_is_an_interrupted_run_that_one_process_completes(series, whole, tmp_path):
    bad = Shard(N_STEPS - 1, N_STEPS)
    for shard in (bad, Shard(1, 2)):
        sweep(series, CONFIG, out=tmp_path, shard=shard)
        assert status(tmp_path / series.name) == "interrupted"
        assert not (tmp_path / series.name / "observations.parquet").exists()
        assert [gap["step"] for gap in store.read_run_json(tmp_path / series.name)["gaps"]] == [N_STEPS - 2]
    assert len(unit_paths(tmp_path / series.name)) == 2 * (N_STEPS // 2 - 1)
    sweep(series, CONFIG, out=tmp_path)
    assert contents(tmp_path / series.name) == whole


def test_shards_at_once_leave_the_observations_to_the_last(series, whole, tmp_path):
    root = tmp_path / series.name
    seen = []

    def then_another(event):
        if not seen:
            seen.append(sweep(series, CONFIG, out=tmp_path, shard=Shard(2, 2)))
            assert status(root) == "interrupted" and not (root / "observations.parquet").exists()

    sweep(series, CONFIG, out=tmp_path, shard=Shard(1, 2), on_event=then_another)
    assert contents(root) == whole


def test_the_model_of_the_first_step_decides_whichever_shard_comes_first(tmp_path):
    folder = write_hf_series(tmp_path / "run", "gpt2", (0,), n_layer=1)
    write_hf_series(folder, "gpt2", (1, 2), n_layer=2)
    series = open_series(folder)
    whole = sweep(series, FEW, out=tmp_path / "whole")
    assert [gap["step"] for gap in whole.gaps] == [1, 2]
    for k in (2, 3, 1):
        outcome = sweep(series, FEW, out=tmp_path / "out", shard=Shard(k, 3))
        assert outcome.measured == (k == 1) and len(outcome.gaps) == (k != 1)
    assert contents(outcome.path) == contents(whole.path)


def test_shards_show_as_many_windows_of_text_as_the_last_step_needs_and_find_out_once(tmp_path, monkeypatch):
    monkeypatch.setattr(contexts, "HALF_WIDTH_NATS", 0.5)
    ids = np.random.default_rng(0).integers(1, 64, size=(300, 31))
    text = {"held_out": {"tokens": np.pad(ids, ((0, 0), (1, 0)))}}
    last = lookup_state([], copies=True)
    steps = {0: random_state(), 10: random_state(1), 30: last}
    series = open_series(write_series(tmp_path / "run", steps, data=text))
    config = SweepConfig(("icl_score",), n_seq=8)
    whole = sweep(series, config, out=tmp_path / "whole")
    settled = [sweep(series, config, out=tmp_path / "out", shard=Shard(k, 3)).settled for k in (2, 1, 3)]
    assert settled == [whole.settled, None, None] and whole.settled is not None
    assert contents(tmp_path / "out" / "run") == contents(whole.path)


def test_shards_of_another_plan_and_whole_sweeps_are_refused_while_one_is_at_work(series, tmp_path):
    with open_shared_folder(tmp_path, series, CONFIG) as folder:
        with pytest.raises(ByroteError, match="with other probes, steps, settings or versions"):
            sweep(series, FEW, out=tmp_path, shard=Shard(1, 2))
        for fresh in (False, True):
            with (
                pytest.raises(PlaceError, match="another sweep is writing to"),
                open_run_folder(tmp_path, series, fresh=fresh),
            ):
                pass
        with folder.alone():
            assert folder.leave()
    assert [p.name for p in (tmp_path / series.name).iterdir()] == [atomic.LOCK]


def test_a_shard_that_was_killed_holds_nothing_up(series, tmp_path):
    folder = tmp_path / series.name / ".shards"
    folder.mkdir(parents=True)
    (folder / "0123456789abcdef.dead.lock").touch()
    (tmp_path / series.name / ".run.json.1-0.tmp").touch()
    sweep(series[:2], CONFIG, out=tmp_path, shard=Shard(1, 1))
    assert status(tmp_path / series.name) == "complete"
    assert not folder.exists() and not list(folder.parent.rglob("*.tmp"))


def test_shards_are_measured_under_the_same_conditions(series, tmp_path):
    sweep(series, CONFIG, out=tmp_path, shard=Shard(1, 9))
    older = SweepConfig(CONFIG.probes, n_seq=8, versions={**installed_versions(), "torch": "2.5.0"})
    with pytest.raises(ByroteError, match=r"measured with torch .*, here 2\.5\.0"):
        sweep(series, older, out=tmp_path, shard=Shard(2, 9))
    with pytest.raises(ByroteError, match="leave --fresh out"):
        sweep(series, CONFIG, out=tmp_path, shard=Shard(2, 9), fresh=True)


def test_a_shard_is_typed_as_k_of_n(series):
    assert Shard.of("3/16") == Shard(3, 16) and str(Shard(3, 16)) == "3/16"
    for text in ("0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1/10001", "٣/٤"):
        with pytest.raises(ByroteError, match="is not a shard"):
            Shard.of(text)
    shards = [Shard(k, 5).checkpoints(series) for k in range(1, 6)]
    assert sorted(one.step for part in shards for one in part) == list(series.steps)
    assert NOTHING.checkpoints(series) == ()
