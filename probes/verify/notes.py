"""What a verification found, gathered so that the same fact in a hundred places is one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

N_PLACES = 3


@dataclass
class Notes:
    """Findings and what was looked at.

    Attributes:
        found: what -> where.
        checked: what was looked at, in words.
    """

    found: dict[str, list[str]] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)

    def add(self, what: str, *where: str) -> None:
        """A fact, and the places it is true of."""
        self.found.setdefault(what, []).extend(where)

    def lines(self) -> tuple[str, ...]:
        """One line per fact: ``units cannot be read (12): step_00000010/natural.parquet; ... and 8 more``."""
        return tuple(what + _places(where) for what, where in self.found.items())


def _places(where: list[str]) -> str:
    if len(where) < 2:
        return f": {where[0]}" if where else ""
    more = f" and {len(where) - N_PLACES:,} more" if len(where) > N_PLACES else ""
    return f" ({len(where):,}): {'; '.join(where[:N_PLACES])}{more}"


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one: files may say anything."""
    return value if isinstance(value, Mapping) else {}


def numbers(value: Any) -> set[int]:
    """The whole numbers of a list."""
    return {v for v in value if isinstance(v, int)} if isinstance(value, list) else set()


def short(value: Any) -> str:
    """A value in one line of at most 80 characters."""
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    )
    return text if len(text) <= 80 else f"{text[:40]}…{text[-36:]}"


def first_line(error: Exception) -> str:
    """What an error says first."""
    return short((str(error) or type(error).__name__).splitlines()[0])
