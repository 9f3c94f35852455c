"""The type checks of `--jaxtyping-packages`, each made once.

jaxtyping looks at every argument twice, in functions made for the purpose, and opens a scope for the names of axes
whatever a function takes. Here beartype looks once, at arguments, result and fields, and the scope is opened where an
annotation holds an array: elsewhere there are no axes to compare.

While a module is imported, jaxtyping names its bytecode otherwise, and that of every library imported meanwhile too:
thousands of modules would be compiled anew. Here only what it decorates is named so.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, get_args, get_type_hints
from unittest.mock import patch

import jaxtyping
from beartype import BeartypeConf
from jaxtyping import _import_hook

with_axes = jaxtyping.jaxtyped  # as it came
# A whole number is a float, as type checkers have it (PEP 484); the error is a TypeError, as a wrong call is.
_AS_JAXTYPING = BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError)


def install() -> None:
    """From now on modules are decorated with `checked`; those imported before stay as they are."""
    jaxtyping.jaxtyped = checked
    _import_hook._JaxtypingLoader.exec_module = _exec_module


def _exec_module(loader: Any, module: ModuleType) -> None:
    """Find or make the module's bytecode under jaxtyping's name for it; run it, and what it imports, as ever."""
    name = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", name):
        code = loader.get_code(module.__name__)
    exec(code, module.__dict__)


def checked(fn: Any = None, *, typechecker: Any = None) -> Any:
    """What `jaxtyping.jaxtyped` makes of a function or a dataclass, for less."""
    if fn is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isclass(fn):
        own = fn.__dict__.get("__init__")
        if dataclasses.is_dataclass(fn) and inspect.isfunction(own):
            fn.__init__ = checked(own, typechecker=typechecker)
        return fn
    if not inspect.isfunction(fn):
        return with_axes(fn, typechecker=typechecker)
    hints = _hints(fn)
    if not _holds_array(hints.values()):
        return typechecker(_annotated(fn, hints), conf=_AS_JAXTYPING)
    if inspect.isgeneratorfunction(fn):
        return with_axes(fn, typechecker=typechecker)
    return with_axes(typechecker(_annotated(fn, hints), conf=_AS_JAXTYPING), typechecker=None)


def _hints(fn: FunctionType) -> dict[str, Any]:
    """Annotations as objects; Any for one that names what is not there yet, as jaxtyping has it."""
    return {name: _resolved(hint, fn.__globals__) for name, hint in fn.__annotations__.items()}


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    def holder() -> None: ...

    holder.__annotations__ = {"hint": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:  # whatever an annotation may raise, a wrong axis string included
        return Any


def _holds_array(hints: Iterable[Any]) -> bool:
    for hint in hints:
        if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
            return True
        if _holds_array(hint if isinstance(hint, list) else get_args(hint)):
            return True
    return False


def _annotated(fn: FunctionType, hints: dict[str, Any]) -> Callable[..., Any]:
    """The same function with its annotations resolved."""
    twin = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    twin.__kwdefaults__, twin.__qualname__, twin.__doc__ = fn.__kwdefaults__, fn.__qualname__, fn.__doc__
    twin.__module__, twin.__annotations__ = fn.__module__, hints
    twin.__dict__.update(fn.__dict__)
    return twin
