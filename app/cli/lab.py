"""`byrote lab`: small controlled series, trained here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli import exits
from byrote.cli.command import LazyGroup, Verb
from byrote.cli.interrupts import Interrupts
from byrote.cli.progress import Progress, make_progress, progress_option
from byrote.cli.session import Session

if TYPE_CHECKING:
    from byrote.checkpoints.lab import LabConfig

VERBS = {"train": ("byrote.cli.lab", "Train one arm of a repetition experiment into a folder.")}
_REPEAT_FRAC, _POOL = 0.5, 64  # of an arm with repeats, where not given


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    examples=(
        "byrote lab train runs/unique",
        "byrote lab train runs/repeated --arm repeated --repeat-frac 0.5",
    ),
)
def lab() -> None:
    """Train small controlled series of checkpoints.

    Minutes on a laptop: the same model on unique data, on data with a repeated share, or on the unique part alone.
    """


@dataclass(frozen=True)
class TrainOptions:
    """Options of `byrote lab train`, as parsed."""

    out: Path
    arm: str
    repeat_frac: float | None
    pool: int | None
    steps: int
    batch: int
    lr: float
    seed: int
    layers: int
    heads: int
    d_model: int
    norm: str
    bigram_frac: float
    every: int
    threads: int
    device: str
    fresh: bool
    progress: str

    def config(self) -> LabConfig:
        """The lab's own record.

        Raises:
            ByroteError: a value out of its range, or values that do not go together.
        """
        from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig

        if self.d_model % self.heads:
            raise ByroteError(
                f"{self.heads} heads do not divide a width of {self.d_model}",
                help="choose --d-model as a multiple of --heads",
            )
        repeats = self.arm != "unique"
        return LabConfig(
            n_layers=self.layers,
            d_model=self.d_model,
            n_heads=self.heads,
            d_head=self.d_model // self.heads,
            normalization_type="LN" if self.norm == "ln" else None,
            source=SourceConfig(bigram_frac=self.bigram_frac),
            arm=Arm(
                self.arm,
                repeat_frac=_or(self.repeat_frac, _REPEAT_FRAC if repeats else 0.0),
                pool_size=_or(self.pool, _POOL if repeats else 0),
            ),
            seed=self.seed,
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            every=self.every,
            threads=self.threads,
            device=self.device,
        )


@click.command(
    cls=Verb,
    examples=(
        "byrote lab train runs/unique",
        "byrote lab train runs/repeated --arm repeated --repeat-frac 0.5 --pool 64",
    ),
    short_help="Train one arm of a repetition experiment into a folder.",
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--arm",
    type=click.Choice(("unique", "repeated", "control")),
    default="unique",
    show_default=True,
    help="unique: every sequence new. repeated: a share of each batch comes from a small pool. "
    "control: the unique part of the repeated arm's batches, alone.",
)
@click.option(
    "--repeat-frac",
    type=float,
    metavar="X",
    help="Repeated share of each batch; 0.5 for an arm with repeats.",
)
@click.option(
    "--pool", type=int, metavar="N", help="Sequences that are repeated; 64 for an arm with repeats."
)
@click.option("--steps", type=int, metavar="N", default=2400, show_default=True, help="Optimiser steps.")
@click.option("--batch", type=int, metavar="N", default=64, show_default=True, help="Sequences per step.")
@click.option("--lr", type=float, metavar="X", default=3e-3, show_default=True, help="Peak learning rate.")
@click.option(
    "--seed", type=int, metavar="N", default=0, show_default=True, help="Of weights, data and pool."
)
@click.option("--layers", type=int, metavar="N", default=2, show_default=True, help="Attention layers.")
@click.option(
    "--heads", metavar="N", type=click.IntRange(min=1), default=4, show_default=True, help="Heads per layer."
)
@click.option(
    "--d-model", type=int, metavar="N", default=64, show_default=True, help="Width of the residual stream."
)
@click.option(
    "--norm", type=click.Choice(("none", "ln")), default="none", show_default=True, help="LayerNorm or none."
)
@click.option(
    "--bigram-frac",
    type=float,
    metavar="X",
    default=0.0,
    show_default=True,
    help="Share of first-block tokens that follow a fixed bigram table.",
)
@click.option(
    "--every",
    type=int,
    metavar="N",
    default=100,
    show_default=True,
    help="Steps between checkpoints, after early ones.",
)
@click.option("--threads", type=int, metavar="N", default=1, show_default=True, help="CPU threads.")
@click.option(
    "--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True, help="Where to train."
)
@click.option("--fresh", is_flag=True, help="Delete the series that is there and start from step 0.")
@progress_option
@click.pass_obj
def train(session: Session, /, **options: Any) -> int:
    """Train one arm of a repetition experiment into OUT, writing checkpoints as it goes.

    The same command again goes on from the last written step, and does nothing when the series is complete. Ctrl-C
    stops at the next written step; twice stops at once and loses the steps since the last one.
    """
    from byrote.checkpoints.lab import train as train_series

    asked = TrainOptions(**options)
    config = asked.config()
    progress = make_progress(asked.progress, session, label=asked.out.name)
    stop = Interrupts(lambda: progress.note("stopping at the next written step; Ctrl-C again stops at once"))
    try:
        with stop:
            path = train_series(
                asked.out, config, fresh=asked.fresh, on_event=_listener(session, progress, stop)
            )
    except KeyboardInterrupt:
        progress.close()
        session.warn("interrupted: written steps are kept")
        session.warn(f"resume: {session.command(without=frozenset({'--fresh'}))}")
        return exits.INTERRUPTED
    finally:
        progress.close()
    session.data(str(path))
    session.note(f"next: byrote run {path}")
    return exits.DONE


def _listener(session: Session, progress: Progress, stop: Interrupts) -> Any:
    def on_event(event: dict[str, Any]) -> None:
        progress.event(event)
        if event["event"] == "checkpoint" and event["step"] < event["total"]:
            stop.check()
        if event["event"] == "done" and event["already_complete"]:
            session.note(f"already complete: {event['steps']:,} steps")

    return on_event


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given
