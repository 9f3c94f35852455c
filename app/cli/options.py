"""Options that several verbs share, each written once, and what their values become: series, results, a device."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from byrote.checkpoints.errors import ByroteError, CheckpointError, NothingFoundError
from byrote.checkpoints.setting import MAX_SEED
from byrote.cli.command import Whole, argument, flag, option, probe_names, separated
from byrote.cli.session import Session
from byrote.probes.wording import counted

if TYPE_CHECKING:
    from byrote.checkpoints.engines import Engine
    from byrote.checkpoints.series import CheckpointSeries
    from byrote.probes.results import Results

PATH = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NATURAL = Whole(min=0, max=MAX_SEED)
POSITIVE = click.IntRange(min=1)

PATHS = argument("PATH...")
PROBES = option(
    "Only this probe; repeat for more, or separate them by commas.",
    "-p",
    multiple=True,
    metavar="NAME",
    callback=separated,
    shell_complete=probe_names,
)


def _say_how(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Notes and errors take the form of the progress."""
    if (session := ctx.find_object(Session)) is not None:
        session.progress = value
    return value


PROGRESS = option(
    "How progress is shown on stderr: auto, rich, plain, jsonl or none. auto is rich on a terminal and plain elsewhere; with jsonl every line is a JSON object, notes and errors included.",
    metavar="MODE",
    type=click.Choice(("auto", "rich", "plain", "jsonl", "none")),
    default="auto",
    callback=_say_how,
    is_eager=True,
)
EXPECT = option("A gate: checks (TOML, see docs/gate.md); exit 1 when one fails.", type=PATH, metavar="FILE")


@dataclass(frozen=True)
class Engines:
    """Where work is done: options of every verb that has much of it."""

    engine: str | None = option(
        "Where work runs: local (processes of this machine, as many as memory and cores allow), ray (a Ray cluster) or slurm (jobs). "
        "All machines must see the same folders. See docs/scale.md.",
        type=click.Choice(("local", "ray", "slurm")),
        metavar="NAME",
    )
    engine_option: tuple[str, ...] = option(
        "An option of Ray or Slurm, such as address=auto or slurm_partition=gpu; repeat for more.",
        multiple=True,
        metavar="NAME=VALUE",
    )

    def chosen(self, jobs: int | None, *, otherwise: int | None) -> Engine:
        """The engine that was named.

        Args:
            jobs: tasks at the same time, where that was given.
            otherwise: processes of this machine where nothing was given at all; None for as many as there is room for.

        Raises:
            ByroteError: an option is not NAME=VALUE.
        """
        from byrote.checkpoints.engines import Engine

        given = {}
        for text in self.engine_option:
            name, equals, value = text.partition("=")
            if not name or not equals:
                raise ByroteError(
                    f"--engine-option {text!r} is not NAME=VALUE",
                    help="write it like --engine-option slurm_partition=gpu",
                )
            given[name] = value
        nothing = self.engine is None and jobs is None
        return Engine(self.engine or "local", otherwise if nothing else jobs, given)


@dataclass
class Opened:
    """Series found, in the order given, and runs inside a folder of runs that could not be opened."""

    series: list[CheckpointSeries] = field(default_factory=list)
    broken: list[tuple[Path, CheckpointError]] = field(default_factory=list)

    def report_broken(self, session: Session) -> None:
        """Print the errors of the runs that could not be opened."""
        for path, error in self.broken:
            session.error(f"{path}: {error.message}", error.help)


