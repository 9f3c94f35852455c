"""Every probe's name, unit, range, direction, source and needs: what a reader of results must know, without torch.

The entries live in `byrote.probes.catalogue`; the computation lives in one file per probe, which binds itself to its entry
with `@probe("name")`. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.catalogue import CATALOGUE
from byrote.probes.info import ProbeInfo

F = TypeVar("F", bound=Callable[..., Any])


REGISTRY: Mapping[str, ProbeInfo] = {info.name: info for info in CATALOGUE}


def lookup(name: str) -> ProbeInfo:
    """The entry of one probe.

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
            wanted |= {info.name for info in REGISTRY.values() if info.default or name == "all"}
        else:
            wanted.add(lookup(name).name)
    for name in tuple(wanted):
        wanted |= set(REGISTRY[name].needs)
    return tuple(info for info in REGISTRY.values() if info.name in wanted)


def probe(name: str) -> Callable[[F], F]:
    """Bind a function to its catalogue entry; its argument names say which sites it needs."""
    info = lookup(name)

    def bind(function: F) -> F:
        assert function.__name__ == name, f"{function.__name__} must be called {name}"
        function.info = info  # type: ignore[attr-defined]
        return function

    return bind
