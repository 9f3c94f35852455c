"""A setting of a configuration, documented where its field is defined."""

from __future__ import annotations

from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError

MAX_SEED = 1 << 53  # of a seed that torch, numpy and JSON all hold exactly


def shown(help: str, **typed: Any) -> dict[str, Any]:
    """Metadata of a dataclass's field: what it means, and how it is typed.

    Args:
        help: one or two sentences; the command line shows them.
        typed: `names` beside its long one, `called` (its long name, where that is not the field's), `metavar`,
            `multiple`, `choices`, `least` and `most` (of a whole number), `path` (what has to be true of a path), `type` and `default`
            (where they are not the field's).
    """
    return {"help": help, **typed}


def path_of(value: object, name: str) -> Path:
    """A path that a caller gave as the argument `name`.

    Raises:
        ByroteError: it is something else.
    """
    if isinstance(value, str | PathLike):
        return Path(value)
    raise ByroteError(f"{name}={value!r:.80} is not a path", help="give a text or a pathlib.Path")


def is_whole(value: object) -> bool:
    """Whether what was given is a whole number, Python's or numpy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)
