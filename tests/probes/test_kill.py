"""A sweep killed at any moment, as often as you like, ends with the very bytes of one that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tiny_models import BASIC_PROBES

from byrote.checkpoints import open_series
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

pytestmark = pytest.mark.processes
N_CHECKPOINTS, N_KILLS = 12, 6
CONFIG = SweepConfig(BASIC_PROBES, n_seq=4)
N_UNITS = 5 * N_CHECKPOINTS
PATIENCE_S = 60
PRELOADED = [
    "byrote.probes.sweep.run",
    "byrote.probes.sweep.measure",
    "byrote.interp.bridge",
    "byrote.interp.builders.native",
    "transformer_lens.model_bridge.sources.native.model",
    "scipy.stats",
    *(info.module for info in CONFIG.infos),
]


@pytest.fixture(scope="module")
def processes():
    """Real processes, forked from one that has imported everything: a sweep in each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start(processes, series, out: Path) -> BaseProcess:
    process = processes.Process(target=sweep, args=(series, CONFIG), kwargs={"out": out}, daemon=True)
    process.start()
    return process


def wait_for(condition, process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline, "the sweep made no progress"
        time.sleep(0.002)


def units(root: Path) -> list[Path]:
    return [p for p in root.glob("units/step_*/*.parquet") if not p.name.startswith(".")]


def test_killed_and_resumed_equals_uninterrupted(lab_series, tmp_path, processes):
    series = open_series(lab_series(N_CHECKPOINTS, d_model=8, d_head=4, n_heads=2))
    whole = sweep(series, CONFIG, out=tmp_path / "whole")
    assert (whole.measured, whole.gaps) == (N_UNITS, [])

    root, moments = tmp_path / "killed" / series.name, random.Random(20220521)
    kept = [0]
    for _ in range(N_KILLS):
        process = start(processes, series, root.parent)
        more = moments.randint(1, 8)
        wait_for(lambda n=kept[-1] + more: len(units(root)) >= n, process)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE_S)
        assert process.exitcode == -signal.SIGKILL
        kept.append(len(units(root)))
    assert all(a < b for a, b in pairwise(kept))  # every life added something
    assert kept[-1] < N_UNITS
    (root / ".observations.parquet.1.tmp").write_bytes(b"half a file, as a kill during writing leaves it")

    rest = sweep(series, CONFIG, out=root.parent)
    assert (rest.measured, rest.superseded, rest.gaps) == (N_UNITS - kept[-1], 0, [])
    ours, theirs = root, whole.path
    assert (ours / "observations.parquet").read_bytes() == (theirs / "observations.parquet").read_bytes()
    assert [p.relative_to(ours) for p in sorted(units(ours))] == [
        p.relative_to(theirs) for p in sorted(units(theirs))
    ]
    assert all((theirs / p.relative_to(ours)).read_bytes() == p.read_bytes() for p in units(ours))
    assert list(ours.rglob("*.tmp")) == []
    said = [json.loads((folder / "run.json").read_text()) for folder in (ours, theirs)]
    assert said[0] == said[1]


def test_a_killed_sweep_frees_the_folder(lab_series, tmp_path, processes):
    series = open_series(lab_series(N_CHECKPOINTS, d_model=8, d_head=4, n_heads=2))
    process = start(processes, series, tmp_path / "results")
    wait_for(lambda: units(tmp_path / "results" / series.name), process)
    with pytest.raises(Exception, match="another sweep is writing to"):
        sweep(series, CONFIG, out=tmp_path / "results")
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE_S)
    assert sweep(series[:1], CONFIG, out=tmp_path / "results").gaps == []