@dataclass(frozen=True)
class Opening:
    """How what a person names becomes series: options of every verb that reads checkpoints."""

    base_model: Path | None = option(
        "The model that adapters (PEFT, LoRA) belong to, where their own config does not name it or is wrong.",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="FOLDER",
    )
    step_map: Path | None = option(
        "The steps of folders or files whose names give none (final, epoch_3), by name: JSON or TOML.",
        type=FILE,
        metavar="FILE",
    )
    allow_download: bool = flag(
        "Let a hub repository be listed and its steps downloaded; without it only the local cache is read."
    )
    disk_budget: float | None = option(
        "Disk space that downloaded steps may use; steps already read are removed to make room.",
        type=click.FloatRange(min=0),
        metavar="GB",
    )

    def open(self, paths: Sequence[str]) -> Opened:
        """Open everything named.

        Args:
            paths: series, folders of series, globs, step folders of one series, or hub repositories.

        Raises:
            NothingFoundError: a path is there and holds no checkpoint that can be read.
            CheckpointError: a path that is not there, or a series that is broken.
        """
        from byrote.checkpoints.opening import open_runs

        opened = Opened()
        try:
            opened.series = open_runs(
                list(paths),
                on_broken=lambda path, error: opened.broken.append((path, error)),
                base_model=self.base_model,
                step_map=self.step_map,
                allow_download=self.allow_download,
                disk_budget_bytes=None if self.disk_budget is None else int(self.disk_budget * 1e9),
            )
        except CheckpointError as error:
            if any(_holds_nothing(text) for text in paths):
                raise NothingFoundError(error.message, help=error.help) from None
            raise
        if not opened.series:
            raise opened.broken[0][1]
        return opened

    def open_one(self, path: str) -> CheckpointSeries:
        """Open what must be one series.

        Args:
            path: as for `open`.

        Raises:
            ByroteError: it holds several; else as for `open`.
        """
        series = self.open((path,)).series
        if len(series) != 1:
            raise ByroteError(f"{path} holds {counted(len(series), 'run')}", help="name one series")
        return series[0]


@dataclass(frozen=True)
class Losses:
    """Where a training loss was logged, for series whose checkpoints do not say."""

    losses: Path | None = option(
        "Where training logged its loss: trainer_state.json, a CSV or JSON export of W&B, TensorBoard event files or their folder. "
        "Each checkpoint is given the last loss logged at or before its step.",
        type=PATH,
        metavar="FILE",
    )
    loss_name: str | None = option(
        "Name of the loss in that file, such as train/loss, where it is not a usual one.", metavar="NAME"
    )

    def given_to(self, series: list[CheckpointSeries], session: Session) -> list[CheckpointSeries]:
        """The series with the losses, where they were given.

        Raises:
            ByroteError: several series, whose losses one file does not have; or as `read_losses`.
        """
        if self.losses is None:
            if self.loss_name is not None:
                raise ByroteError("--loss-name needs a file", help="add --losses FILE")
            return series
        if len(series) != 1:
            raise ByroteError(
                f"--losses belongs to one training run, but {len(series)} are given",
                help="run the command once for each series",
            )
        from byrote.checkpoints.training_losses import read_losses, with_losses

        curve = read_losses(self.losses, name=self.loss_name)
        for warning in curve.warnings:
            session.warn(f"warning: {warning}")
        return [with_losses(series[0], curve)]


def open_results(paths: Sequence[str]) -> list[Results]:
    """Open results folders, see `byrote.probes.results.opened.results_in`."""
    from byrote.probes.results.opened import results_in

    return results_in(paths)


def _holds_nothing(text: str) -> bool:
    """Whether a path is a fine folder, or a glob, with no checkpoint to be read: there is nothing to do."""
    path = Path(text)
    if not path.exists():
        return glob.has_magic(text) and not any(Path(found).is_dir() for found in glob.glob(text))  # noqa: PTH207
    if not path.is_dir():
        return False
    from byrote.checkpoints.formats import format_at

    found = format_at(path)
    try:
        return found is None or not found.discover(path).checkpoints
    except CheckpointError:
        return False  # damaged, not empty


def one_step(spec: str, series: CheckpointSeries) -> int:
    """The one step of a series that words such as 600, last or nearest:1k name.

    Raises:
        ByroteError: they name none, or several.
    """
    steps = series.select(spec).steps
    if len(steps) != 1:
        raise ByroteError(f"{spec!r} names {counted(len(steps), 'step')}", help="name one step")
    return steps[0]


def set_threads(threads: int | None) -> None:
    """Give torch this many CPU threads; None leaves it alone, and torch unimported."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
