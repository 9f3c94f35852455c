"""`byrote run`: measure every checkpoint that is not measured yet."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from byrote.checkpoints import CheckpointSeries
from byrote.cli import exits
from byrote.cli.command import Verb
from byrote.cli.dry_run import dry_run
from byrote.cli.guard import report
from byrote.cli.interrupts import Interrupts
from byrote.cli.options import (
    base_model_option,
    device_option,
    disk_budget_option,
    download_option,
    dtype_option,
    fresh_help,
    in_bytes,
    require_device,
    seed_option,
    sequences_option,
    threads_option,
)
from byrote.cli.progress import Progress, make_progress, progress_option
from byrote.cli.session import Session
from byrote.probes.wording import counted

if TYPE_CHECKING:
    from byrote.cli.paths import Opened
    from byrote.probes.sweep.plan import SweepConfig
    from byrote.probes.sweep.run import SweepOutcome


@dataclass(frozen=True)
class RunOptions:
    """Options of `byrote run`, as parsed."""

    paths: tuple[str, ...]
    probe: tuple[str, ...]
    steps: str | None
    device: str
    dtype: str
    seed: int
    sequences: int
    text: Path | None
    members: Path | None
    twins: Path | None
    out: Path
    swap: str
    threads: int | None
    prefetch: bool
    trace: Path | None
    save_attention: bool
    dry_run: bool
    fresh: bool
    fail_fast: bool
    allow_partial: bool
    base_model: Path | None
    allow_download: bool
    disk_budget: float | None
    progress: str


@click.command(
    cls=Verb,
    examples=(
        "byrote run runs/a",
        "byrote run runs/a runs/b -p induction --steps log:12 -o results",
        "byrote run 'runs/*' --dry-run",
    ),
    short_help="Measure every checkpoint; the same command again does only what is missing.",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-p",
    "--probe",
    multiple=True,
    metavar="NAME",
    help="A probe to run, `default` or `all`; repeat for more. If left out, all but those that cost many passes.",
)
@click.option(
    "--steps",
    metavar="SPEC",
    help="Which steps: terms such as 512, 1k..8k, log:12, every:5, first, last or nearest:3000, joined by commas. All by default.",
)
@device_option
@dtype_option
@seed_option
@sequences_option
@click.option(
    "--text",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Real text: .txt, .jsonl or .parquet, a file or a folder, for the model's own tokenizer, or token ids (.npy, .safetensors).",
)
@click.option(
    "--members",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sequences the model was trained on: one per line, .jsonl (text, repeat_count), or token ids, one per row; a lab series carries its own.",
)
@click.option(
    "--twins",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="As --members: sequences of the same source that were never trained on.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="results",
    show_default=True,
    help="Folder that gets one results folder per run.",
)
@click.option(
    "--swap",
    type=click.Choice(("auto", "fresh")),
    default="auto",
    show_default=True,
    help="auto copies weights into one live model where that is proved exact; fresh builds each step anew.",
)
@threads_option
@click.option(
    "--prefetch/--no-prefetch",
    default=True,
    show_default=True,
    help="Read and hash the next step's files while this one is measured.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what took when, one JSON object per line: reads, loads and measurements of every step.",
)
@click.option(
    "--save-attention",
    is_flag=True,
    help="Keep for the dashboard, on two sequences per stimulus: every head's attention, one byte per weight, and the tokens it raises and lowers most, 60 bytes per position.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be measured, how long it takes and what it stores, tried on two checkpoints; write nothing.",
)
@click.option("--fresh", is_flag=True, help=fresh_help)
@click.option("--fail-fast", is_flag=True, help="Stop at the first checkpoint that cannot be measured.")
@click.option(
    "--allow-partial", is_flag=True, help="Exit 0 even when some checkpoints could not be measured."
)
@base_model_option
@download_option
@disk_budget_option
@progress_option
@click.pass_obj
def run(session: Session, /, **options: Any) -> int:
    """Measure every checkpoint in PATH with every probe, and store the results.

    PATH is one series of checkpoints, a folder of several, a quoted glob, or a Hugging Face repository whose branches
    are steps; each series becomes one folder of results. The same command again finds finished work and does only what is missing. Ctrl-C finishes the checkpoint
    in flight and stops; twice stops at once.
    """
    asked = RunOptions(**options)
    opened = _open(asked)
    config = _config(asked)
    if asked.dry_run:
        return dry_run(session, opened, config, out=asked.out, fresh=asked.fresh)
    require_device(asked.device, asked.dtype)
    outcomes, interrupted = _sweep_all(session, opened.series, config, asked)
    for path, error in opened.broken:
        report(session, f"{path}: {error.message}", error.help)
    if interrupted:
        return _say_how_to_resume(session)
    _say_next(session, opened.series, outcomes)
    partial = bool(opened.broken) or any(outcome.gaps for outcome in outcomes)
    return exits.GAPS if partial and not asked.allow_partial else exits.DONE


def _open(asked: RunOptions) -> Opened:
    """The series asked for, each with the steps asked for; everything a typo can break breaks here."""
    from byrote.cli.paths import open_all
    from byrote.probes.registry import resolve

    resolve(asked.probe or None)
    opened = open_all(
        asked.paths,
        base=asked.base_model,
        allow_download=asked.allow_download,
        disk_budget_bytes=in_bytes(asked.disk_budget),
    )
    opened.series = [series.select(asked.steps) for series in opened.series]
    return opened


def _config(asked: RunOptions) -> SweepConfig:
    from byrote.probes.sweep.plan import SweepConfig

    return SweepConfig(
        probes=asked.probe or None,
        seed=asked.seed,
        n_seq=asked.sequences,
        device=asked.device,
        dtype=asked.dtype,
        swap=asked.swap,
        text=asked.text,
        members=asked.members,
        twins=asked.twins,
        threads=asked.threads,
        prefetch=asked.prefetch,
        save_attention=asked.save_attention,
    )


def _sweep_all(
    session: Session, series: Sequence[CheckpointSeries], config: SweepConfig, asked: RunOptions
) -> tuple[list[SweepOutcome], bool]:
    """Outcomes of the runs that came to their end, and whether Ctrl-C stopped the rest."""
    outcomes: list[SweepOutcome] = []
    for i, one in enumerate(series):
        progress = make_progress(asked.progress, session, label=one.name)
        stop = Interrupts(lambda p=progress: p.note("finishing this checkpoint; Ctrl-C again stops at once"))
        try:
            with stop:
                outcome = _sweep(one, config, asked, progress=progress, stop=stop)
        except KeyboardInterrupt:
            return outcomes, True
        finally:
            progress.close()
        if outcome.interrupted or (stop.asked and i + 1 < len(series)):
            return outcomes, True
        outcomes.append(outcome)
        session.data(str(outcome.path))
        _summarise(session, one, outcome)
        _write_trace(asked.trace, one.name, outcome)
    return outcomes, False


def _sweep(
    series: CheckpointSeries, config: SweepConfig, asked: RunOptions, *, progress: Progress, stop: Interrupts
) -> SweepOutcome:
    from byrote.probes.sweep.run import sweep

    def on_event(event: dict[str, Any]) -> None:
        progress.event(event)
        if event["event"] == "checkpoint" and event["done"] < event["total"]:
            stop.check()

    return sweep(
        series, config, out=asked.out, fresh=asked.fresh, fail_fast=asked.fail_fast, on_event=on_event
    )


def _write_trace(file: Path | None, run: str, outcome: SweepOutcome) -> None:
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps({"run": run, **row}) + "\n" for row in outcome.trace)


def _drift_lines(outcome: SweepOutcome) -> list[str]:
    """The scores a lower precision moved most, against the width of their float32 interval."""
    rows = sorted(outcome.drift, key=lambda row: -(row["max_abs"] / (row["interval"] or float("inf"))))
    return [
        f"drift from float32, last step: {row['probe']} {row['metric']} at most {row['max_abs']:.2g} "
        f"(mean {row['mean_abs']:.2g}, n={row['n']}; float32 interval {row['interval'] or 0:.2g} wide)"
        for row in rows[:8]
    ]


def _summarise(session: Session, series: CheckpointSeries, outcome: SweepOutcome) -> None:
    from byrote.cli.summary import findings

    if not outcome.measured:
        session.note(
            f"{series.name}: nothing new to measure: {counted(outcome.reused, 'unit')} already stored"
        )
    if outcome.superseded:
        session.note(
            f"{series.name}: {counted(outcome.superseded, 'stored unit')} did not fit these weights, versions or settings "
            "and were measured again"
        )
    session.detail(
        f"{series.name}: {outcome.measured:,} units measured, {outcome.reused:,} reused, "
        f"{outcome.superseded:,} superseded"
    )
    results = outcome.results
    for remark in results.meta.get("notes", []):
        (session.note if remark in series.notes else session.detail)(f"{series.name}: {remark}")
    for line in [*findings(results), *_drift_lines(outcome)]:
        session.note(f"{series.name}: {line}")
    if outcome.gaps:
        total = len(series) + len(series.gaps)
        session.warn(f"{series.name}: {counted(len(outcome.gaps), 'gap')} in {counted(total, 'checkpoint')}:")
        for gap in outcome.gaps:
            step = gap["path"] if gap["step"] is None else f"step {gap['step']:,}"
            session.warn(f"  {step}: {gap['reason']}" + (f" ({gap['help']})" if gap["help"] else ""))


def _say_next(session: Session, series: Sequence[CheckpointSeries], outcomes: Sequence[SweepOutcome]) -> None:
    """The commands that show what was measured; of several runs, one trained on unique data is the baseline."""
    paths = [str(outcome.path) for outcome in outcomes]
    if len(paths) == 1:
        session.note(f"next: {shlex.join(['byrote', 'report', *paths])}")
        return
    unique = (i for i, one in enumerate(series) if (one.manifest.get("arm") or {}).get("kind") == "unique")
    base = next(unique, 0)
    if len(paths) == 2:
        session.note(f"next: {shlex.join(['byrote', 'compare', paths[base], paths[1 - base]])}")
    session.note(f"next: {shlex.join(['byrote', 'report', *paths, '--base', series[base].name])}")


def _say_how_to_resume(session: Session) -> int:
    session.warn("interrupted: finished checkpoints are kept")
    session.warn(f"resume: {session.command(without=frozenset({'--fresh'}))}")
    return exits.INTERRUPTED
