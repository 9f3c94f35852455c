"""`byrote scan`: what is in the folder, without loading a model."""

from __future__ import annotations

from collections.abc import Iterator

from byrote.checkpoints.series import CheckpointSeries
from byrote.cli import options
from byrote.cli.command import record, verb
from byrote.cli.output import Column, Output, Row
from byrote.cli.session import Exit, Session
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


@verb("byrote scan runs/a", "byrote scan runs --json")
def scan(
    session: Session,
    *,
    paths: tuple[str, ...] = options.PATHS,
    losses: options.Losses = record(options.Losses),
    opening: options.Opening = record(options.Opening),
    out: Output,
) -> int:
    """List the checkpoints in PATH: step, tokens, loss, format, size, and whether each can be read.

    PATH is one series, a folder of several, a quoted glob, or a Hugging Face repository whose branches are steps. No model is loaded; only of lab series are weights read, to compare them with the hashes in the manifest.
    """
    opened = opening.open(paths)
    opened.series = losses.given_to(opened.series, session)
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
    damaged = [_say_damage(session, series) for series in opened.series if series.format == "lab"]
    opened.report_broken(session)
    return Exit.GAPS if opened.broken or any(damaged) else Exit.DONE


def _say_damage(session: Session, series: CheckpointSeries) -> bool:
    """Compare a lab series with the hashes in its manifest; whether anything differs."""
    from byrote.checkpoints.lab.as_written import UNVERIFIED, damage_in, is_verified

    if not is_verified(series.manifest):
        session.note(f"{series.name}: {UNVERIFIED}")
    damage = list(damage_in(series.path, series.manifest))
    for sentence in damage:
        session.warn(f"{series.name}: {sentence}; `byrote lab train --fresh` writes the same series again")
    return bool(damage)


def _title(series: CheckpointSeries) -> str:
    gaps = f", {counted(len(series.gaps), 'gap')}" if series.gaps else ""
    return f"{series.name}: {counted(len(series), 'checkpoint')}, {series.span}{gaps}"


def _rows(series: CheckpointSeries) -> Iterator[Row]:
    """Checkpoints, then gaps; what a gap does not state is missing and becomes null."""
    every = dict.fromkeys(column.name for column in COLUMNS)
    for one in series:
        yield every | {
            "run": series.name,
            "step": one.step,
            "tokens_seen": one.tokens_seen,
            "loss_nats": one.loss_nats,
            "format": one.format,
            "size_bytes": one.size_bytes if one.files else None,
            "readable": True,
            "path": str(one.path),
        }
    for gap in series.gaps:
        found = {"run": series.name, "step": gap.step, "format": series.format, "readable": False}
        yield every | found | {"path": str(gap.path), "reason": gap.reason, "help": gap.help}
