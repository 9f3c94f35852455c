"""Where the lab's sequences come from. A source is a file here, or an entry point of the group `byrote.sources`. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from byrote.checkpoints.entry_points import additions
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.sources.contract import Source
from byrote.checkpoints.lab.sources.graded import Graded
from byrote.checkpoints.lab.sources.markov import Markov
from byrote.checkpoints.lab.sources.names import Names
from byrote.checkpoints.lab.sources.text import Text
from byrote.checkpoints.lab.sources.tiled_blocks import SourceConfig
from byrote.checkpoints.lab.sources.trigger_bigrams import TriggerBigrams

__all__ = [
    "SOURCES",
    "Graded",
    "Markov",
    "Names",
    "Source",
    "SourceConfig",
    "Text",
    "TriggerBigrams",
    "source_kind",
    "source_named",
    "source_of",
    "sources",
]

GROUP = "byrote.sources"
SOURCES: Mapping[str, type[Source]] = {
    source.name: source for source in (SourceConfig, Names, Graded, Markov, TriggerBigrams, Text)
}


@lru_cache(maxsize=1)
def sources() -> Mapping[str, type[Source]]:
    """All sources by name: byrote's own, then those of installed packages.

    Raises:
        ByroteError: an installed package offers something else than a source, or one under a name that is taken.
    """
    added = additions(
        GROUP,
        SOURCES,
        is_one=lambda found: isinstance(found, type) and issubclass(found, Source),
        words=("source", "a source"),
    )
    return {**SOURCES, **added}


def source_kind(name: str) -> type[Source]:
    """A kind of source by its name.

    Raises:
        ByroteError: no such source.
    """
    known = sources()
    if name not in known:
        raise ByroteError(f"the lab has no source {name!r}", help=did_you_mean(name, known))
    return known[name]


def source_named(name: str, settings: Mapping[str, Any] | None = None) -> Source:
    """A source by its name, with these settings and the defaults of the others.

    Raises:
        ByroteError: no such source or setting, or values that make no source.
    """
    return source_kind(name).from_settings(settings or {})


def source_of(manifest: Mapping[str, Any]) -> Source | None:
    """The source that a lab series' manifest names; None where it names none that this version draws without a file."""
    data = manifest.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("source"), str):
        return None
    kind = sources().get(data["source"])
    if kind is None or not kind.redrawn:
        return None
    names = kind.settings()
    if not set(names) <= data.keys():
        return None
    try:
        return kind.from_settings({name: data[name] for name in names})
    except (ByroteError, TypeError, ValueError, OverflowError):
        return None
