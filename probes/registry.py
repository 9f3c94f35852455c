"""Every probe's description, by name: what a reader of results must know, without torch.

A probe of ours is one file in one of `FOLDERS`; what it says of itself in `@probe(...)` is read from its text, so that
importing this module imports no probe and no torch. Adding one is adding a file: there is no list to enter it in.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, PluginError, did_you_mean
from byrote.probes.spec import Plugin, Probe, ProbeInfo, describe
from byrote.probes.stimuli import add_stimulus, kinds
from byrote.probes.stored_probes import MAX_PROBES, from_json

ENTRY_POINTS = "byrote.probes"
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


def add(probe: Probe, plugin: Plugin, *, default: bool | None = None) -> ProbeInfo:
    """Make a plugin's probe known by its name, in place of an earlier one of that name.

    Args:
        probe: the plugin's.
        plugin: where it came from.
        default: whether it is measured without being asked for by name; None leaves that to the probe.

    Raises:
        PluginError: byrote has a probe of its own by that name, or it shows a stimulus that is not known.
    """
    info = replace(probe.info, plugin=plugin, computation=probe)
    if default is not None:
        info = replace(info, default=default)
    if info.name in OURS:
        raise PluginError(
            f"{plugin.name} has a probe called {info.name!r}, like one of byrote's own",
            help="give its function another name",
        )
    if info.kind == "verdict":
        raise PluginError(
            f"the probe {info.name} needs other probes, which only byrote's own can",
            help="compute it from the results: results.samples(step)",
        )
    for stimulus in probe.stimuli:
        add_stimulus(stimulus)
    probe.info = info
    _put(info)
    return info


def remember(stored: Any) -> None:
    """Make the probes of plugins that a results folder describes known, so that their numbers can be shown.

    They cannot be measured; byrote's own, and plugins that are loaded, stand before them.

    Args:
        stored: `plugins` of run.json; untrusted.
    """
    for data in stored[:MAX_PROBES] if isinstance(stored, list) else ():
        info = from_json(data)
        if info is not None and (info.name not in REGISTRY or not REGISTRY[info.name].measurable):
            _put(info)


def load_installed(name: str | None = None) -> list[str]:
    """Load the probes that installed packages offer by the entry-point group `byrote.probes`.

    Args:
        name: of one of them; None loads all.

    Returns:
        Why some could not be loaded.
    """
    problems = []
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if name not in (None, entry.name) or (entry.name in REGISTRY and REGISTRY[entry.name].measurable):
            continue
        package, version = (entry.dist.name, entry.dist.version) if entry.dist else (entry.module, "")
        try:
            found = entry.load()
            if not isinstance(found, Probe) or found.info.name != entry.name:
                raise PluginError(f"{entry.value} is not a probe called {entry.name}")
            source = inspect.getsource(inspect.getmodule(found.update) or found.update)
            digest = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
            add(found, Plugin(package, version, digest), default=False)
        except Exception as error:  # whatever a package may raise
            problems.append(f"the probe {entry.name} of {package} cannot be loaded ({error})")
    return problems


def _put(info: ProbeInfo) -> None:
    known = _in_order((*(i for i in REGISTRY.values() if i.name != info.name), info))
    REGISTRY.clear()
    REGISTRY.update(known)


def lookup(name: str) -> ProbeInfo:
    """The description of one probe.

    Raises:
        ByroteError: no such probe; the message names the nearest.
    """
    problems = [] if name in REGISTRY and REGISTRY[name].measurable else load_installed(name)
    if problems:
        raise PluginError(problems[0])
    if name not in REGISTRY:
        raise ByroteError(f"there is no probe {name!r}", help=did_you_mean(name, REGISTRY))
    return REGISTRY[name]


def resolve(names: Iterable[str] | None) -> tuple[ProbeInfo, ...]:
    """The probes asked for and those they need, in catalogue order.

    Args:
        names: probe names, "default" for those measured without asking, "all" for every one; None is "default".

    Raises:
        ByroteError: no such probe; the message names the nearest.
        PluginError: a plugin's probe is shown a stimulus that does not exist.
    """
    wanted: set[str] = set()
    for name in names or ("default",):
        if name in ("default", "all"):
            wanted |= {i.name for i in REGISTRY.values() if i.measurable and (i.default or name == "all")}
        else:
            wanted.add(_measurable(name).name)
    for name in tuple(wanted):
        wanted |= set(REGISTRY[name].needs)
        for kind in REGISTRY[name].stimuli:
            if kind not in kinds() and REGISTRY[name].measurable:
                raise PluginError(
                    f"the probe {name} is shown {kind!r}, which is no stimulus",
                    help=did_you_mean(kind, kinds()),
                )
    return tuple(info for info in REGISTRY.values() if info.name in wanted)


def _measurable(name: str) -> ProbeInfo:
    info = lookup(name)
    if not info.measurable:
        info.implementation()  # says which plugin is lacking
    return info


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
