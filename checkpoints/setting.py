"""A setting of a configuration, documented where its field is defined."""

from __future__ import annotations

from numbers import Integral
from typing import Any

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


def is_whole(value: object) -> bool:
    """Whether what was given is a whole number, Python's or numpy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)
