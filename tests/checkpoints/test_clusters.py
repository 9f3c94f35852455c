"""Sweeps and grids on a Ray cluster of several nodes and as jobs, on this machine: the bytes that one process writes.

Ray is large and not among what the tests install: `make test-ray` installs it and runs these; elsewhere they are skipped.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from test_engines import KINDS, judge, run
from tiny_models import write_hf_series, write_lab_series

from byrote.checkpoints import atomic, open_series
from byrote.checkpoints.engines import Engine, Needs, run_tasks
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.grid_training import train_grid
from byrote.checkpoints.side_by_side import Lost
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.many import SweepTask, sweep_many, sweep_one
from byrote.probes.sweep.run import sweep
from byrote.probes.sweep.shards import Shard

pytestmark = pytest.mark.processes
CONFIG = SweepConfig(probes=("previous_token", "ov_copying", "repeat_loss"), n_seq=8, threads=1)
GRID = """
recipe = "tiled-small"
seeds = [3, 5]
checkpoints = 3
[settings]
steps = 12
batch = 4
d_model = 8
n_held_out = 8
[settings.source]
d_vocab = 16
n_ctx = 12
block_min = 3
block_max = 4
[arms.unique]
"""


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return open_series(write_lab_series(tmp_path_factory.mktemp("series") / "run", range(12)))


@pytest.fixture(scope="module")
def whole(series, tmp_path_factory) -> dict[str, bytes]:
    return contents(sweep(series, CONFIG, out=tmp_path_factory.mktemp("whole")).path)


def contents(root: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(atomic.LOCK)}


def n_units(whole: dict[str, bytes]) -> int:
    return sum(name.startswith("units/") for name in whole)


def swept(series, out: Path, engine: Engine, on_event=lambda place, event: None):
    ((_, outcome),) = sweep_many([SweepTask(series, CONFIG, out)], engine=engine, on_event=on_event)
    return outcome


# --- processes of this machine --------------------------------------------------------------------------------------


def test_one_series_in_two_processes_of_which_one_is_killed(series, whole, tmp_path):
    heard: list = []

    def on_event(place, event):
        heard.append(event)
        if len(heard) == 3:
            victim = next(p for p in children() if p != os.getpid())
            os.kill(victim, signal.SIGKILL)

    outcome = swept(series, tmp_path, Engine(jobs=2), on_event)
    assert (outcome.gaps, outcome.measured + outcome.reused) == ([], n_units(whole))
    assert [e["event"] for e in heard].count("retried") == 1
    assert contents(outcome.path) == whole


class FullDisk(atomic.FileLayer):
    """A disk with room for a few files more."""

    room = 5

    def create(self, path, data) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().create(path, data)


def on_a_full_disk_once(task: SweepTask, on_event):
    """The first time that the first shard is measured, its disk gets full on the way."""
    mark = task.out / "disk was full"
    if task.shard is None or task.shard.k > 1 or mark.exists():
        return sweep_one(task, on_event)
    mark.touch()
    atomic.layer = FullDisk()
    try:
        return sweep_one(task, on_event)
    finally:
        atomic.layer = atomic.FileLayer()


def test_a_disk_that_is_full_once_costs_a_second_try(series, whole, tmp_path):
    tasks = [SweepTask(series, CONFIG, tmp_path, shard=Shard(k, 2)) for k in (1, 2)]
    heard: list = []
    found = dict(
        run_tasks(
            on_a_full_disk_once,
            tasks,
            engine=Engine(jobs=2),
            needs=Needs(),
            folder=tmp_path,
            hear=lambda place, event: heard.append((place, event["event"], event.get("reason", ""))),
            stopping=lambda: False,
        )
    )
    ((place, _, reason),) = [one for one in heard if one[1] == "retried"]
    assert place == 0 and "cannot write" in reason and "No space left" in reason
    assert not any(isinstance(one, Lost) for one in found.values())
    assert contents(tmp_path / series.name) == whole


def children() -> list[int]:
    """Processes that a pool of this one started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and b"spawn_main" in command:
            found.append(int(folder.name))
    return found


# --- other machines -------------------------------------------------------------------------------------------------------

