"""A trainer that writes badly while sweeps read: no crash, and no number that belongs to other weights.

It overwrites files where they lie, in pieces, preallocates them with zeros, truncates, deletes, and copies with old times.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from commands import PROBES, SHAPE
from looking import rows
from safetensors.torch import save
from tiny_models import lab_state, write_lab_series

from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

N_STEPS, VERSIONS, LIFE_S = 4, 3, 2.0
CONFIG = SweepConfig(PROBES, n_seq=8)


def badly(folder: Path, versions: dict[int, list[bytes]], number: int, stop: Any) -> None:
    """Write until it is stopped; then leave every file whole, or gone."""
    rng = random.Random(number)
    while not stop.is_set():
        step = rng.choice(list(versions))
        file = folder / f"step_{step:08d}" / "model.safetensors"
        rng.choice((in_place, in_pieces, preallocated, truncated, deleted, old_times))(
            file, rng.choice(versions[step]), rng
        )
        time.sleep(rng.choice((0, 0.001, 0.01, 0.05)))
    for step, found in versions.items():
        file = folder / f"step_{step:08d}" / "model.safetensors"
        whole = file.exists() and file.read_bytes() in found
        if not whole:
            file.write_bytes(found[0])


def in_place(file: Path, data: bytes, rng: random.Random) -> None:
    file.write_bytes(data)


def in_pieces(file: Path, data: bytes, rng: random.Random) -> None:
    with file.open("wb") as out:
        for start in range(0, len(data), 4096):
            out.write(data[start : start + 4096])
            out.flush()
            time.sleep(rng.random() / 500)


def preallocated(file: Path, data: bytes, rng: random.Random) -> None:
    with file.open("wb") as out:
        out.write(data[:2000])
        out.truncate(len(data))
        out.flush()
        time.sleep(rng.random() / 50)
        out.write(data[2000:])


def truncated(file: Path, data: bytes, rng: random.Random) -> None:
    file.write_bytes(data[: rng.randrange(len(data))])


def deleted(file: Path, data: bytes, rng: random.Random) -> None:
    file.unlink(missing_ok=True)


def old_times(file: Path, data: bytes, rng: random.Random) -> None:
    """As `cp -p` of another file of the same size."""
    times = file.stat() if file.exists() else None
    file.write_bytes(data)
    if times:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.torture(weight=2)
def test_live_trainer(cases, tmp_path):
    processes = multiprocessing.get_context("forkserver")
    versions = {s: [save(lab_state(100 * v + s, **SHAPE)) for v in range(VERSIONS)] for s in range(N_STEPS)}
    for case, rng in cases.drawn():
        top = tmp_path / str(case)
        folder = write_lab_series(top / "runs" / "live", range(N_STEPS), **SHAPE)
        stop = processes.Event()
        trainer = processes.Process(
            target=badly, args=(folder, versions, rng.getrandbits(32), stop), daemon=True
        )
        trainer.start()
        with cases.case(case):
            watched(folder, top / "results")
        stop.set()
        trainer.join(30)
        with cases.case(case, "when the trainer had ended"):
            again = sweep(open_series(folder), CONFIG, out=top / "results")
            fresh = sweep(open_series(folder), CONFIG, out=top / "fresh")
            assert (again.gaps, fresh.gaps) == ([], [])
            assert rows(again.path) == rows(fresh.path), "numbers of other weights"
        shutil.rmtree(top)


def watched(folder: Path, out: Path) -> None:
    """Sweep after sweep while the trainer writes; refusals and gaps are answers."""
    until = time.monotonic() + LIFE_S
    while time.monotonic() < until:
        try:
            found = sweep(open_series(folder), CONFIG, out=out)
            assert all(gap["reason"] for gap in found.gaps)
        except ByroteError as error:
            assert error.message
