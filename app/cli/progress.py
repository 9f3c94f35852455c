"""Progress of long verbs on stderr: one live line for people, one line per checkpoint for logs, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Protocol

import click

from byrote.cli.session import Session, is_terminal
from byrote.probes.wording import counted, duration, visible

MODES = ("auto", "rich", "plain", "jsonl", "none")
Event = dict[str, Any]

progress_option = click.option(
    "--progress",
    metavar="MODE",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    help="How progress is shown on stderr: auto, rich, plain, jsonl or none. auto is rich on a terminal and plain elsewhere.",
)


class Progress(Protocol):
    """Takes the events of `sweep` and of `byrote.checkpoints.lab.train`."""

    def event(self, event: Event) -> None:
        """One event."""

    def note(self, text: str) -> None:
        """A line that must not be drawn over."""

    def close(self) -> None:
        """Leave the last line standing."""


def make_progress(mode: str, session: Session, *, label: str) -> Progress:
    """The progress a mode names.

    Args:
        mode: one of `MODES`.
        session: quiet turns auto into none; colour.
        label: what is worked on, such as the run's name.
    """
    if mode == "auto":
        lively = is_terminal(sys.stderr) and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
        mode = "none" if session.quiet else "rich" if lively else "plain"
    if mode == "rich":
        return _Rich(session, label)
    return {"plain": _Plain, "jsonl": _Jsonl, "none": _Silent}[mode](label)


def line_of(event: Event) -> str:
    """An event of `sweep` or `train` in words; "" for one that needs no line."""
    kind = event["event"]
    if kind == "gap":
        step = "" if event.get("step") is None else f"step {event['step']:,}: "
        return f"gap: {step}{event['reason']}"
    if kind == "resumed":
        return f"going on from step {event['step']:,}"
    if kind == "step":
        return _training(event)
    if kind == "checkpoint":
        return _measuring(event) if "done" in event else _written(event)
    return ""


def _measuring(event: Event) -> str:
    parts = [f"{event['done']:,}/{event['total']:,}", f"step {event['step']:,}"]
    parts += [f"{event['s_per_checkpoint']:.1f} s/checkpoint", f"ETA {duration(event['eta_s'])}"]
    if event["errors"]:
        parts.append(counted(event["errors"], "gap"))
    return " · ".join(parts)


def _training(event: Event) -> str:
    parts = (f"{event['step']:,}/{event['total']:,} steps", f"train loss {event['train_loss_nats']:.3f} nats")
    return " · ".join((*parts, _pace(event)))


def _pace(event: Event) -> str:
    return f"{event['steps_per_s']:.0f} steps/s · ETA {duration(event['eta_s'])}"


def _written(event: Event) -> str:
    losses = f"train loss {event['train_loss_nats']:.3f} · test loss {event['test_loss_nats']:.3f} nats"
    return f"{event['step']:,}/{event['total']:,} steps · {losses}"


class _Silent:
    def __init__(self, label: str) -> None:
        self.label = label

    def event(self, event: Event) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing hides a line, so it is printed."""
        click.echo(visible(text), err=True)

    def close(self) -> None:
        """Nothing to close."""


class _Plain(_Silent):
    """One line per checkpoint measured; training steps in between only keep its pace."""

    pace = ""

    def event(self, event: Event) -> None:
        """Print the checkpoint."""
        if event["event"] == "step":
            self.pace = f" · {_pace(event)}"
        elif event.get("measured") == 0:
            return  # stored already: the line would say nothing new
        elif text := line_of(event):
            tail = self.pace if event["event"] == "checkpoint" and "done" not in event else ""
            self.note(f"{self.label}: {text}{tail}")


class _Jsonl(_Silent):
    """Every event as an object on its own line."""

    def event(self, event: Event) -> None:
        """Print the event."""
        click.echo(json.dumps({"run": self.label, **event}, default=str), err=True)

    def note(self, text: str) -> None:
        """A note is an event too."""
        click.echo(json.dumps({"event": "note", "run": self.label, "text": text}), err=True)


class _Rich:
    """A bar and one line that says where it is."""

    def __init__(self, session: Session, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        console = Console(
            file=sys.stderr,
            no_color=not session.color(sys.stderr),
            highlight=False,
            markup=False,
            emoji=False,
            force_terminal=True if is_terminal(sys.stderr) else None,
        )
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[line]}", markup=False),
            console=console,
        )
        self._task = self._progress.add_task(visible(label), total=None, line="starting")
        self._progress.start()

    def event(self, event: Event) -> None:
        """Move the bar; a gap stays as a line above it."""
        text = line_of(event)
        if event["event"] in ("gap", "resumed"):
            self.note(text)
        elif text:
            done = event.get("done", event.get("step"))
            self._progress.update(self._task, completed=done, total=event["total"], line=visible(text))

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(visible(text), markup=False)

    def close(self) -> None:
        """Stop drawing; the last line stays."""
        self._progress.stop()
