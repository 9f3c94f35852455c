"""Errors shown to users: what was requested, what was found, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ByroteError(ValueError):
    """An expected problem, printed as `error:` and `help:` lines, never as a traceback.

    Args:
        message: what was requested and what was found, with the real values.
        help: what to do next.
    """

    def __init__(self, message: str, *, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return f"{self.message}. {self.help}" if self.help else self.message


class CheckpointError(ByroteError):
    """A path, file or step that cannot be read as the checkpoint it was requested as."""


class NothingFoundError(ByroteError):
    """The path is fine and holds nothing of what was requested; exit code 4 of the command line."""


class PlaceError(ByroteError):
    """What cannot be done on this machine at this moment, such as on a full disk, and may be done on another, or later."""


class PluginError(ByroteError):
    """A part of a plugin that violates the contract of byrote's own parts; it stops the command."""


def half_written(what: str) -> str:
    """What to say of a checkpoint whose writing or copying was not finished, from what is missing of it."""
    return f"half-written: {what}"


def did_you_mean(name: object, choices: Iterable[str]) -> str:
    """A help line for an unknown name: the nearest valid one, or all of them when nothing is near."""
    names = sorted(choices)
    near = nearest(name, names, alike=0.5)
    return f"did you mean {near!r}?" if near else "choose from: " + ", ".join(names)


def nearest(name: object, choices: Iterable[str], *, alike: float = 0.6) -> str:
    """The choice that is most like a name, "" where none is alike enough.

    Args:
        name: what was given.
        choices: what there is.
        alike: of 1, at least how alike.
    """
    return next(iter(difflib.get_close_matches(str(name), list(choices), n=1, cutoff=alike)), "")
