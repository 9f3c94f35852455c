"""Names of a package that load on first use, so that importing the package imports nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        names: name -> the module that holds it, or the module itself where it is called so.

    Returns:
        What loads a name and keeps it in the package (an AttributeError names a package that has none such), and what
        completion lists: `__all__` where the package has one, else these names.
    """

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(names[name])
        itself = names[name].endswith(f".{name}") and not hasattr(module, name)
        found = module if itself else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    def listed() -> list[str]:
        return list(vars(sys.modules[package]).get("__all__", names))

    return load, listed
