"""`byrote lab`: small controlled series, trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.config import NORMS, LabConfig, SourceConfig
from byrote.cli import options
from byrote.cli.command import LazyGroup, argument, flag, record, verb
from byrote.cli.progress import Event, Work, interrupted
from byrote.cli.session import Exit, Session


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


def _config(arm: Mapping[str, Any], source: SourceConfig, typed: Mapping[str, Any]) -> LabConfig:
    """The lab's own record of what was typed.

    Raises:
        ByroteError: a value out of its range, or values that do not go together.
    """
    d_model, n_heads = typed["d_model"], typed["n_heads"]
    if d_model % n_heads:
        raise ByroteError(
            f"{n_heads} heads do not divide a width of {d_model}",
            help="choose --d-model as a multiple of --heads",
        )
    derived = {"d_head": d_model // n_heads, "normalization_type": NORMS[typed["normalization_type"]]}
    return LabConfig(arm=Arm.named(**arm), source=source, **{**typed, **derived})


@verb(
    "byrote lab train runs/unique",
    "byrote lab train runs/repeated --arm repeated --repeat-frac 0.5 --pool 64",
)
def train(
    session: Session,
    *,
    out: Path = argument("OUT", type=options.PATH),
    arm: Mapping[str, Any] = record(Arm, make=dict),
    config: Mapping[str, Any] = record(LabConfig, make=dict),
    source: SourceConfig = record(SourceConfig),
    fresh: bool = flag("Delete the series that is there and start from step 0."),
    progress: str = options.PROGRESS,
) -> int:
    """Train one arm of a repetition experiment into OUT, writing checkpoints as it goes.

    The same command again goes on from the last written step, and does nothing when the series is complete. Ctrl-C
    stops at the next written step; twice stops at once and loses the steps since the last one.
    """
    from byrote.checkpoints.lab import train as train_series

    lab_config = _config(arm, source, config)
    work = Work(progress, session, out.name, promise="stopping at the next written step")

    def on_event(event: Event) -> None:
        work.event(event, last=event.get("step") == event.get("total"))
        if event["event"] == "unverified":
            session.note(f"{out.name}: {event['reason']}")
        if event["event"] == "done" and event["already_complete"]:
            session.note(f"already complete: {event['steps']:,} steps")

    try:
        with work:
            path = train_series(out, lab_config, fresh=fresh, on_event=on_event)
    except KeyboardInterrupt:
        return interrupted(session, "written steps are kept")
    session.data(str(path))
    session.note(f"next: byrote run {path}")
    return Exit.DONE
