"""`byrote run --dry-run`: what would be measured, how long it takes and what it stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from byrote.checkpoints import ByroteError, CheckpointSeries
from byrote.cli import exits
from byrote.cli.guard import report
from byrote.cli.session import Session
from byrote.probes.wording import counted, duration, size

if TYPE_CHECKING:
    from byrote.cli.paths import Opened
    from byrote.probes.sweep.plan import SweepConfig
    from byrote.probes.sweep.preview import Preview


def dry_run(session: Session, opened: Opened, config: SweepConfig, *, out: Path, fresh: bool) -> int:
    """Print units, passes, time and disk of every series; nothing is written where results go."""
    from byrote.probes.sweep.preview import preview

    for series in opened.series:
        plan = preview(series, config, out=out, fresh=fresh)
        session.data(
            f"{plan.path}: {counted(len(series), 'checkpoint')} (steps {series.steps[0]:,}-{series.steps[-1]:,}), "
            f"{counted(plan.to_measure, 'unit')} to measure, {plan.stored:,} already stored, "
            f"{counted(plan.forward_passes, 'forward pass')}"
        )
        for gap in series.gaps:
            session.note(f"gap: {gap.path.name}: {gap.reason}")
        if plan.to_measure:
            _say_cost(session, series, config, plan)
    for path, error in opened.broken:
        report(session, f"{path}: {error.message}", error.help)
    return exits.DONE


def _say_cost(session: Session, series: CheckpointSeries, config: SweepConfig, plan: Preview) -> None:
    """About how long it takes and how much it stores, tried on real checkpoints."""
    from byrote.probes.sweep.trial import trial

    session.note(f"{series.name}: trying two checkpoints to say how long it takes; Ctrl-C leaves that out")
    try:
        tried = trial(series, config)
    except ByroteError as error:
        session.note(f"{series.name}: {error.message} ({error.help})")
        return
    steps = " and ".join(f"{step:,}" for step in tried.steps)
    session.data(
        f"{plan.path}: about {duration(tried.unit_s * plan.to_measure)} and "
        f"{size(round(tried.unit_bytes * plan.to_measure))}, as step{'s' * (len(tried.steps) > 1)} {steps} took"
    )
