"""Long verbs: progress on stderr (a live line for people, lines for logs, JSON for programs), and Ctrl-C that loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from byrote.cli.session import Exit, Session, is_terminal
from byrote.probes.wording import counted, duration, visible, visible_json

Event = dict[str, Any]


class Work:
    """One long piece of work: shows its progress; Ctrl-C once finishes what is in flight, twice stops now.

    While active, the first SIGINT is only recorded; the second raises KeyboardInterrupt at once.

    Args:
        mode: one of the values of `--progress`.
        session: quiet, colour.
        label: what is worked on, such as the run's name.
        promise: what the first Ctrl-C is answered with, such as "finishing this checkpoint".
    """

    def __init__(self, mode: str, session: Session, label: str, *, promise: str = "stopping") -> None:
        self.progress = make_progress(mode, session, label=label)
        self.stopping = False
        self._promise = promise
        self._before: Any = None

    def __enter__(self) -> Work:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        self.progress.close()

    def event(self, event: Event, *, last: bool) -> None:
        """Show an event; a written or measured checkpoint that is not the last is where work may stop."""
        self.progress.event(event)
        if event["event"] == "checkpoint" and not last and self.stopping:
            raise KeyboardInterrupt

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.progress.note(f"{self._promise}; Ctrl-C again stops at once")


def interrupted(session: Session, saved: str) -> int:
    """Say what is saved and how the work is resumed; the exit code."""
    session.warn(f"interrupted: {saved}")
    session.warn(f"resume: {session.command(without=frozenset({'--fresh'}))}")
    return Exit.INTERRUPTED


class Progress:
    """Takes the events of `sweep` and of `byrote.checkpoints.lab.train`, and shows none of them.

    Args:
        label: what is worked on.
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def event(self, event: Event) -> None:
        """One event."""

    def note(self, text: str) -> None:
        """A line that must not be drawn over."""
        click.echo(visible(text), err=True)

    def rename(self, label: str) -> None:
        """What the next events are of."""
        self.label = label

    def close(self) -> None:
        """Leave the last line standing."""


class _Plain(Progress):
    """One line per checkpoint measured; training steps in between only keep its pace."""

    pace = ""

    def event(self, event: Event) -> None:
        if event["event"] == "step":
            self.pace = f" · {_pace(event)}"
        elif event.get("measured") == 0:
            return  # stored already: the line would say nothing new
        elif text := line_of(event):
            tail = self.pace if event["event"] == "checkpoint" and "done" not in event else ""
            self.note(f"{self.label}: {text}{tail}")


class _Jsonl(Progress):
    """Every event as an object on its own line."""

    def event(self, event: Event) -> None:
        click.echo(visible_json({"run": self.label, **event}), err=True)

    def note(self, text: str) -> None:
        self.event({"event": "note", "text": text})


class _Rich(Progress):
    """A bar and one line that says where it is; a gap stays as a line above it."""

    def __init__(self, label: str, session: Session) -> None:
        from rich import console, progress

        super().__init__(label)
        self._bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=20),
            progress.TextColumn("{task.fields[line]}", markup=False),
            console=console.Console(
                file=sys.stderr,
                no_color=not session.color(sys.stderr),
                highlight=False,
                markup=False,
                emoji=False,
                force_terminal=True if is_terminal(sys.stderr) else None,
            ),
        )
        self._task = self._bar.add_task(visible(label), total=None, line="starting")
        self._bar.start()

    def rename(self, label: str) -> None:
        super().rename(label)
        self._bar.update(self._task, description=visible(label))

    def event(self, event: Event) -> None:
        text = line_of(event)
        if event["event"] in ("gap", "resumed", "restarted", "retried", "runs"):
            self.note(text)
        elif text:
            done = event.get("done", event.get("step"))
            self._bar.update(self._task, completed=done, total=event["total"], line=visible(text))

    def note(self, text: str) -> None:
        self._bar.console.print(visible(text), markup=False)

    def close(self) -> None:
        self._bar.stop()


def make_progress(mode: str, session: Session, *, label: str) -> Progress:
    """The progress a mode names: auto, rich, plain, jsonl or none."""
    if mode == "auto":
        lively = is_terminal(sys.stderr) and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
        mode = "none" if session.quiet else "rich" if lively else "plain"
    if mode == "rich":
        return _Rich(label, session)
    return {"plain": _Plain, "jsonl": _Jsonl, "none": Progress}[mode](label)


def line_of(event: Event) -> str:
    """An event of `sweep` or `train` in words; "" for one that needs no line."""
    kind = event["event"]
    if kind == "gap":
        step = "" if event.get("step") is None else f"step {event['step']:,}: "
        return f"gap: {step}{event['reason']}"
    if kind == "runs":
        return f"{event['done']:,}/{event['total']:,} runs complete"
    if kind == "restarted":
        return f"{event['run']} starts again: {event['reason']}"
    if kind == "retried":
        return f"again: {event['reason']}"
    if kind == "resumed":
        return f"resuming from step {event['step']:,}"
    if kind not in ("step", "checkpoint"):
        return ""
    if "done" in event:
        parts = [f"{event['done']:,}/{event['total']:,}", f"step {event['step']:,}"]
        if event["s_per_checkpoint"]:
            parts.append(f"{event['s_per_checkpoint']:.1f} s/checkpoint")
        if event["eta_s"] is not None:
            parts.append(f"ETA {duration(event['eta_s'])}")
        parts += [counted(event["errors"], "gap")] if event["errors"] else []
        return " · ".join(parts)
    parts = [f"{event['step']:,}/{event['total']:,} steps", f"train loss {event['train_loss_nats']:.3f}"]
    if kind == "step":
        return " · ".join([parts[0], f"{parts[1]} nats", _pace(event)])
    return " · ".join([*parts, f"test loss {event['test_loss_nats']:.3f} nats"])


def _pace(event: Event) -> str:
    return f"{event['steps_per_s']:.0f} steps/s · ETA {duration(event['eta_s'])}"


@contextmanager
def bar(session: Session, label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if session.quiet or not is_terminal(sys.stderr):
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as shown:

        def on_progress(done: int, total: int) -> None:
            shown.length = total
            shown.update(done - shown.pos)

        yield on_progress
