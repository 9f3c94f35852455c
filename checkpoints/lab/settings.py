"""Settings of what the lab has by name, sources and parts of arms: read from tables and words of which nothing is trusted. No numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from byrote.checkpoints.errors import ByroteError, did_you_mean

_TYPED: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda word: {"true": True, "false": False}[word],
}
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}

T = TypeVar("T", bound="Configured")


class Configured:
    """What has a name and, as the fields of a frozen dataclass, settings.

    Attributes:
        what: "source" or "arm", for messages.
        name: in its registry and in manifests.
    """

    what: ClassVar[str]
    name: ClassVar[str]

    @classmethod
    def settings(cls) -> dict[str, str]:
        """Names of the settings, and what type each has."""
        return {f.name: getattr(f.type, "__name__", str(f.type)) for f in fields(cls)}  # type: ignore[arg-type]

    def values(self) -> dict[str, Any]:
        """Its settings by name: plain JSON values."""
        return {name: getattr(self, name) for name in self.settings()}

    @classmethod
    def from_settings(cls: type[T], settings: Mapping[str, Any]) -> T:
        """What has these settings, of which nothing is trusted; what is left out has its default.

        Raises:
            ByroteError: a name that is no setting, a value of another type, or values that do not go together.
        """
        types = cls.settings()
        for name, value in settings.items():
            if name not in types:
                raise ByroteError(
                    f"the {cls.what} {cls.name} has no setting {str(name)[:40]!r}",
                    help=did_you_mean(str(name)[:40], types),
                )
            if not _is_of(value, types[name]):
                raise ByroteError(
                    f"{name} of the {cls.what} {cls.name} is {str(value)[:40]!r}, which is not of type {types[name]}",
                    help=f"give a value of type {types[name]}",
                )
        return cls(**settings)

    @classmethod
    def parsed(cls, words: Iterable[str]) -> dict[str, Any]:
        """Settings as they are typed, each NAME=VALUE, by the types they have.

        Raises:
            ByroteError: a word without a value, a name that is no setting, or a value that is none of its type.
        """
        types, found = cls.settings(), {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise ByroteError(f"{word!r} gives a setting without a value", help="write NAME=VALUE")
            try:
                found[name] = _TYPED.get(types.get(name, ""), str)(value)
            except (ValueError, KeyError):
                raise ByroteError(
                    f"{name} of the {cls.what} {cls.name} is {value!r}, which is not of type {types[name]}",
                    help=f"give a value of type {types[name]}",
                ) from None
        return found

    def require(self, holds: bool, setting: str, wanted: str) -> None:  # noqa: FBT001
        """Refuse a setting by its name.

        Raises:
            ByroteError: it does not hold.
        """
        if not holds:
            raise ByroteError(
                f"{setting} of the {self.what} {self.name} is {getattr(self, setting)!r}",
                help=f"use {wanted}",
            )


def _is_of(value: Any, type_name: str) -> bool:
    """Whether a value is of a field's type; True is no number, and no number is infinite."""
    finite = not isinstance(value, float) or math.isfinite(value)
    return type(value) in _KINDS.get(type_name, ()) and finite
