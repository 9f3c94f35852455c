"""Exit codes, the same for every verb, and how every exception becomes one: what happened, and what to do, on stderr."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.cli.session import Session
from byrote.probes.wording import visible

DONE = 0
CHECK_FAILED = 1
USAGE = 2
GAPS = 3
NOTHING = 4
INTERNAL = 70
INTERRUPTED = 130

MEANING = {
    DONE: "everything asked was done",
    CHECK_FAILED: "done, and a check failed (`--expect`, `lint`, `selftest`): a finding, not a fault",
    USAGE: "usage or configuration error; for `doctor`, something needed is missing",
    GAPS: "done with gaps: some checkpoints could not be measured; results are written and marked partial "
    "(`--allow-partial` turns it to 0)",
    NOTHING: "nothing to do: no checkpoints found at that path",
    INTERNAL: "internal error: one line is printed, and where the traceback was saved",
    INTERRUPTED: "interrupted by Ctrl-C: finished work is kept",
}


class NothingFoundError(ByroteError):
    """The path is fine and holds no checkpoint: exit code 4."""


def guarded(call: Callable[[], Any], session: Session) -> int:
    """Run a call and return its exit code, whatever it raises.

    Args:
        call: returns an exit code, or None for 0.
        session: says how errors are shown.
    """
    try:
        code = call()
        return code if isinstance(code, int) else DONE
    except ByroteError as error:
        code = NOTHING if isinstance(error, NothingFoundError) else USAGE
        message, help = error.message, error.help
    except click.ClickException as error:
        code, (message, help) = USAGE, _usage(error)
    except (KeyboardInterrupt, click.Abort):
        code, message, help = INTERRUPTED, "interrupted", ""
    except MemoryError:
        code, message, help = INTERNAL, "out of memory", "`byrote doctor` shows how much there is"
    except Exception as error:
        if session.wants_traceback:
            traceback.print_exc()
        if isinstance(error, OSError) and error.strerror is not None:
            where = f": {error.filename}" if error.filename else ""
            code, message = USAGE, f"{error.strerror.lower()}{where}"
            help = "check the path, its permissions and the free space (`byrote doctor`)"
        else:
            code, (message, help) = INTERNAL, _internal(session, error)
    report(session, message, help, code)
    return code


def report(session: Session, message: str, help: str = "", code: int | None = None) -> None:
    """Print one error: two lines, or an object where data was asked for as JSON."""
    if session.errors_as_json:
        facts = {"error": message, "help": help} | ({} if code is None else {"exit": code})
        click.echo(json.dumps(facts), err=True)
        return
    for word, text, color in (("error", message, "red"), ("help", help, "cyan")):
        if text:
            label = click.style(f"{word}:", fg=color, bold=True) if session.color(sys.stderr) else f"{word}:"
            click.echo(f"{label} {visible(text)}", err=True, color=session.color(sys.stderr))


def _usage(error: click.ClickException) -> tuple[str, str]:
    """click's message and our kind of help line."""
    message = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    message = " ".join(message.split()).rstrip(".")
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "byrote"
    near = getattr(error, "possibilities", None)
    suggestion = f"did you mean {near[0]}? " if near else ""
    return message[:1].lower() + message[1:], f"{suggestion}`{where} -h` lists the options"


def _internal(session: Session, error: Exception) -> tuple[str, str]:
    """What an error nobody foresaw is called, and where its traceback was saved, if it was not shown."""
    first = str(error).strip().splitlines()[:1]
    message = f"internal error: {type(error).__name__}{': ' + first[0] if first else ''}"
    if session.wants_traceback:
        return message, ""
    try:
        handle, name = tempfile.mkstemp(prefix="byrote-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{session.command()}\n\n{traceback.format_exc()}")
    except OSError:
        return message, "run it again with --traceback"
    return message, f"the traceback is in {Path(name)}; please report it"
