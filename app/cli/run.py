"""`byrote run`: measure every checkpoint that is not measured yet."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.series import CheckpointSeries
from byrote.cli import options
from byrote.cli.command import flag, option, record, verb
from byrote.cli.progress import Event, Work, interrupted
from byrote.cli.session import Exit, Session
from byrote.probes.sweep.config import SweepConfig, require_device
from byrote.probes.wording import counted, duration, of_runs, size

if TYPE_CHECKING:
    from byrote.checkpoints.engines import Engine
    from byrote.probes.sweep.dry_run import Preview
    from byrote.probes.sweep.folder import SweepOutcome
    from byrote.probes.sweep.shards import Shard

Remarks = dict[
    str, list[str]
]  # what is said once for all runs that it holds for: the words -> names of the runs
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Destination:
    """Where `byrote run` writes, and what it does with what is there."""

    out: Path = option(
        "Folder in which each run gets a results folder.",
        "-o",
        type=click.Path(file_okay=False, path_type=Path),
        default="results",
    )
    fresh: bool = flag("Delete stored results and start again.")
    rehash: bool = flag(
        "Read every byte of the checkpoints again, even where size, times and inode of the files are unchanged."
    )
    fail_fast: bool = flag("Stop at the first checkpoint that cannot be measured.")
    trace: Path | None = option(
        "Write a timing log, one JSON object per line: reads, loads and measurements of every step.",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
    )


@verb(
    "byrote run runs/a",
    "byrote run runs/a runs/b -p induction --steps log:12 -o results",
    "byrote run runs/a --engine local",
    "byrote run runs/a --shard 3/16",
    "byrote run 'runs/*' --dry-run",
)
def run(
    session: Session,
    *,
    paths: tuple[str, ...] = options.PATHS,
    config: SweepConfig = record(SweepConfig),
    plugin: tuple[Path, ...] = option(
        "A Python file with probes or stimuli of your own, which is executed; repeat for more. Its probes are measured beside "
        "the defaults, or named with -p.",
        type=options.FILE,
        multiple=True,
        metavar="FILE",
    ),
    steps: str | None = option(
        "Which steps: terms such as 512, 1k..8k, log:12, every:5, first, last or nearest:3000, joined by commas. "
        "All by default.",
        metavar="SPEC",
    ),
    into: Destination = record(Destination),
    jobs: int | None = option(
        "Processes that measure in parallel, series or shards of one; if left out 1, with --engine as many as there is room for. Numbers do not depend on it.",
        type=click.IntRange(min=1),
        metavar="N",
    ),
    engines: options.Engines = record(options.Engines),
    shard: str | None = option(
        "Measure the k-th of n shards of every series, while other commands measure the others into the same folder.",
        metavar="K/N",
    ),
    dry_run: bool = flag(
        "Show what would be measured, how long it takes and what it stores, and write nothing. Two checkpoints are tried; probes that run the model often are not, but their passes are counted."
    ),
    allow_partial: bool = flag("Exit 0 even when some checkpoints could not be measured."),
    losses: options.Losses = record(options.Losses),
    opening: options.Opening = record(options.Opening),
    progress: str = options.PROGRESS,
) -> int:
    """Measure every checkpoint in PATH with every probe, and store the results.

    PATH is one series of checkpoints, a folder of several, a quoted glob, or a Hugging Face repository whose branches
    are steps; each series becomes one folder of results. The same command again finds finished work and does only what is missing. Ctrl-C finishes the checkpoint
    in flight and stops; twice stops at once.
    """
    from byrote.checkpoints.atomic import append
    from byrote.checkpoints.engines import HERE
    from byrote.probes.registry import load_file, resolve

    for file in plugin:
        load_file(file)
    resolve(config.probes)  # everything a typo can break breaks before work starts
    engine, mine = _placed(engines, jobs, shard)
    if into.trace is not None and not dry_run:
        append(into.trace, b"")  # one that cannot be written is refused before anything else is
    opened = opening.open(paths)
    opened.series = losses.given_to(opened.series, session)
    opened.series = [series.select(steps) for series in opened.series]
    if dry_run:
        return _dry_run(session, opened, config, into)
    outcomes: list[SweepOutcome] = []
    remarks: Remarks = {}
    try:
        if engine.name == "local":
            require_device(config)
        if engine != HERE:
            outcomes = _side_by_side(session, opened.series, config, into, plugin, progress, engine, remarks)
        else:
            for one in opened.series:
                work = Work(progress, session, one.name, promise="finishing this checkpoint")
                last = one is opened.series[-1]
                outcomes.append(_sweep(session, one, config, into, work, remarks, last=last, shard=mine))
    except KeyboardInterrupt:
        _say_remarks(session, remarks, len(opened.series))
        opened.report_broken(session)
        return interrupted(session, "finished checkpoints are saved")
    _say_remarks(session, remarks, len(opened.series))
    opened.report_broken(session)
    if mine is None:
        _say_next(session, opened.series, outcomes)
    partial = bool(opened.broken) or any(outcome.gaps for outcome in outcomes)
    return Exit.GAPS if partial and not allow_partial else Exit.DONE


def _placed(engines: options.Engines, jobs: int | None, shard: str | None) -> tuple[Engine, Shard | None]:
    """Where the work is done, and which part of it.

    Raises:
        ByroteError: a shard is measured by one process, and something else was given.
    """
    from byrote.checkpoints.engines import HERE
    from byrote.probes.sweep.shards import Shard

    engine = engines.chosen(jobs, otherwise=1)
    mine = None if shard is None else Shard.of(shard)
    if mine is not None and engine != HERE:
        raise ByroteError(
            "--shard measures one part in this command; --engine and --jobs distribute parts themselves",
            help="leave one of them out",
        )
    return engine, mine


def _sweep(
    session: Session,
    series: CheckpointSeries,
    config: SweepConfig,
    into: Destination,
    work: Work,
    remarks: Remarks,
    *,
    last: bool,
    shard: Shard | None,
) -> SweepOutcome:
    """Measure one series and say what was found.

    Raises:
        KeyboardInterrupt: Ctrl-C, before this series or the one after it was done.
    """
    from byrote.probes.sweep.run import sweep

    def on_event(event: Event) -> None:
        work.event(event, last=event.get("done") == event.get("total"))

    with work:
        outcome = sweep(
            series,
            config,
            out=into.out,
            fresh=into.fresh,
            rehash=into.rehash,
            fail_fast=into.fail_fast,
            on_event=on_event,
            shard=shard,
            trace=into.trace,
        )
    if outcome.interrupted or (work.stopping and not last):
        raise KeyboardInterrupt
    if shard is not None and _others_lack(session, series, outcome, shard):
        return outcome
    _say(session, series, outcome, remarks)
    return outcome


def _others_lack(session: Session, series: CheckpointSeries, outcome: SweepOutcome, shard: Shard) -> bool:
    """Whether other shards are still to be measured: then what was found is for the last of them to say."""
    from byrote.probes.results.run_json import stored_run_json

    if stored_run_json(outcome.path).get("status") != "interrupted":
        return False
    session.data(str(outcome.path))
    session.note(
        f"{series.name}: shard {shard}: {counted(outcome.measured, 'unit')} measured, {outcome.reused:,} already stored; "
        "other shards are not measured yet"
    )
    _say_gaps(session, series, outcome)
    return True


def _say(session: Session, series: CheckpointSeries, outcome: SweepOutcome, remarks: Remarks) -> None:
    """What was measured of one series."""
    session.data(str(outcome.path))
    _summarise(session, series, outcome, remarks)


def _side_by_side(
    session: Session,
    all_series: Sequence[CheckpointSeries],
    config: SweepConfig,
    into: Destination,
    plugins: tuple[Path, ...],
    progress: str,
    engine: Engine,
    remarks: Remarks,
) -> list[SweepOutcome]:
    """Measure series in several processes, here or elsewhere.

    Raises:
        KeyboardInterrupt: Ctrl-C, before all of them were done.
    """
    from byrote.probes.sweep.many import SweepTask, needs_of, sweep_many

    trace = into.trace.absolute() if into.trace else None  # others work in other folders
    tasks = [
        SweepTask(
            one,
            config,
            into.out,
            fresh=into.fresh,
            rehash=into.rehash,
            fail_fast=into.fail_fast,
            trace=trace,
            plugins=plugins,
        )
        for one in all_series
    ]
    total, started = sum(map(len, all_series)), time.monotonic()
    latest: dict[int, Event] = {}
    n_at_once = engine.n_at_once(needs_of(tasks), total) if engine.name == "local" else engine.jobs
    label = tasks[0].series.name if len(tasks) == 1 else counted(len(tasks), "run")
    work = Work(progress, session, label, promise="finishing the checkpoints in flight")

    def on_event(place: int, event: Event) -> None:
        if event["event"] == "checkpoint":
            latest[place] = event
            so_far = {name: sum(one[name] for one in latest.values()) for name in ("done", "errors")}
            pace: Mapping[str, float | None]
            if n_at_once is None:  # as many as a cluster has room for
                each = (time.monotonic() - started) / max(1, so_far["done"])
                pace = {"s_per_checkpoint": each, "eta_s": each * (total - so_far["done"])}
            else:
                pace = _pace_of_all(latest, [len(one) for one in all_series], n_at_once)
            work.progress.event({**event, **so_far, "total": total, **pace})
        else:
            work.progress.event(event)

    outcomes: dict[int, SweepOutcome] = {}
    with work:
        for place, outcome in sweep_many(
            tasks, engine=engine, on_event=on_event, stopping=lambda: work.stopping
        ):
            outcomes[place] = outcome
    for place in sorted(outcomes):
        _say(session, all_series[place], outcomes[place], remarks)
    return [outcomes[place] for place in range(len(tasks))]


def _pace_of_all(
    latest: Mapping[int, Event], sizes: Sequence[int], n_at_once: int
) -> dict[str, float | None]:
    """Pace of several sweeps side by side, of those under way and of those that wait for a process."""
    each = [event["s_per_checkpoint"] for event in latest.values() if event["s_per_checkpoint"]]
    left = [event["eta_s"] for event in latest.values()]
    waiting = sum(n for place, n in enumerate(sizes) if place not in latest)
    mean = sum(each) / len(each) if each else 0.0
    if None in left or (waiting and not each):
        return {"s_per_checkpoint": mean, "eta_s": None}
    return {"s_per_checkpoint": mean, "eta_s": (sum(left) + waiting * mean) / min(n_at_once, sum(sizes))}


def _summarise(session: Session, series: CheckpointSeries, outcome: SweepOutcome, remarks: Remarks) -> None:
    from byrote.probes import findings

    name, results = series.name, outcome.results
    if not outcome.measured:
        session.note(f"{name}: nothing new to measure: {counted(outcome.reused, 'unit')} already stored")
    if outcome.superseded:
        session.note(
            f"{name}: {counted(outcome.superseded, 'stored unit')} did not fit these weights, versions or settings "
            "and were measured again"
        )
    for path in outcome.set_aside:
        again = "and measured again" if outcome.measured else "; measure its probes again with -p"
        session.warn(f"{name}: a damaged file was set aside as {path} {again}")
    session.detail(
        f"{name}: {outcome.measured:,} units measured, {outcome.reused:,} reused, {outcome.superseded:,} superseded"
    )
    notes = results.meta.get("notes", [])
    for remark in notes:
        if remark not in series.notes:
            session.detail(f"{name}: {remark}")
    for line in [*findings.at_end(results), *_drift_lines(outcome)]:
        session.note(line if line.startswith((f"{name} ", f"{name}: ")) else f"{name}: {line}")
    for remark in [*(note for note in notes if note in series.notes), *findings.not_measured(results)]:
        remarks.setdefault(remark, []).append(name)
    _say_gaps(session, series, outcome)


def _say_gaps(session: Session, series: CheckpointSeries, outcome: SweepOutcome) -> None:
    """Checkpoints that were not measured, and why."""
    if outcome.gaps:
        total = len(series) + len(series.gaps)
        session.warn(f"{series.name}: {counted(len(outcome.gaps), 'gap')} in {counted(total, 'checkpoint')}:")
        for gap in outcome.gaps:
            step = gap["path"] if gap["step"] is None else f"step {gap['step']:,}"
            session.warn(f"  {step}: {gap['reason']}" + (f" ({gap['help']})" if gap["help"] else ""))


def _say_remarks(session: Session, remarks: Remarks, n_runs: int) -> None:
    """What holds of several runs, once, with the runs it holds for."""
    for remark, names in remarks.items():
        most = len(names) if session.verbose else _NAMES_SHOWN
        session.note(f"{of_runs(names, n_runs, most=most)}: {remark}")


def _drift_lines(outcome: SweepOutcome) -> list[str]:
    """The scores a lower precision moved most, against the width of their float32 interval."""
    rows = sorted(outcome.drift, key=lambda row: -(row["max_abs"] / (row["interval"] or float("inf"))))
    return [
        f"drift from float32, last step: {row['probe']} {row['metric']} at most {row['max_abs']:.2g} "
        f"(mean {row['mean_abs']:.2g}, n={row['n']}; float32 interval {row['interval'] or 0:.2g} wide)"
        for row in rows[:8]
    ]


def _say_next(session: Session, series: Sequence[CheckpointSeries], outcomes: Sequence[SweepOutcome]) -> None:
    """The commands that show what was measured; of several runs, one trained on unique data is the baseline."""
    paths = [str(outcome.path) for outcome in outcomes]
    if len(paths) == 1:
        session.note(f"next: {shlex.join(['byrote', 'report', *paths])}")
        return
    kinds = [(one.manifest.get("arm") or {}).get("kind") for one in series]
    arms = [outcome.results.facts.arm for outcome in outcomes]
    if None not in arms and len(set(arms)) < len(arms):  # several seeds: the report is of arms
        control = next((arms[kinds.index(kind)] for kind in ("control", "unique") if kind in kinds), arms[0])
        folder = str(outcomes[0].path.parent)
        session.note(f"next: {shlex.join(['byrote', 'report', folder, '--base', str(control)])}")
        return
    base = kinds.index("unique") if "unique" in kinds else 0
    if len(paths) == 2:
        session.note(f"next: {shlex.join(['byrote', 'compare', paths[base], paths[1 - base]])}")
    session.note(f"next: {shlex.join(['byrote', 'report', *paths, '--base', series[base].name])}")


def _dry_run(session: Session, opened: options.Opened, config: SweepConfig, into: Destination) -> int:
    """Print units, passes, time and disk of every series; nothing is written where results go."""
    from byrote.probes.sweep.dry_run import preview

    for series in opened.series:
        plan = preview(series, config, out=into.out, fresh=into.fresh)
        session.data(
            f"{plan.path}: {counted(len(series), 'checkpoint')} ({series.span}), "
            f"{counted(plan.to_measure, 'unit')} to measure, {plan.stored:,} already stored, "
            f"{counted(plan.forward_passes, 'forward pass')}"
        )
        for gap in (*series.gaps, *plan.gaps):
            session.note(f"gap: {gap.path.name}: {gap.reason}")
        if plan.to_measure:
            _say_cost(session, series, config, plan)
    opened.report_broken(session)
    return Exit.DONE


def _say_cost(session: Session, series: CheckpointSeries, config: SweepConfig, plan: Preview) -> None:
    """About how long it takes and how much it stores, tried on real checkpoints."""
    from byrote.probes.sweep.dry_run import cost_estimate

    session.note(f"{series.name}: trying two checkpoints to estimate the time; Ctrl-C skips this")
    try:
        tried = cost_estimate(series, config)
    except ByroteError as error:
        session.note(f"{series.name}: {error.message} ({error.help})")
        return
    steps = " and ".join(f"{step:,}" for step in tried.steps)
    session.data(
        f"{plan.path}: about {duration(tried.unit_s * plan.to_measure)} and "
        f"{size(round(tried.unit_bytes * plan.to_measure))}, as step{'s' * (len(tried.steps) > 1)} {steps} took; "
        f"{counted(tried.sequences, 'sequence')} shown to the model for each checkpoint"
    )
    for note in tried.notes:
        session.data(f"{plan.path}: {note}")
