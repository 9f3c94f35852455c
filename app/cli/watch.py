"""`byrote watch`: measure checkpoints as training writes them, and stop a training that breaks its gate."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli import options
from byrote.cli.command import argument, flag, option, record, verb
from byrote.cli.expect import say_checks
from byrote.cli.progress import Event, Progress, interrupted, make_progress
from byrote.cli.session import Exit, Session
from byrote.cli.stopping import SIGNALS, StopTarget, stop_target
from byrote.probes.sweep.config import SweepConfig, require_device
from byrote.probes.wording import counted, listed

if TYPE_CHECKING:
    from byrote.checkpoints.series import CheckpointSeries
    from byrote.checkpoints.stored_bytes import FileStamp
    from byrote.checkpoints.training_losses import LossCurve
    from byrote.probes.gate import Gate
    from byrote.probes.results import Results
    from byrote.probes.sweep.folder import SweepOutcome

_SECONDS = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True)
class Into:
    """Where `byrote watch` writes."""

    out: Path = option(
        "Folder in which the results folder is written.",
        "-o",
        type=click.Path(file_okay=False, path_type=Path),
        default="results",
    )


@dataclass(frozen=True)
class Ending:
    """When `byrote watch` looks, and when it ends."""

    poll: float = option(
        "Seconds between checks of the folder.", type=_SECONDS, metavar="SECONDS", default=5.0
    )
    settle: float = option(
        "A checkpoint counts as complete when none of its files changed for this long.",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        default=10.0,
    )
    idle_timeout: float | None = option(
        "End when nothing new appeared for this long.", type=_SECONDS, metavar="SECONDS"
    )
    until_step: int | None = option(
        "End when this step, or a later one, was measured.", type=options.NATURAL, metavar="STEP"
    )


@dataclass(frozen=True)
class Stopping:
    """The gate, and what is stopped when it is broken."""

    expect: Path | None = option(
        "A gate: rules (TOML, see docs/gate.md), checked after every checkpoint.",
        type=options.PATH,
        metavar="FILE",
    )
    stop_on_fail: str | None = option(
        "What to stop when a rule is clearly violated: the ID of one of your processes, which is sent a signal, or a file to write.",
        metavar="PID|FILE",
    )
    stop_signal: str = option("The signal.", type=click.Choice(SIGNALS), default="TERM")

    def gate(self) -> Gate | None:
        """The gate, if one is given.

        Raises:
            ByroteError: it cannot be read, or has no rule that could stop a run.
        """
        from byrote.probes.gate import read_gate

        if self.expect is None:
            if self.stop_on_fail is not None:
                raise ByroteError("--stop-on-fail needs a gate", help="add --expect gate.toml")
            return None
        gate = read_gate(self.expect)
        if self.stop_on_fail is not None and not any(rule.stops for rule in gate.rules):
            raise ByroteError(
                f"no rule of {self.expect} can stop a run: all are about the last step, which is known at its end",
                help='write step = "every", or from_step = 1000, into a rule that must hold at each step',
            )
        return gate

    def target(self) -> StopTarget | None:
        """What is stopped.

        Raises:
            ByroteError: see `stop_target`.
        """
        return (
            None
            if self.stop_on_fail is None
            else stop_target(self.stop_on_fail, signal_name=self.stop_signal)
        )


@verb(
    "byrote watch runs/a",
    "byrote watch runs/a -p induction -p extraction --until-step 10000",
    "byrote watch runs/a --expect gate.toml --stop-on-fail 4711",
)
def watch(
    session: Session,
    *,
    folder: str = argument("FOLDER"),
    config: SweepConfig = record(SweepConfig),
    plugin: tuple[Path, ...] = option(
        "A Python file with probes or stimuli of your own, which is executed; repeat for more.",
        type=options.FILE,
        multiple=True,
        metavar="FILE",
    ),
    into: Into = record(Into),
    ending: Ending = record(Ending),
    stopping: Stopping = record(Stopping),
    allow_partial: bool = flag("Exit 0 even when some checkpoints could not be measured."),
    losses: options.Losses = record(options.Losses),
    opening: options.Opening = record(options.Opening),
    progress: str = options.PROGRESS,
) -> int:
    """Measure the checkpoints in FOLDER as training writes them, until training ends.

    FOLDER may be empty, or not exist yet. A checkpoint is measured when its files have stopped changing and can be read; one that
    is written again is measured again, and results of one that is removed stay. The dashboard shows results while
    they appear. It ends with --until-step or --idle-timeout, when the process of --stop-on-fail has ended, when a lab series is
    complete, and with Ctrl-C or SIGTERM: then it measures the folder as it is, as `byrote run` does, and says what the gate says. A second Ctrl-C stops
    at once. The same command again resumes.

    With --expect and --stop-on-fail, a rule that is clearly violated, and would be at the end too, stops the run: exit 1.
    """
    from byrote.probes.registry import load_file, resolve
    from byrote.probes.sweep.watching import Pace, Watch

    for file in plugin:
        load_file(file)
    resolve(config.probes)
    gate, target = stopping.gate(), stopping.target()
    config = _with_probes_of(gate, config, session)
    require_device(config)
    shown = make_progress("jsonl" if progress == "jsonl" else "none", session, label=Path(folder).name)
    watched = _Watched(session, shown, gate, target, progress)
    pace = Pace(ending.poll, ending.settle, ending.idle_timeout, ending.until_step)
    work = Watch(
        _Opened(folder, opening, losses, session),
        config,
        into.out,
        pace,
        on_event=watched.event,
        ending=lambda: watched.signals > 0,
        training_ended=lambda: target is not None and target.ended(),
        look_at=watched.look_at,
    )
    watched.begin(folder)
    try:
        with watched:
            outcome = work.run()
    except KeyboardInterrupt:
        return interrupted(session, "finished checkpoints are saved")
    finally:
        shown.close()
    return watched.end(outcome, allow_partial=allow_partial)


def _with_probes_of(gate: Gate | None, config: SweepConfig, session: Session) -> SweepConfig:
    """The settings, with the probes that the gate is about: a rule about what is not measured would never be decided."""
    chosen = {info.name for info in config.infos}
    wanted = [rule.probe for rule in gate.rules if rule.probe] if gate is not None else []
    missing = [name for name in dict.fromkeys(wanted) if name not in chosen]
    if not missing:
        return config
    session.note(f"measured for the gate: {listed(missing)}")
    return replace(config, probes=(*(config.probes or ("default",)), *missing))


@dataclass
class _Opened:
    """Opens the series as it is now, with its losses where they were logged; these are read when their file has changed."""

    folder: str
    opening: options.Opening
    losses: options.Losses
    session: Session
    _stamp: FileStamp = (0, 0, 0, 0)
    _curve: LossCurve | None = None

    def __call__(self) -> CheckpointSeries:
        from byrote.checkpoints.stored_bytes import file_stamp
        from byrote.checkpoints.training_losses import read_losses, with_losses

        series = self.opening.open_one(self.folder)
        if self.losses.losses is None:
            return series
        stamp = file_stamp(self.losses.losses, follow_links=True, missing_ok=True)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._curve = read_losses(self.losses.losses, name=self.losses.loss_name)
            except ByroteError as error:  # not written yet, or half of it: the next look reads it again
                self.session.detail(f"no training loss yet: {error.message}")
        return series if self._curve is None else with_losses(series, self._curve)


class _Watched:
    """What is said of a folder that is watched, and what is done about it."""

    def __init__(
        self, session: Session, shown: Progress, gate: Gate | None, target: StopTarget | None, progress: str
    ) -> None:
        self.session, self.gate, self.target = session, gate, target
        self.shown, self.say = shown, shown.note if progress == "jsonl" else session.note
        self.signals, self.measured, self.broken = 0, 0, False
        self._before: dict[int, Any] = {}
        self._outcomes: dict[tuple[str, str], str] = {}

    def __enter__(self) -> _Watched:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        if self.signals > 1:
            raise KeyboardInterrupt
        self.say("ending: measuring what the folder holds now; Ctrl-C again stops at once")

    def begin(self, folder: str) -> None:
        """Say what is watched, and which rules can stop the run."""
        self.session.note(f"watching {folder}; Ctrl-C ends it")
        rules = self.gate.rules if self.gate is not None else ()
        late = [rule.name or rule.where for rule in rules if not rule.stops]
        if late:
            self.session.note(
                f"about the last step, and decided when the run has ended: {listed(late, most=3)}"
            )

    def event(self, event: Event) -> None:
        """One event of watching."""
        kind = event["event"]
        if kind == "checkpoint":
            self.measured += 1
            self.shown.event({**event, "event": "measured", "n": self.measured})
            self.say(f"step {event['step']:,} measured")
        elif kind == "gap":
            step = "" if event["step"] is None else f"step {event['step']:,}: "
            self.say(f"not measured: {step or event['path'] + ': '}{event['reason']}")
        elif kind == "gone":
            self.say(f"step {event['step']:,} was removed before it was measured")
        else:
            self.say(f"waiting: {event['reason']}")

    def look_at(self, results: Results) -> bool:
        """Hold the gate against what is measured so far; True where that stopped the run."""
        if self.gate is None:
            return False
        from byrote.probes.gate import check

        checks = check(self.gate, [results], finished=False)
        for one in checks:
            key = (one.rule.where, one.run)
            if self._outcomes.get(key) != one.outcome and one.outcome != "undecided":
                (self.session.warn if one.broken else self.say)(one.line)
            self._outcomes[key] = one.outcome
        self.broken = any(one.broken for one in checks)
        if not self.broken or self.target is None:
            return False
        self.session.warn(self.target.stop([one.line for one in checks if one.broken]))
        return True

    def end(self, outcome: SweepOutcome | None, *, allow_partial: bool) -> int:
        """Say what was measured and what the gate says of it; the exit code."""
        if outcome is None and self.broken:
            return Exit.CHECK_FAILED
        if outcome is None:
            self.session.error(
                "no checkpoint appeared", "name the folder that training writes to", Exit.NOTHING
            )
            return Exit.NOTHING
        self.session.data(str(outcome.path))
        if outcome.interrupted:
            return interrupted(self.session, "finished checkpoints are saved")
        if self.gate is not None:
            from byrote.probes.gate import check

            code = say_checks(self.session, check(self.gate, [outcome.results]))
            if code:
                return code
        if outcome.gaps:
            self.session.warn(f"{counted(len(outcome.gaps), 'gap')}: `byrote show` and the report list them")
        return Exit.GAPS if outcome.gaps and not allow_partial else Exit.DONE
