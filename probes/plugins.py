"""Probes and stimuli that are not byrote's own: from a file named on the command line, or an object passed in Python.

Nothing else is ever loaded: no file that happens to lie in a checkpoint, a results folder or the working folder. Packages
offer theirs by the entry-point group `byrote.probes`; see `byrote.probes.registry`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from byrote.checkpoints.errors import PluginError
from byrote.probes import registry
from byrote.probes.spec import Plugin, Probe, ProbeInfo
from byrote.probes.stimuli import PluginStimulus, add_stimulus


def load_file(path: Path) -> tuple[ProbeInfo, ...]:
    """Run a Python file and make its probes and stimuli known by name.

    Args:
        path: named by the user.

    Raises:
        PluginError: it cannot be read or run, or holds neither a probe nor a stimulus; or a name is byrote's own.
    """
    spec = importlib.util.spec_from_file_location(f"byrote_plugin_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise PluginError(f"there is no plugin at {path}", help="give the path of a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look there
    try:
        spec.loader.exec_module(module)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(
            f"the plugin {path} cannot be run ({type(error).__name__}: {error})",
            help="does `python FILE` run it?",
        ) from error
    found = [value for value in vars(module).values() if _made_in(module, value)]
    if not found:
        raise PluginError(
            f"the plugin {path} holds no probe and no stimulus",
            help="decorate a function with @byrote.probe(...) or @byrote.stimulus",
        )
    plugin = Plugin(path.name, "", _digest(path.read_bytes()))
    return tuple(info for info in (_known(value, plugin) for value in found) if info is not None)


def use(probe: Probe) -> ProbeInfo:
    """Make a probe that was passed as an object known by its name; one of byrote's own is known already.

    Raises:
        PluginError: its name is byrote's own.
    """
    if probe.info.module:
        return probe.info
    return registry.add(probe, _origin(probe), default=False)


def use_stimulus(stimulus: PluginStimulus) -> str:
    """Make a stimulus that was passed as an object known by its name.

    Raises:
        PluginError: its name is byrote's own.
    """
    add_stimulus(stimulus)
    return stimulus.kind


def _made_in(module: ModuleType, value: Any) -> bool:
    """Whether a probe or stimulus is the module's own, and not one it imports."""
    if isinstance(value, Probe):
        return value.update.__module__ == module.__name__
    return isinstance(value, PluginStimulus) and value.function.__module__ == module.__name__


def _known(value: Probe | PluginStimulus, plugin: Plugin) -> ProbeInfo | None:
    if isinstance(value, Probe):
        return registry.add(value, plugin)
    add_stimulus(value)
    return None


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
