"""The registry of probes: every probe's description, by name, readable without torch.

A probe of ours is one file in one of `FOLDERS`; what it says of itself in `@probe(...)` is read from its text, so that
importing this module imports no probe and no torch. Adding one is adding a file: there is no list to enter it in.

Probes and stimuli that are not byrote's own come from a file named on the command line, an object passed in Python, or
the entry-point group `byrote.probes` of an installed package. Nothing else is ever loaded: no file that happens to lie
in a checkpoint, a results folder or the working folder.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import metadata, util
from pathlib import Path
from types import CodeType
from typing import Any

from byrote.checkpoints.errors import ByroteError, PluginError, did_you_mean
from byrote.probes.spec import Plugin, Probe, ProbeInfo, describe
from byrote.probes.stimuli import PluginStimulus, add_stimulus, kinds
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
        plugin: the package that provides it.
        default: whether it is measured without being requested by name; None leaves that to the probe.

    Raises:
        PluginError: byrote has a probe of its own by that name, or it shows a stimulus that is not known.
    """
    info = replace(probe.info, plugin=plugin, computation=probe)
    if default is not None:
        info = replace(info, default=default)
    if info.name in OURS:
        raise PluginError(
            f"{plugin.name} has a probe called {info.name!r}, the name of one of byrote's own",
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


def load_file(path: Path) -> tuple[ProbeInfo, ...]:
    """Run a Python file and make its probes and stimuli known by name.

    Args:
        path: named by the user.

    Raises:
        PluginError: it cannot be read or run, or holds neither a probe nor a stimulus; or a name is byrote's own.
    """
    spec = util.spec_from_file_location(f"byrote_plugin_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        found = f"{path} is not a Python file" if path.is_file() else f"there is no plugin at {path}"
        raise PluginError(found, help="give the path of a Python file (.py)")
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look there
    try:
        spec.loader.exec_module(module)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(
            f"the plugin {path} cannot be run ({type(error).__name__}: {error})",
            help="check that `python FILE` runs",
        ) from error
    # Not what it imports: a probe or stimulus of the file is made of a function of the file.
    made = [v for v in vars(module).values() if isinstance(v, Probe | PluginStimulus)]
    own = [v for v in made if inspect.unwrap(v).__module__ == module.__name__]
    if not own:
        raise PluginError(
            f"the plugin {path} holds no probe and no stimulus",
            help="decorate a function with @byrote.probe(...) or @byrote.stimulus",
        )
    for stimulus in own:
        if isinstance(stimulus, PluginStimulus):
            add_stimulus(stimulus)
    plugin = Plugin(path.name, "", _digest(path.read_bytes()))
    return tuple(add(value, plugin) for value in own if isinstance(value, Probe))


def use(probe: Probe) -> ProbeInfo:
    """Make a probe that was passed as an object known by its name; one of byrote's own is known already.

    Raises:
        PluginError: its name is byrote's own.
    """
    return probe.info if probe.info.module else add(probe, _origin(probe), default=False)


def register_stored(stored: Any) -> None:
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
            add(found, Plugin(package, version, _origin(found).source), default=False)
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
    """The requested probes and those they need, in catalogue order.

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
            info = lookup(name)
            if not info.measurable:
                info.implementation()  # says which plugin is lacking
            wanted.add(info.name)
    for name in tuple(wanted):
        wanted |= set(REGISTRY[name].needs)
        for kind in REGISTRY[name].stimuli:
            if kind not in kinds() and REGISTRY[name].measurable:
                raise PluginError(
                    f"the probe {name} uses the stimulus {kind!r}, which does not exist",
                    help=did_you_mean(kind, kinds()),
                )
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


def _origin(probe: Probe) -> Plugin:
    """The file a probe's module was read from; in a notebook the source of its functions."""
    module = inspect.getmodule(probe.update)
    file = getattr(module, "__file__", None)
    if file and Path(file).is_file():
        return Plugin(Path(file).name, "", _digest(Path(file).read_bytes()))
    functions = (probe.update, probe.finisher, probe.chance_level)
    return Plugin("notebook", "", _digest(*(_source(f) for f in functions if f is not None)))


def _source(function: Callable[..., Any]) -> bytes:
    try:
        return inspect.getsource(function).encode()
    except (OSError, TypeError):  # typed at a prompt
        return b"".join(_code(inspect.unwrap(function).__code__))


def _code(code: CodeType) -> Iterable[bytes]:
    yield code.co_code + repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant).encode()


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()