OTHER_CLASS = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def test_another_class_of_processor_measures_nearly_the_same(tmp_path):
    """Kernels without vector instructions stand for an older machine; docs/scale.md states the tolerance."""
    write_hf_series(tmp_path / "run", "llama", (0, 1), hidden_size=64, intermediate_size=256)
    code = (
        "import sys; from byrote.checkpoints import open_series; from byrote.probes.sweep.run import sweep\n"
        "from byrote.probes.sweep.config import SweepConfig\n"
        "sweep(open_series(sys.argv[1]), SweepConfig(n_seq=8, threads=1), out=sys.argv[2])"
    )
    found = []
    for name, kernels in (("here", {}), ("there", OTHER_CLASS)):
        command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / name)]
        subprocess.run(command, env={**os.environ, **kernels}, check=True)
        found.append(pd.read_parquet(tmp_path / name / "run" / "observations.parquet"))
    here, there = found
    keys = ["step", "probe", "metric", "layer", "head", "valid", "n"]
    pd.testing.assert_frame_equal(here[keys], there[keys])
    assert not here["value"].equals(there["value"])  # they are other kernels
    spectral = (here["probe"] == "ov_copying") & (here["metric"] == "z")
    for column in ("value", "lo", "hi"):
        off = (here[column] - there[column]).abs()
        assert off[~spectral].max() < 1e-4 and off[spectral].max() < 0.5


# --- jobs ---------------------------------------------------------------------------------------------------------------


def test_jobs_of_submitit_on_this_machine(series, whole, tmp_path):
    heard: list = []
    engine = Engine("slurm", jobs=2, options={"cluster": "local"})
    outcome = swept(series, tmp_path, engine, lambda place, event: heard.append(event))
    assert outcome.measured == n_units(whole) and contents(outcome.path) == whole
    assert max(e["done"] for e in heard if e["event"] == "checkpoint") == len(series)
    assert sorted(p.name for p in tmp_path.iterdir()) == [series.name]


def test_bad_luck_of_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # jobs import what they are to do
    heard: list = []
    found = run(Engine("slurm", options={"cluster": "local"}), tmp_path, KINDS, heard=heard)
    judge(found, heard)
    assert len(found) == len(KINDS)


def test_a_grid_is_trained_by_jobs(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    train_grid(tmp_path / "grid.toml", tmp_path / "here", jobs=1)
    train_grid(
        tmp_path / "grid.toml",
        tmp_path / "jobs",
        engine=Engine("slurm", options={"cluster": "local"}),
    )
    assert contents(tmp_path / "jobs") == contents(tmp_path / "here")


def test_there_is_no_slurm_here(series, tmp_path):
    with pytest.raises(ByroteError, match="submitit cannot start jobs"):
        swept(series, tmp_path, Engine("slurm"))
    with pytest.raises(ByroteError, match="submitit cannot start jobs"):
        swept(series, tmp_path, Engine("slurm", options={"cluster": "local", "slurm_partitoin": "gpu"}))


# --- Ray ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A head without room for tasks and two nodes of one core each, as `ray.cluster_utils` simulates them."""
    pytest.importorskip("ray", reason="Ray is not installed: make test-ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield nodes
    nodes.shutdown()


def test_a_ray_cluster_that_loses_a_node_in_the_middle(series, whole, cluster, tmp_path):
    lost, heard = cluster.add_node(num_cpus=1), []
    cluster.add_node(num_cpus=1)
    began = threading.Event()

    def on_event(place, event):
        heard.append(event)
        if event["event"] == "checkpoint" and not began.is_set():
            began.set()
            cluster.remove_node(lost, allow_graceful=False)

    engine = Engine("ray", jobs=6, options={"address": cluster.address, "memory_gb": "0.1"})
    outcome = swept(series, tmp_path, engine, on_event)
    assert outcome.gaps == [] and began.is_set()
    assert "retried" in [event["event"] for event in heard]
    assert contents(outcome.path) == whole


def test_what_no_node_has_room_for_is_refused(series, cluster, tmp_path):
    options = {"address": cluster.address, "memory_gb": "100000"}
    with pytest.raises(ByroteError, match="no machine of the cluster has enough for one task"):
        swept(series, tmp_path, Engine("ray", options=options))
    with pytest.raises(ByroteError, match=r"no option 'adress'.*did you mean 'address'"):
        swept(series, tmp_path, Engine("ray", options={"adress": "auto"}))
