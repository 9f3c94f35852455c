"""Plugins of installed packages, found by entry-point group; never anything in the working folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError

_SITES = frozenset({"site-packages", "dist-packages"})


def installed(group: str) -> dict[str, Any]:
    """Everything that installed packages declare under an entry-point group, loaded, by its name.

    Packages whose metadata lie elsewhere than in a folder of installed packages are passed over: a working folder may
    hold anything, and nothing in it is run.

    Raises:
        ByroteError: two packages declare one name, or one cannot be imported.
    """
    found: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for entry in sorted(metadata.entry_points(group=group), key=lambda entry: entry.name):
        package = _package(entry)
        if package is None or owners.get(entry.name) == package:
            continue
        if entry.name in owners:
            raise ByroteError(
                f"{owners[entry.name]} and {package} both declare {entry.name!r} for {group}",
                help="uninstall one of them",
            )
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # whatever the import of a foreign package happens to raise
            raise ByroteError(
                f"{package} declares {entry.name!r} for {group}, which cannot be imported "
                f"({type(error).__name__}: {error})",
                help=f"update it, or uninstall it: pip uninstall {package}",
            ) from error
        owners[entry.name] = package
    return found


def additions(
    group: str, own: Collection[str], *, is_one: Callable[[Any], bool], words: tuple[str, str]
) -> dict[str, Any]:
    """What installed packages add to a registry of named things, by name.

    Args:
        group: entry-point group.
        own: names that are taken.
        is_one: whether a loaded object belongs into the registry; its `name` has to be that of its entry point.
        words: what an object is to be, and what byrote has under a name that is taken, such as ("source", "a source").

    Raises:
        ByroteError: a package offers something else, or a name that is taken; two declare one name; one cannot be imported.
    """
    added = installed(group)
    for name, found in added.items():
        if not is_one(found) or found.name != name or name in own:
            raise ByroteError(
                f"the entry point {name!r} of {group} is not a {words[0]} of that name, or byrote has {words[1]} of that name",
                help="update or uninstall the package that declares it",
            )
    return added


def _package(entry: metadata.EntryPoint) -> str | None:
    """The distribution that declares it; None where that is not installed."""
    if entry.dist is None:
        return None
    home = Path(str(entry.dist.locate_file(""))).resolve()
    return entry.dist.name if home.name in _SITES and home != Path.cwd() else None
