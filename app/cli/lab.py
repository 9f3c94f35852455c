"""`byrote lab`: small controlled series, trained here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import ARMS, Arm, part_kind
from byrote.checkpoints.lab.config import BLOCKS, NORMS, LabConfig
from byrote.checkpoints.lab.recipes import ABOUT, RECIPES, SIZES
from byrote.checkpoints.lab.sources import SOURCES, Source, SourceConfig, source_kind
from byrote.cli import options
from byrote.cli.command import LazyGroup, argument, flag, option, record, verb
from byrote.cli.lab_grid import plan, status, train_grid
from byrote.cli.output import Column, Output, columns
from byrote.cli.progress import Event, Work, interrupted
from byrote.cli.session import Exit, Session

__all__ = ["lab", "plan", "recipes", "status", "train"]


@click.group(
    cls=LazyGroup,
    verbs={
        "train": "Train one arm of a repetition experiment, or a grid of runs, into a folder.",
        "recipes": "List recipes, sources and arms: purpose, measured results and known pitfalls.",
        "plan": "Estimate the cost of a grid of runs: runs, steps, minutes, bytes.",
        "status": "List which runs of a grid are complete, running or missing.",
    },
    module="byrote.cli.lab",
    examples=(
        "byrote lab train runs/unique",
        "byrote lab train runs/repeated --arm repeated --repeat-frac 0.5",
        "byrote lab train runs/names --recipe names-4-heads",
        "byrote lab train runs/hernandez --grid hernandez",
    ),
)
def lab() -> None:
    """Train small controlled series of checkpoints.

    Minutes on a laptop: the same model on unique data, on data with a repeated share, or on the unique part alone.
    """


def _config(
    base: LabConfig, size: str | None, arm: Arm, source: Source, typed: Mapping[str, Any]
) -> LabConfig:
    """The lab's own record: a recipe's, with the size's values in place of it, and with those that were typed.

    Raises:
        ByroteError: a value out of its range, or values that do not go together.
    """
    changes = {**(SIZES[size] if size else {}), **typed}
    d_model = changes.get("d_model", base.d_model)
    n_heads = changes.get("n_heads", base.n_heads)
    if d_model % n_heads:
        raise ByroteError(
            f"{n_heads} heads do not divide a width of {d_model}",
            help="choose --d-model as a multiple of --heads",
        )
    for name, values in (("normalization_type", NORMS), ("attn_only", BLOCKS)):
        if name in changes:
            changes[name] = values[changes[name]]
    if (d_model, n_heads) != (base.d_model, base.n_heads):
        changes["d_head"] = d_model // n_heads
    return replace(base, source=source, arm=arm, **changes)


def _arm(base: Arm, typed: Mapping[str, Any], words: tuple[str, ...], out: Path) -> Arm:
    """The recipe's arm, or another, with the settings that were typed as NAME=VALUE; runs are named as seen from OUT.

    Raises:
        ByroteError: no such arm, a setting that it does not have, or values that do not go together.
    """
    if not typed and not words:
        return base
    kind = part_kind(typed.get("kind", base.kind))
    settings = kind.parsed(words)
    if kind.by_repeat_frac and not words:
        return Arm.named(**{"kind": kind.name, **typed})
    for name in kind.runs:
        if settings.get(name):
            settings[name] = os.path.relpath(settings[name], out)
    return Arm.from_table({**typed, "kind": kind.name, **settings})


def _source(base: Source, name: str | None, settings: Mapping[str, Any], words: tuple[str, ...]) -> Source:
    """The recipe's source, or another, with the settings that were typed as NAME=VALUE.

    Raises:
        ByroteError: no such source, a setting that it does not have, or a value of another type.
    """
    kind = source_kind(name or base.name)
    own = base.values() if kind is type(base) else {}
    return kind.from_settings({**own, **kind.parsed(words), **settings})


@verb(
    "byrote lab train runs/unique",
    "byrote lab train runs/repeated --arm repeated --repeat-frac 0.5 --pool 64",
    "byrote lab train runs/tiled --recipe tiled-small --size d24 --seed 1",
    "byrote lab train runs/other --recipe names --source-set table=1",
    "byrote lab train runs/mixed --arm synthetic --arm-set generator=runs/unique --arm-set share=0.75",
    "byrote lab train runs/hernandez --grid hernandez",
)
def train(
    session: Session,
    *,
    out: Path = argument("OUT", type=options.PATH),
    recipe: str = option(
        "Preset to start from; other options override it (`byrote lab recipes`).",
        type=click.Choice(tuple(RECIPES)),
        default="default",
    ),
    size: str | None = option(
        "Width and learning rate of the ladder of sizes.", type=click.Choice(tuple(SIZES))
    ),
    arm: Mapping[str, Any] = record(Arm, make=dict, typed=True),
    arm_set: tuple[str, ...] = option(
        "A setting of the arm (`byrote lab recipes`). Repeatable.", metavar="NAME=VALUE", multiple=True
    ),
    config: Mapping[str, Any] = record(LabConfig, make=dict, typed=True),
    source: str | None = option(f"Source of the sequences: {', '.join(SOURCES)}.", metavar="NAME"),
    settings: Mapping[str, Any] = record(SourceConfig, make=dict, typed=True),
    source_set: tuple[str, ...] = option(
        "A setting of the source. Repeatable.", metavar="NAME=VALUE", multiple=True
    ),
    fresh: bool = flag("Delete the existing series and start from step 0."),
    grid: str | None = option(
        "Train every run of a grid into folders below OUT: its file, or the name of one that comes with byrote.",
        metavar="FILE",
    ),
    retrain_stale: bool = flag(
        "Delete and retrain runs of a grid that were made from a run which has been retrained since."
    ),
    jobs: int | None = option(
        "Processes for a grid; one per core by default. Results do not depend on it.",
        type=click.IntRange(min=1),
        metavar="N",
    ),
    engines: options.Engines = record(options.Engines),
    progress: str = options.PROGRESS,
) -> int:
    """Train one arm of a repetition experiment, or a grid of runs, into OUT, writing checkpoints as it goes.

    The same command again resumes from the last written step, and does nothing when the series is complete. Ctrl-C
    stops at the next written step; twice stops at once and loses the steps since the last one.
    """
    if grid is not None:
        return train_grid(
            session,
            out,
            grid,
            progress,
            engine=engines.chosen(jobs, otherwise=None),
            fresh=fresh,
            retrain_stale=retrain_stale,
        )
    if engines.engine is not None or engines.engine_option:
        raise ByroteError("--engine applies only to grids", help="leave it out: one run is one process")
    if retrain_stale:
        raise ByroteError("--retrain-stale applies only to grids", help="pass --fresh to retrain one run")
    from byrote.checkpoints.lab import train as train_series

    base = RECIPES[recipe]
    made_of = _arm(base.arm, arm, arm_set, out)
    lab_config = _config(base, size, made_of, _source(base.source, source, settings, source_set), config)
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
        return interrupted(session, "written steps are saved")
    session.data(str(path))
    session.note(f"next: byrote run {path}")
    return Exit.DONE


_RECIPE_COLUMNS = (
    Column("kind", "kind"),
    Column("name", "name"),
    Column("purpose", "for", fold=True),
    Column("measured", "measured", fold=True),
    Column("trap", "trap", fold=True),
    *columns("settings"),
)


@verb("byrote lab recipes", "byrote lab recipes --json")
def recipes(session: Session, *, out: Output) -> None:
    """List recipes, sources, arms and sizes: what each is for, what was measured with it, and what not to conclude from it.

    A recipe is where `byrote lab train --recipe NAME` starts from; options given with it override it.
    """
    rows = [
        _row("recipe", name, config.definition(), **vars(ABOUT[name])) for name, config in RECIPES.items()
    ]
    for name, source in SOURCES.items():
        trap = f"no exact floor: {source.no_floor}" if source.no_floor else ""
        rows.append(_row("source", name, source.settings(), purpose=source.about, trap=trap))
    for name, part in ARMS.items():
        cited = f" ({part.paper})" if part.paper else ""
        purpose = f"{part.about}{cited}; control: {part.control}"
        rows.append(_row("arm", name, part.settings(), purpose=purpose))
    for name, values in SIZES.items():
        purpose = f"width {values['d_model']}, learning rate {values['lr']:g}"
        rows.append(_row("size", name, values, purpose=purpose))
    out.rows(_RECIPE_COLUMNS, rows)


def _row(kind: str, name: str, settings: Mapping[str, Any], **columns: str) -> dict[str, Any]:
    settings = {key: value for key, value in settings.items() if key not in ("arm", "seed", "schedule")}
    return {
        "kind": kind,
        "name": name,
        "measured": "",
        "trap": "",
        **columns,
        "settings": json.dumps(settings),
    }
