"""Commands that write, small enough to be run again a thousand times, and how their own advice is followed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from forgetful_disk import Tree, put_tree, read_tree
from tiny_models import write_lab_series

from byrote.checkpoints import atomic, open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.sources import SourceConfig
from byrote.checkpoints.lab.trainer import train
from byrote.checkpoints.lint import lint, write_lint
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import SweepOutcome
from byrote.probes.sweep.run import sweep

PROBES = ("prefix_matching", "ov_copying")  # one that needs a forward pass and one that needs the weights
SHAPE = {"d_model": 8, "n_heads": 2, "d_vocab": 12, "d_vocab_out": 12, "n_ctx": 16}
LAB = LabConfig(
    d_model=8,
    n_heads=2,
    d_head=4,
    steps=11,
    every=8,
    batch=4,
    n_held_out=4,
    warmup_steps=1,
    source=SourceConfig(),
    arm=Arm("repeated", 0.5, 4),
)
DATE = "2026-01-01 00:00 UTC"
Run = Callable[..., object]


def series_of(top: Path, name: str = "tiny") -> Path:
    """Two tiny checkpoints below a folder; that folder."""
    write_lab_series(top / "runs" / name, (0, 1), **SHAPE)
    return top


def measured(
    top: Path,
    *,
    seed: int = 0,
    fresh: bool = False,
    attention: bool = False,
    name: str = "tiny",
    out: str = "results",
) -> SweepOutcome:
    """The sweep of `series_of`."""
    config = SweepConfig(PROBES, n_seq=8, seed=seed, save_attention=attention)
    return sweep(open_series(top / "runs" / name), config, out=top / out, fresh=fresh)


def trained(top: Path, *, fresh: bool = False) -> object:
    return train(top / "runs" / "lab", LAB, fresh=fresh)


def linted(top: Path, *, fresh: bool = False) -> object:
    series = open_series(top / "runs" / "tiny")
    if write_lint(series, lint(series)) is None:
        raise ByroteError("the facts are not saved", help="run it again")
    return None


def reported(top: Path, *, fresh: bool = False) -> object:
    from byrote.report.files import build_report

    return build_report([Results.open(top / "results" / "tiny")], out=top / "report", date=DATE, light=True)


@dataclass(frozen=True)
class Command:
    """Something that writes.

    Attributes:
        name: of the check.
        prepare: makes what it needs below a folder.
        run: the command; it takes `fresh`.
    """

    name: str
    prepare: Callable[[Path], object]
    run: Run

    def started(self, top: Path) -> Tree:
        """What is there before it: `top`, made new."""
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir(parents=True)
        self.prepare(top)
        return read_tree(top)

    def finish(self, top: Path, *, most: int = 4) -> list[str]:
        """Run it, and where it refuses, do what it says, until it is done.

        Args:
            top: where.
            most: how often.

        Returns:
            What it said on the way.

        Raises:
            AssertionError: its advice names nothing that a person could do, or leads nowhere.
        """
        said: list[str] = []
        fresh = False
        for _ in range(most):
            try:
                self.run(top, fresh=fresh)
            except ByroteError as error:
                said.append(str(error))
                fresh = self._follow(error, top)
            else:
                return said
        raise AssertionError("its advice led nowhere: " + " | ".join(said))

    def _follow(self, error: ByroteError, top: Path) -> bool:
        """Do what a refusal advises; whether --fresh is part of it."""
        if "--fresh" in error.help:
            return True
        if removed := re.search(r"(?:remove|delete) (\S+)", error.help):
            place = top / removed[1].strip(",;.`'")
            if place.exists() and place.is_relative_to(top):
                shutil.rmtree(place) if place.is_dir() else place.unlink()
                return False
        assert re.search(r"again|the same command|make room", error.help), f"no advice to follow: {error}"
        return False


def earlier_sweep(top: Path) -> None:
    series_of(top)
    measured(top, seed=1)


def earlier_results(top: Path) -> None:
    series_of(top)
    measured(top)


def earlier_training(top: Path) -> None:
    """A training run that stands still half way."""

    class Stopped(Exception):
        pass

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "checkpoint" and event["step"] == 4:
            raise Stopped

    try:
        train(top / "runs" / "lab", LAB, on_event=stop)
    except Stopped:
        return
    raise AssertionError("training was not stopped")


COMMANDS = {
    command.name: command
    for command in (
        Command("sweep", series_of, measured),
        Command("another_sweep", earlier_sweep, measured),
        Command("sweep_afresh", earlier_sweep, lambda top, fresh=False: measured(top, fresh=True)),
        Command("attention", series_of, partial(measured, attention=True)),
        Command("training", lambda top: None, trained),
        Command("training_resumed", earlier_training, trained),
        Command("lint", series_of, linted),
        Command("report", earlier_results, reported),
    )
}


def expected(command: Command, top: Path) -> tuple[Tree, Tree]:
    """What is there before and after a run that nothing disturbs."""
    before = command.started(top)
    assert command.finish(top) == []
    after = read_tree(top)
    put_tree(top, before)
    return before, after


def differences(found: Tree, wanted: Tree) -> list[str]:
    """Paths in which two trees differ, the leftovers of killed processes among them."""
    return sorted(
        f"{path} ({'missing' if path not in found else 'not expected' if path not in wanted else 'differs'})"
        for path in found.keys() | wanted.keys()
        if (path in found) != (path in wanted) or found.get(path) != wanted.get(path)
    )


def temporary(found: Tree) -> list[str]:
    """Leftovers."""
    return [path for path in found if any(atomic.is_leftover(part) for part in Path(path).parts)]
