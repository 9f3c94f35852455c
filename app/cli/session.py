"""State of one call of the command line: arguments, verbosity, output streams and exit code.

stdout carries data only; everything said to a person goes to stderr. Every exception becomes an exit code, with what
happened and what to do.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError, NothingFoundError, nearest
from byrote.cli.settings import Settings
from byrote.probes.wording import mid_sentence, visible, visible_json


class Exit(IntEnum):
    """Exit codes, the same for every verb."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    GAPS = 3
    NOTHING = 4
    INTERNAL = 70
    INTERRUPTED = 130


MEANING = {
    Exit.DONE: "everything requested was done",
    Exit.CHECK_FAILED: "done, and a check failed (`check`, `--expect`, `lint`, `verify`, `selftest`): a finding, not a fault",
    Exit.USAGE: "usage or configuration error; for `doctor`, something needed is missing",
    Exit.GAPS: "done with gaps: some checkpoints could not be measured; results are written and marked partial "
    "(`--allow-partial` turns it to 0)",
    Exit.NOTHING: "nothing to do: no checkpoints found at that path",
    Exit.INTERNAL: "internal error: one line is printed, and where the traceback was saved",
    Exit.INTERRUPTED: "interrupted by Ctrl-C: finished work is saved",
}


@dataclass
class Session:
    """One call.

    Attributes:
        args: the arguments as typed, after `byrote`.
        quiet, verbose, no_color, traceback: the options every verb has.
        output: "table", "csv", "json" or "jsonl" where one was requested.
        progress: how progress is shown; with "jsonl" every line on stderr is an object.
        settings: `[tool.byrote]` of the working directory.
    """

    args: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False
    traceback: bool = False
    output: str | None = None
    progress: str | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def errors_as_json(self) -> bool:
        """Whether errors are objects: requested by option, by configuration, or typed before parsing failed."""
        return (
            self.says_json or self.output in ("json", "jsonl") or bool({"--json", "--jsonl"} & set(self.args))
        )

    @property
    def says_json(self) -> bool:
        """Whether stderr is JSON lines (`--progress jsonl`): set, or typed before parsing failed."""
        typed = " ".join(self.args).replace("=", " ")
        return self.progress == "jsonl" or (self.progress is None and "--progress jsonl" in typed)

    @property
    def shows_traceback(self) -> bool:
        """Whether an internal error shows its traceback; known before parsing too."""
        return self.traceback or "--traceback" in self.args

    def color(self, stream: object) -> bool:
        """Whether a stream takes colour: a terminal, and nobody said no."""
        return is_terminal(stream) and not (
            self.no_color or "--no-color" in self.args or os.environ.get("NO_COLOR")
        )

    def note(self, text: str) -> None:
        """Say something useful on stderr, unless quiet."""
        if not self.quiet:
            self._say("note", text)

    def detail(self, text: str) -> None:
        """Say something on stderr that only `-v` shows."""
        if self.verbose and not self.quiet:
            self._say("note", text)

    def warn(self, text: str) -> None:
        """Say something on stderr that even `-q` must not hide."""
        self._say("warning", text)

    def _say(self, event: str, text: str) -> None:
        click.echo(
            visible_json({"event": event, "text": text}) if self.says_json else visible(text), err=True
        )

    def data(self, text: str) -> None:
        """One line of data on stdout."""
        click.echo(visible(text))

    def command(self, *, without: frozenset[str] = frozenset()) -> str:
        """This call as typed, less some flags, to be pasted into a shell."""
        return visible(shlex.join(["byrote", *(a for a in self.args if a not in without)]))

    def error(self, message: str, help: str = "", code: int | None = None) -> None:
        """Print one error: two lines, or an object where data was requested as JSON."""
        if self.errors_as_json:
            facts = {"error": message, "help": help} | ({} if code is None else {"exit": code})
            facts = {"event": "error", **facts} if self.says_json else facts
            click.echo(visible_json(facts), err=True)
            return
        color = self.color(sys.stderr)
        for word, text, hue in (("error", message, "red"), ("help", help, "cyan")):
            if text:
                label = click.style(f"{word}:", fg=hue, bold=True) if color else f"{word}:"
                click.echo(f"{label} {visible(text)}", err=True, color=color)


def is_terminal(stream: object = None) -> bool:
    """Whether stdout (or the stream given) is a terminal."""
    stream = sys.stdout if stream is None else stream
    return bool(getattr(stream, "isatty", lambda: False)())


def guarded(call: Callable[[], Any], session: Session) -> int:
    """Run a call and return its exit code, whatever it raises.

    Args:
        call: returns an exit code, or None for 0.
        session: says how errors are shown.
    """
    try:
        code = call()
        return code if isinstance(code, int) else Exit.DONE
    except ByroteError as error:
        code = Exit.NOTHING if isinstance(error, NothingFoundError) else Exit.USAGE
        message, help = error.message, error.help
    except click.ClickException as error:
        code, (message, help) = Exit.USAGE, _usage(error)
    except (KeyboardInterrupt, click.Abort):
        code, message, help = Exit.INTERRUPTED, "interrupted", ""
    except MemoryError:
        code, message, help = Exit.INTERNAL, "out of memory", "`byrote doctor` shows how much there is"
    except Exception as error:
        if session.shows_traceback and session.says_json:
            session.warn(traceback.format_exc())
        elif session.shows_traceback:
            for line in traceback.format_exc().splitlines():
                click.echo(visible(line), err=True)
        if isinstance(error, OSError) and error.strerror is not None:
            where = f": {error.filename}" if error.filename else ""
            code, message = Exit.USAGE, f"{error.strerror.lower()}{where}"
            help = "check the path, its permissions and the free space (`byrote doctor`)"
        else:
            code, (message, help) = Exit.INTERNAL, _internal(session, error)
    session.error(message, help, code)
    return code


def _usage(error: click.ClickException) -> tuple[str, str]:
    """click's message and our kind of help line."""
    message = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    message = " ".join(message.split()).rstrip(".")
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "byrote"
    near = next(iter(getattr(error, "possibilities", None) or ()), "")
    if isinstance(error, click.NoSuchOption) and error.ctx:
        known = [word for one in error.ctx.command.params for word in one.opts if word.startswith("--")]
        near = next((word for word in known if word.startswith(error.option_name)), near)
    if isinstance(error, click.BadParameter) and (
        wrong := re.search(r"'([^']+)' (?:is not one of|does not exist)", message)
    ):
        near = nearest(wrong[1], _choices(error, Path(wrong[1])))
    suggestion = f"did you mean {near}? " if near else ""
    return mid_sentence(message), f"{suggestion}`{where} -h` lists the options"


def _choices(error: click.BadParameter, path: Path) -> list[str]:
    """What could have been given instead: one of some words, or what lies beside a path that is not there."""
    if error.param is not None and isinstance(error.param.type, click.Choice):
        return [str(choice) for choice in error.param.type.choices]
    try:
        return [str(path.parent / one.name) for one in path.parent.iterdir()]
    except OSError:
        return []


def _internal(session: Session, error: Exception) -> tuple[str, str]:
    """What an error nobody foresaw is called, and where its traceback was saved, if it was not shown."""
    first = str(error).strip().splitlines()[:1]
    message = f"internal error: {type(error).__name__}{': ' + first[0] if first else ''}"
    if session.shows_traceback:
        return message, ""
    try:
        handle, name = tempfile.mkstemp(prefix="byrote-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{session.command()}\n\n{traceback.format_exc()}")
    except OSError:
        return message, "run it again with --traceback"
    return message, f"the traceback is in {name}; please report it"
