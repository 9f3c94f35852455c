"""What one call of the command line knows: its arguments, how loud to be, and where each kind of text goes.

stdout carries data only; everything said to a person goes to stderr.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field

import click

from byrote.cli.settings import Settings
from byrote.probes.wording import visible


@dataclass
class Session:
    """One call.

    Attributes:
        args: the arguments as typed, after `byrote`.
        quiet, verbose, no_color, traceback: the options every verb has.
        output: "table", "csv", "json" or "jsonl" where one was asked for.
        settings: `[tool.byrote]` of the working directory.
    """

    args: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    traceback: bool = False
    output: str | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def errors_as_json(self) -> bool:
        """Whether errors are objects: asked by option, by configuration, or typed before parsing failed."""
        return self.output in ("json", "jsonl") or bool({"--json", "--jsonl"} & set(self.args))

    @property
    def wants_traceback(self) -> bool:
        """Whether an internal error shows its traceback; known before parsing too."""
        return self.traceback or "--traceback" in self.args

    def color(self, stream: object) -> bool:
        """Whether a stream takes colour: a terminal, and nobody said no."""
        tty = bool(getattr(stream, "isatty", lambda: False)())
        return tty and not (self.no_color or "--no-color" in self.args or os.environ.get("NO_COLOR"))

    def note(self, text: str) -> None:
        """Say something useful on stderr, unless quiet."""
        if not self.quiet:
            self.warn(text)

    def detail(self, text: str) -> None:
        """Say something on stderr that only `-v` asks for."""
        if self.verbose and not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Say something on stderr that even `-q` must not hide."""
        click.echo(visible(text), err=True)

    def data(self, text: str) -> None:
        """One line of data on stdout."""
        click.echo(visible(text))

    def command(self, *, without: frozenset[str] = frozenset()) -> str:
        """This call as typed, less some flags, to be pasted into a shell."""
        return visible(shlex.join(["byrote", *(a for a in self.args if a not in without)]))


def is_terminal(stream: object = None) -> bool:
    """Whether stdout (or the stream given) is a terminal."""
    stream = sys.stdout if stream is None else stream
    return bool(getattr(stream, "isatty", lambda: False)())
