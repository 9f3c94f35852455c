"""Every probe's description, by name: what a reader of results must know, without torch.

A probe of ours is one file in one of `FOLDERS`; what it says of itself in `@probe(...)` is read from its text, so that
importing this module imports no probe and no torch. Adding one is adding a file: there is no list to enter it in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.spec import ProbeInfo, describe

FOLDERS = ("heads", "model", "circuits", "memory")
_HEADER = re.compile(r"^@probe\(\n.*?^def \w+\(.*?:$", re.MULTILINE | re.DOTALL)


def read_description(file: Path, *, module: str) -> ProbeInfo | None:
    """What a file of ours says of its probe; None for one that holds none. The file is not run.

    Args:
        file: its source.
        module: its name.

    Raises:
        ValueError: a description that is not made of literals.
    """
    text = file.read_text(encoding="utf-8")
    header = _HEADER.search(text)
    if header is None:
        return None
    (function,) = ast.parse(f"{header[0]} ...").body
    assert isinstance(function, ast.FunctionDef)
    (decorator,) = function.decorator_list
    assert isinstance(decorator, ast.Call)
    given = {str(part.arg): ast.literal_eval(part.value) for part in decorator.keywords}
    arguments = [part.arg for part in (*function.args.args, *function.args.kwonlyargs)]
    return describe(function.name, arguments, text.split('"""')[1], module=module, **given)


def _ours() -> Iterator[ProbeInfo]:
    for folder in FOLDERS:
        for file in Path(__file__).with_name(folder).glob("*.py"):
            found = read_description(file, module=f"{__package__}.{folder}.{file.stem}")
            if found is not None:
                yield found


def _in_order(infos: Iterable[ProbeInfo]) -> dict[str, ProbeInfo]:
    return {info.name: info for info in sorted(infos, key=lambda info: (info.order, info.name))}


REGISTRY: dict[str, ProbeInfo] = _in_order(_ours())
OURS = frozenset(REGISTRY)


def add(info: ProbeInfo) -> None:
    """Make a plugin's probe known by its name, in place of an earlier one of that name.

    Raises:
        ByroteError: byrote has a probe of its own by that name.
    """
    if info.name in OURS:
        raise ByroteError(
            f"a plugin's probe is called {info.name!r}, like one of byrote's own",
            help="give its function another name",
        )
    REGISTRY[info.name] = info
    known = _in_order(REGISTRY.values())
    REGISTRY.clear()
    REGISTRY.update(known)


def lookup(name: str) -> ProbeInfo:
    """The description of one probe.

    Raises:
        ByroteError: no such probe; the message names the nearest.
    """
    if name not in REGISTRY:
        raise ByroteError(f"there is no probe {name!r}", help=did_you_mean(name, REGISTRY))
    return REGISTRY[name]


def resolve(names: Iterable[str] | None) -> tuple[ProbeInfo, ...]:
    """The probes asked for and those they need, in catalogue order.

    Args:
        names: probe names, "default" for those measured without asking, "all" for every one; None is "default".

    Raises:
        ByroteError: no such probe; the message names the nearest.
    """
    wanted: set[str] = set()
    for name in names or ("default",):
        if name in ("default", "all"):
            wanted |= {i.name for i in REGISTRY.values() if i.measurable and (i.default or name == "all")}
        else:
            wanted.add(lookup(name).name)
    for name in tuple(wanted):
        wanted |= set(REGISTRY[name].needs)
    return tuple(info for info in REGISTRY.values() if info.name in wanted)


def featured() -> tuple[str, ...]:
    """Head probes that reports, pages and notebooks show first, the first first."""
    return _ranked(lambda info: info.featured)


def followed() -> tuple[str, ...]:
    """Probes whose strongest heads a trajectory follows, in the order in which a circuit forms."""
    return _ranked(lambda info: info.followed)


def best_compared() -> tuple[str, ...]:
    """Probes of which a comparison also holds the strongest heads of either run against each other."""
    return tuple(info.name for info in REGISTRY.values() if info.best_compared)


def _ranked(place: Callable[[ProbeInfo], int]) -> tuple[str, ...]:
    return tuple(i.name for i in sorted(REGISTRY.values(), key=place) if place(i))
