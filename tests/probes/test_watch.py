"""A folder that is watched while checkpoints are written, changed and removed, against one sweep of the finished folder."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import write_hf_series

from byrote.checkpoints import open_series
from byrote.checkpoints.landing import Landing
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep
from byrote.probes.sweep.watching import Pace, Watch

CONFIG = SweepConfig(probes=("previous_token",), n_seq=8)
PACE = Pace(poll_s=0.02, settle_s=0.05, idle_timeout_s=20, until_step=30)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of a model of one layer, as the Trainer names them."""
    folder = tmp_path_factory.mktemp("made")
    return write_hf_series(
        folder / "run", "gpt2", (10, 20, 30), name="checkpoint-{step}", trainer_state=True, n_layer=1
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Trainer:
    """Copies checkpoints into a folder as training writes them: file by file, each in two parts."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder

    def begin(self, step: int) -> Path:
        """The first file whole, the weights by half."""
        place = self.folder / f"checkpoint-{step}"
        place.mkdir(parents=True)
        shutil.copy(self.source / place.name / "config.json", place)
        weights = (self.source / place.name / "model.safetensors").read_bytes()
        (place / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        return place

    def end(self, step: int, *, like: int | None = None) -> None:
        """All files whole."""
        place = self.folder / f"checkpoint-{step}"
        shutil.copytree(self.source / f"checkpoint-{like or step}", place, dirs_exist_ok=True)


def watching(folder: Path, out: Path, *, pace: Pace = PACE, **given) -> tuple[Watch, list[dict]]:
    events: list[dict] = []
    watch = Watch(lambda: open_series(folder), CONFIG, out, pace, on_event=events.append, **given)
    return watch, events


def until(condition: Callable[[], bool], *, s: float = 30) -> None:
    end = time.monotonic() + s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_folder_that_grows_gives_the_bytes_of_a_sweep_of_the_finished_one(source, tmp_path):
    folder, errors = tmp_path / "run", []
    trainer = Trainer(source, folder)
    watch, events = watching(folder, tmp_path / "watched")
    steps = lambda kind: [e.get("step") for e in events if e["event"] == kind]  # noqa: E731

    def train() -> None:
        try:
            until(lambda: steps("waiting") != [])  # there is no folder yet
            trainer.end(10)
            until(lambda: steps("checkpoint") == [10])
            trainer.begin(20)
            until(lambda: steps("gap") == [20])  # half of a file that has stopped changing cannot be read
            trainer.end(20, like=30)  # other weights under this label, written again later
            until(lambda: steps("checkpoint") == [10, 20])
            trainer.end(20)
            until(lambda: steps("checkpoint") == [10, 20, 20])
            trainer.end(30)
        except BaseException as error:
            errors.append(error)
            trainer.end(30)

    thread = threading.Thread(target=train)
    thread.start()
    outcome = watch.run()
    thread.join()
    assert not errors
    assert outcome is not None and outcome.measured == 0  # all was measured as it landed
    assert steps("checkpoint") == [10, 20, 20, 30]
    sweep(open_series(folder), CONFIG, out=tmp_path / "swept")
    assert files_of(tmp_path / "watched") == files_of(tmp_path / "swept")


def test_what_was_drawn_for_a_part_of_the_series_is_drawn_anew_at_its_end(source, tmp_path):
    """Ids that the last step shows to be never trained are not known before: earlier steps were shown them."""
    folder, trainer = tmp_path / "run", Trainer(source, tmp_path / "run")
    trainer.end(10)
    sweep(open_series(folder), CONFIG, out=tmp_path / "out", unfinished=True, as_drawn=True)
    assert Results.open(tmp_path / "out" / "run").meta["status"] == "running"
    trainer.end(20)
    file = folder / "checkpoint-20" / "model.safetensors"
    weights = load_file(file)
    weights["transformer.wte.weight"][50:] = 0
    save_file(weights, file, metadata={"format": "pt"})
    shutil.copytree(tmp_path / "out", tmp_path / "as drawn")
    outcome = sweep(open_series(folder), CONFIG, out=tmp_path / "as drawn", as_drawn=True)
    assert (outcome.measured, outcome.reused) == (1, 1)  # where steps are gone, all stay as they were shown
    outcome = sweep(open_series(folder), CONFIG, out=tmp_path / "out")  # as after a kill
    assert outcome.results.meta["status"] == "complete"
    assert (outcome.measured, outcome.superseded) == (2, 1)
    sweep(open_series(folder), CONFIG, out=tmp_path / "swept")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "swept")


def test_a_checkpoint_that_is_removed_is_measured_and_stays(source, tmp_path):
    folder, trainer = tmp_path / "run", Trainer(source, tmp_path / "run")
    trainer.end(10), trainer.end(20)
    seen: list[int] = []

    def look_at(results: Results) -> bool:
        if not seen:
            shutil.rmtree(folder / "checkpoint-10")  # as with save_total_limit
            trainer.end(30)
        seen.append(len(results.steps))
        return False

    watch, _ = watching(folder, tmp_path / "out", look_at=look_at)
    outcome = watch.run()
    assert outcome is not None and seen == [2, 3]
    assert outcome.results.steps == [10, 20, 30] and outcome.results.loss.keys() == {10, 20, 30}
    assert outcome.results.meta["series"]["steps"] == [10, 20, 30] and not outcome.gaps


@pytest.mark.parametrize("how", ["idle", "training ended", "ending"])
def test_it_ends(source, tmp_path, how):
    folder = tmp_path / "run"
    Trainer(source, folder).end(10)
    over = {"training ended": {"training_ended": lambda: True}, "ending": {"ending": lambda: True}}.get(
        how, {}
    )
    pace = Pace(poll_s=0.01, settle_s=0.02, idle_timeout_s=0.1 if how == "idle" else None)
    watch, _ = watching(folder, tmp_path / "out", pace=pace, **over)
    outcome = watch.run()
    assert outcome is not None and outcome.results.steps == [10]


def test_a_gate_ends_it_at_once(source, tmp_path):
    folder = tmp_path / "run"
    Trainer(source, folder).end(10)
    watch, _ = watching(folder, tmp_path / "out", look_at=lambda results: True)
    assert watch.run() is None
    assert Results.open(tmp_path / "out" / "run").meta["status"] == "running"


def test_a_checkpoint_lands_when_nothing_of_it_has_changed_for_a_while(source, tmp_path):
    folder, trainer = tmp_path / "run", Trainer(source, tmp_path / "run")
    trainer.end(10)
    landing = Landing(settle_s=5)

    def look(now_s: float) -> tuple[list[int], list[int | None]]:
        landed, gaps = landing.look(open_series(folder), now_s=now_s)
        return [c.step for c in landed], [g.step for g in gaps]

    assert look(0) == ([], []) and look(4.9) == ([], []) and look(5) == ([10], [])
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"more")  # any file of its folder counts
    assert look(6) == ([], []) and look(11) == ([10], [])
    trainer.begin(20)
    assert look(12) == ([10], [])
    assert look(17) == ([10], [20]) and look(30) == ([10], [])  # unreadable: said once, until it changes
    trainer.end(20)
    assert look(31) == ([10], []) and look(36) == ([10, 20], [])
    shutil.rmtree(folder / "checkpoint-20")
    look(37)
    assert landing.gone == {20}  # never measured
