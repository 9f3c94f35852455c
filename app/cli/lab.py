"""`byrote lab`: small controlled series, trained here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import ARMS, DEFAULT_POOL, DEFAULT_REPEAT_FRAC
from byrote.cli import options
from byrote.cli.command import LazyGroup, argument, flag, option, record, verb
from byrote.cli.progress import Event, Work, interrupted
from byrote.cli.session import Exit, Session

if TYPE_CHECKING:
    from byrote.checkpoints.lab import LabConfig


@click.group(
    cls=LazyGroup,
    verbs={"train": "Train one arm of a repetition experiment into a folder."},
    module="byrote.cli.lab",
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
    """Options of `byrote lab train`."""

    out: Path = argument("OUT", type=options.PATH)
    arm: str = option(
        " ".join(f"{name}: {kind.about}." for name, kind in ARMS.items()),
        type=click.Choice(tuple(ARMS)),
        default="unique",
    )
    repeat_frac: float | None = option(
        f"Repeated share of each batch; {DEFAULT_REPEAT_FRAC} for an arm with repeats.",
        type=float,
        metavar="X",
    )
    pool: int | None = option(
        f"Sequences that are repeated; {DEFAULT_POOL} for an arm with repeats.", type=int, metavar="N"
    )
    steps: int = option("Optimiser steps.", metavar="N", default=2400)
    batch: int = option("Sequences per step.", metavar="N", default=64)
    lr: float = option("Peak learning rate.", metavar="X", default=3e-3)
    seed: int = option("Of weights, data and pool.", metavar="N", default=0)
    layers: int = option("Attention layers.", metavar="N", default=2)
    heads: int = option("Heads per layer.", metavar="N", type=options.POSITIVE, default=4)
    d_model: int = option("Width of the residual stream.", metavar="N", default=64)
    norm: str = option("LayerNorm or none.", type=click.Choice(("none", "ln")), default="none")
    bigram_frac: float = option(
        "Share of first-block tokens that follow a fixed bigram table.", metavar="X", default=0.0
    )
    every: int = option("Steps between checkpoints, after early ones.", metavar="N", default=100)
    threads: int = option("CPU threads.", metavar="N", default=1)
    device: str = option("Where to train.", type=click.Choice(("cpu", "cuda")), default="cpu")
    fresh: bool = flag("Delete the series that is there and start from step 0.")
    progress: str = options.PROGRESS

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
        frac, pool = (DEFAULT_REPEAT_FRAC, DEFAULT_POOL) if ARMS[self.arm].splits else (0.0, 0)
        arm = Arm(
            self.arm,
            repeat_frac=frac if self.repeat_frac is None else self.repeat_frac,
            pool_size=pool if self.pool is None else self.pool,
        )
        return LabConfig(
            arm=arm,
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            seed=self.seed,
            every=self.every,
            threads=self.threads,
            device=self.device,
            d_model=self.d_model,
            n_layers=self.layers,
            n_heads=self.heads,
            d_head=self.d_model // self.heads,
            normalization_type="LN" if self.norm == "ln" else None,
            source=SourceConfig(bigram_frac=self.bigram_frac),
        )


@verb(
    "byrote lab train runs/unique",
    "byrote lab train runs/repeated --arm repeated --repeat-frac 0.5 --pool 64",
)
def train(session: Session, *, settings: TrainOptions = record(TrainOptions)) -> int:
    """Train one arm of a repetition experiment into OUT, writing checkpoints as it goes.

    The same command again goes on from the last written step, and does nothing when the series is complete. Ctrl-C
    stops at the next written step; twice stops at once and loses the steps since the last one.
    """
    from byrote.checkpoints.lab import train as train_series

    config = settings.config()
    work = Work(settings.progress, session, settings.out.name, promise="stopping at the next written step")

    def on_event(event: Event) -> None:
        work.event(event, last=event.get("step") == event.get("total"))
        if event["event"] == "done" and event["already_complete"]:
            session.note(f"already complete: {event['steps']:,} steps")

    try:
        with work:
            path = train_series(settings.out, config, fresh=settings.fresh, on_event=on_event)
    except KeyboardInterrupt:
        return interrupted(session, "written steps are kept")
    session.data(str(path))
    session.note(f"next: byrote run {path}")
    return Exit.DONE
