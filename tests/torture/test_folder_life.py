"""Whatever happens to a series and its results, one more run ends in the numbers of a fresh sweep of what is on the disk.

A state machine: sweeps with several settings, sweeps that are killed at a call of the file layer, weights rewritten,
exchanged with their times kept, a clock that goes back, steps added and removed, a series renamed, a bit that flips.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from commands import PROBES, SHAPE
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from looking import rows
from safetensors.torch import save
from tiny_models import lab_state, write_lab_series

from byrote.checkpoints import atomic, open_series
from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

EXAMPLES = 4  # of one case
ACTIONS = 7  # of one example
LONG_AGO_S = 1_000_000_000
PROBE_SETS = (PROBES, ("prefix_matching",), ("prefix_matching", "previous_token"))
STEPS = st.integers(0, 2)


class Killed(BaseException):
    """No error: the process is gone."""


class DyingLayer(atomic.FileLayer):
    """Works until some call; from then on nothing more reaches the disk."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def __getattribute__(self, name: str) -> Any:
        if name in vars(atomic.FileLayer) and not name.startswith("_"):
            self.lives -= 1
            if self.lives < 0:
                raise Killed
        return super().__getattribute__(name)


class FolderLife(RuleBasedStateMachine):
    """A series of at most three steps, and the results of its sweeps."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="byrote-life-"))
        self.name = "tiny"
        write_lab_series(self.series, (0, 1), **SHAPE)
        self.setting = self._config(0, 0)

    @property
    def series(self) -> Path:
        return self.top / "runs" / self.name

    def _config(self, seed: int, probes: int) -> SweepConfig:
        return SweepConfig(PROBE_SETS[probes], n_seq=8, seed=seed)

    def _weights(self, step: int) -> Path:
        return self.series / f"step_{step:08d}" / "model.safetensors"

    def _steps(self) -> list[int]:
        return [one["step"] for one in self._manifest()["checkpoints"]]

    def _manifest(self) -> dict[str, Any]:
        return json.loads((self.series / "manifest.json").read_text())

    def _list(self, steps: list[int]) -> None:
        manifest = self._manifest()
        manifest["checkpoints"] = [
            {"step": s, "folder": f"step_{s:08d}", "tokens_seen": 100 * s, "train_loss_nats": 3.0}
            for s in sorted(steps)
        ]
        (self.series / "manifest.json").write_text(json.dumps(manifest))

    def _sweep(self, out: Path, config: SweepConfig) -> list[str]:
        """Rows of the steps that are there now; a refusal's advice is followed."""
        series = open_series(self.series)
        fresh = False
        for _ in range(4):
            try:
                found = sweep(series, config, out=out, fresh=fresh)
            except ByroteError as error:
                assert error.help
                fresh = "--fresh" in error.help
                continue
            assert found.gaps == []
            measured = set(self._steps())
            return rows(found.path, only=measured, probes=config.probes)
        raise AssertionError("refused, whatever was tried")

    @rule(seed=st.integers(0, 1), probes=st.integers(0, len(PROBE_SETS) - 1))
    def run(self, seed: int, probes: int) -> None:
        self.setting = self._config(seed, probes)
        self._sweep(self.top / "results", self.setting)

    @rule(lives=st.integers(0, 60), seed=st.integers(0, 1), probes=st.integers(0, len(PROBE_SETS) - 1))
    def killed(self, lives: int, seed: int, probes: int) -> None:
        """A sweep that ends at some call of the layer, as if the process were gone."""
        self.setting = self._config(seed, probes)
        before, atomic.layer = atomic.layer, DyingLayer(lives)
        try:
            self._sweep(self.top / "results", self.setting)
        except Killed:
            pass
        finally:
            atomic.layer = before

    @rule(step=STEPS, version=st.integers(1, 3), keep_times=st.booleans())
    def rewrite(self, *, step: int, version: int, keep_times: bool) -> None:
        """Other weights in a file of the same size, perhaps with the old times, as `cp -p` and `rsync -t` do it."""
        file = self._weights(step)
        if file.exists():
            times = file.stat()
            file.write_bytes(save(lab_state(100 * version + step, **SHAPE)))
            if keep_times:
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    @rule(which=st.sampled_from(("runs", "results")))
    def clock_back(self, which: str) -> None:
        """Every file is of long ago."""
        for path in (self.top / which).rglob("*"):
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))

    @rule(step=STEPS)
    def add(self, step: int) -> None:
        if step not in self._steps():
            self._weights(step).parent.mkdir()
            self._weights(step).write_bytes(save(lab_state(step, **SHAPE)))
            self._list([*self._steps(), step])

    @precondition(lambda self: len(self._steps()) > 1)
    @rule(which=st.integers(0, 2))
    def remove(self, which: int) -> None:
        gone = self._steps()[which % len(self._steps())]
        shutil.rmtree(self._weights(gone).parent)
        self._list([step for step in self._steps() if step != gone])

    @rule(name=st.sampled_from(("tiny", "other")))
    def rename(self, name: str) -> None:
        """The series has another name; its results, if there are any, keep theirs."""
        if name != self.name:
            before, self.name = self.series, name
            before.rename(self.series)

    @rule(file=st.integers(0, 20), at=st.integers(0, 10_000), bit=st.integers(0, 7))
    def flip(self, file: int, at: int, bit: int) -> None:
        """One bit of the results is another."""
        files = sorted(p for p in (self.top / "results").rglob("*") if p.is_file() and p.name != atomic.LOCK)
        if files:
            data = bytearray(files[file % len(files)].read_bytes())
            if data:
                data[at % len(data)] ^= 1 << bit
                files[file % len(files)].write_bytes(data)

    @invariant()
    def can_be_read_or_is_refused(self) -> None:
        root = self.top / "results" / self.name
        if root.is_dir():
            try:
                assert Results.open(root, write=False).frame is not None
            except ByroteError as error:
                assert error.message

    def teardown(self) -> None:
        """The invariant of all: one more run, and the numbers are those of a fresh sweep."""
        try:
            again = self._sweep(self.top / "results", self.setting)
            fresh = self._sweep(self.top / "fresh", self.setting)
            assert again == fresh, "other numbers than those of a fresh sweep"
            assert atomic.leftovers(self.top) == []
        finally:
            shutil.rmtree(self.top)


def lives(*, shrink: bool) -> settings:
    """Bounded; only a case that is run by itself is made smaller, which takes minutes."""
    return settings(
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        max_examples=EXAMPLES,
        stateful_step_count=ACTIONS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


@pytest.mark.torture(weight=4)
def test_folder_life(cases):
    for case, rng in cases.drawn():
        with cases.case(case, "the life of a folder"):
            machine = seeded(rng.getrandbits(32))(FolderLife)
            run_state_machine_as_test(machine, settings=lives(shrink=cases.only is not None))
    assert cases.problems == []
