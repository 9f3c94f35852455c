"""`byrote scan`: what is in the folder, without loading a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from byrote.checkpoints import CheckpointSeries
from byrote.cli import exits
from byrote.cli.command import Verb
from byrote.cli.guard import report
from byrote.cli.options import base_model_option, download_option
from byrote.cli.output import Column, Output, Row, output_options
from byrote.cli.session import Session
from byrote.probes.wording import count, counted, number, size

COLUMNS = (
    Column("run"),
    Column("step", "step", lambda row: count(row["step"]), right=True),
    Column("tokens_seen", "tokens", lambda row: count(row["tokens_seen"]), right=True),
    Column("loss_nats", "loss (nats)", lambda row: number(row["loss_nats"]), right=True),
    Column("format", "format"),
    Column("size_bytes", "size", lambda row: size(row["size_bytes"]), right=True),
    Column("readable", "readable", lambda row: "yes" if row["readable"] else "NO"),
    Column("path"),
    Column("reason", "reason", fold=True),
    Column("help"),
)


@click.command(
    cls=Verb,
    examples=("byrote scan runs/a", "byrote scan runs --json"),
    short_help="List the checkpoints in a folder; no model is loaded.",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@base_model_option
@download_option
@click.pass_obj
@output_options
def scan(
    session: Session, *, paths: tuple[str, ...], base_model: Path | None, allow_download: bool, out: Output
) -> int:
    """List the checkpoints in PATH: step, tokens, loss, format, size, and whether each can be read.

    PATH is one series, a folder of several, a quoted glob, or a Hugging Face repository whose branches are steps. No weights are read and no model is loaded.
    """
    from byrote.cli.paths import open_all

    opened = open_all(paths, base=base_model, allow_download=allow_download)
    if out.machine:
        out.rows(COLUMNS, [row for series in opened.series for row in _rows(series)])
    for series in opened.series:
        if not out.machine:
            out.rows(COLUMNS, _rows(series), title=_title(series))
            session.data("")
        for note in series.notes:
            session.note(f"{series.name}: {note}")
        for gap in series.gaps:
            session.note(f"{series.name}: {gap.path.name}: {gap.reason}; {gap.help}")
    for path, error in opened.broken:
        report(session, f"{path}: {error.message}", error.help)
    return exits.GAPS if opened.broken else exits.DONE


def _title(series: CheckpointSeries) -> str:
    gaps = f", {counted(len(series.gaps), 'gap')}" if series.gaps else ""
    span = f"steps {series.steps[0]:,}-{series.steps[-1]:,}"
    return f"{series.name}: {counted(len(series), 'checkpoint')}, {span}{gaps}"


def _rows(series: CheckpointSeries) -> Iterator[Row]:
    for checkpoint in series:
        yield {
            "run": series.name,
            "step": checkpoint.step,
            "tokens_seen": checkpoint.tokens_seen,
            "loss_nats": checkpoint.loss_nats,
            "format": checkpoint.format,
            "size_bytes": checkpoint.size_bytes if checkpoint.files else None,
            "readable": True,
            "path": str(checkpoint.path),
            "reason": None,
            "help": None,
        }
    for gap in series.gaps:
        yield {
            "run": series.name,
            "step": gap.step,
            "tokens_seen": None,
            "loss_nats": None,
            "format": series.format,
            "size_bytes": None,
            "readable": False,
            "path": str(gap.path),
            "reason": gap.reason,
            "help": gap.help,
        }
