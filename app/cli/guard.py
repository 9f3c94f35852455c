"""Every exception becomes an exit code and two lines on stderr: what happened, and what to do."""

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
from byrote.cli import exits
from byrote.cli.session import Session
from byrote.probes.wording import visible


def guarded(call: Callable[[], Any], session: Session) -> int:
    """Run a call and return its exit code, whatever it raises.

    Args:
        call: returns an exit code, or None for 0.
        session: says how errors are shown.
    """
    try:
        code = call()
        return code if isinstance(code, int) else exits.DONE
    except ByroteError as error:
        code = exits.NOTHING if isinstance(error, exits.NothingFoundError) else exits.USAGE
        return _fail(session, error.message, error.help, code)
    except click.ClickException as error:
        return _fail(session, *_usage(error), exits.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return _fail(session, "interrupted", "", exits.INTERRUPTED)
    except OSError as error:
        return _os_error(session, error)
    except MemoryError:
        return _fail(session, "out of memory", "`byrote doctor` shows how much there is", exits.INTERNAL)
    except Exception as error:
        return _internal(session, error)


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


def _fail(session: Session, message: str, help: str, code: int) -> int:
    report(session, message, help, code)
    return code


def _usage(error: click.ClickException) -> tuple[str, str]:
    """click's message and our kind of help line."""
    message = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    message = " ".join(message.split()).rstrip(".")
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "byrote"
    near = getattr(error, "possibilities", None)
    suggestion = f"did you mean {near[0]}? " if near else ""
    return message[:1].lower() + message[1:], f"{suggestion}`{where} -h` lists the options"


def _os_error(session: Session, error: OSError) -> int:
    if error.strerror is None:
        return _internal(session, error)
    where = f": {error.filename}" if error.filename else ""
    if session.wants_traceback:
        traceback.print_exc()
    return _fail(
        session,
        f"{error.strerror.lower()}{where}",
        "check the path, its permissions and the free space (`byrote doctor`)",
        exits.USAGE,
    )


def _internal(session: Session, error: Exception) -> int:
    first = str(error).strip().splitlines()[:1]
    message = f"internal error: {type(error).__name__}{': ' + first[0] if first else ''}"
    if session.wants_traceback:
        traceback.print_exc()
        return _fail(session, message, "", exits.INTERNAL)
    saved = _save_traceback(session)
    help = f"the traceback is in {saved}; please report it" if saved else "run it again with --traceback"
    return _fail(session, message, help, exits.INTERNAL)


def _save_traceback(session: Session) -> Path | None:
    try:
        handle, name = tempfile.mkstemp(prefix="byrote-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{session.command()}\n\n{traceback.format_exc()}")
    except OSError:
        return None
    return Path(name)
