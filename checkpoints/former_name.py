"""The former name of version 0.1, rote: recognising files that it wrote and settings that it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME, FORMER = "byrote", "rote"


def same_format(found: object, name: str) -> bool:
    """Whether a file names the format `name`, or what 0.1 called it (``rote-lab`` for ``byrote-lab``)."""
    return found in (name, name.removeprefix("by"))


def stored_under(metadata: Mapping[Any, Any] | None, key: Any, default: Any) -> Any:
    """A value of a file's metadata under its key (str or bytes), or under the key 0.1 wrote it with."""
    found = metadata or {}
    former = key.removeprefix(b"by" if isinstance(key, bytes) else "by")
    return found.get(key, found.get(former, default))
