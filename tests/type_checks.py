"""The type checks of `--jaxtyping-packages`, each made once.

jaxtyping looks at every argument twice, in functions made for the purpose, and opens a scope for the names of axes
whatever a function takes, after it bound the arguments to its signature. Here beartype looks once, at arguments, result and
fields, and the scope is opened where an annotation holds an array: elsewhere there are no axes to compare.

While a module is imported, jaxtyping names its bytecode otherwise, and that of every library imported meanwhile too:
thousands of modules would be compiled anew. Here only what it decorates is named so.

A function whose name begins with an underscore and that has no arrays is not decorated: mypy sees all of its callers, and
it took a third of the time. `CHECK_ALL=1` (`make test-all`) decorates them too.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterable
from functools import partial, wraps
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, get_args, get_type_hints
from unittest.mock import patch

import jaxtyping
from beartype import BeartypeConf
from jaxtyping import _import_hook
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

with_axes = jaxtyping.jaxtyped  # as it came
# A whole number is a float, as type checkers have it (PEP 484); the error is a TypeError, as a wrong call is.
_ALL = bool(os.environ.get("CHECK_ALL"))
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
    if "<locals>" not in fn.__qualname__:
        return _decorated(fn, typechecker)
    if fn.__code__ not in _MADE:
        empty = tuple(CellType() for _ in fn.__code__.co_freevars)  # nothing it closes over stays in memory
        _MADE[fn.__code__] = _decorated(_copy(fn, closure=empty), typechecker)
    made = _around(_MADE[fn.__code__], fn)
    return _decorated(fn, typechecker) if made is None else made


_MADE: dict[CodeType, Any] = {}
"""What was made of a function inside another one, which is a new function at every call of that other one, by its code."""


def _decorated(fn: FunctionType, typechecker: Any) -> Any:
    hints = _hints(fn)
    if not _ALL and _is_private(fn.__qualname__) and not _holds_array(hints.values()):
        return fn
    generates = inspect.isgeneratorfunction(fn)  # what it yields is never looked at
    if not _holds_array(hint for name, hint in hints.items() if not (generates and name == "return")):
        return typechecker(_copy(fn, annotations=hints), conf=_AS_JAXTYPING)
    if generates:
        return with_axes(fn, typechecker=typechecker)
    return _scoped(typechecker(_copy(fn, annotations=hints), conf=_AS_JAXTYPING))


def _scoped(fn: Any) -> Any:
    """A checked function in a scope of its own for the names of axes.

    jaxtyping also binds the arguments of every call to the signature, for axes such as "{n}" to read them; there are none
    here, and one that was written would find no `n`.
    """

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        axes = push_shape_memo({})
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            if not getattr(error, "__notes__", ()) and (said := shape_str(axes)):
                error.add_note(f"in a function with axes: {said}")
            raise
        finally:
            pop_shape_memo()

    return call


def _around(made: Any, fn: FunctionType) -> Any:
    """What was made of a function, around another one of the same code; None where it is of no form that is known here."""
    if made.__code__ is fn.__code__:  # nothing to look at
        return fn
    if "__beartype_func" in (made.__kwdefaults__ or {}):
        again = _copy(made)
        again.__kwdefaults__ = made.__kwdefaults__ | {
            "__beartype_func": _copy(fn, annotations=made.__annotations__)
        }
        return again
    if made.__code__.co_freevars[:1] == ("fn",):  # a scope of axes, jaxtyping's or ours
        inner, *rest = made.__closure__
        again = _around(inner.cell_contents, fn)
        return None if again is None else _copy(made, closure=(CellType(again), *rest))
    return None


def _is_private(name: str) -> bool:
    """Whether a function, or what it is defined in, is no other module's: `_rows`, `_Unit.of`, `_rows.<locals>.one`."""
    return any(part[:1] == "_" and part[:2] != "__" for part in name.split("."))


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


def _copy(
    fn: FunctionType,
    *,
    annotations: dict[str, Any] | None = None,
    closure: tuple[CellType, ...] | None = None,
) -> FunctionType:
    """The same function, with other annotations or closed over something else."""
    cells = fn.__closure__ if closure is None else closure
    twin = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, cells)
    twin.__kwdefaults__, twin.__qualname__, twin.__doc__ = fn.__kwdefaults__, fn.__qualname__, fn.__doc__
    twin.__module__ = fn.__module__
    twin.__annotations__ = fn.__annotations__ if annotations is None else annotations
    twin.__dict__.update(fn.__dict__)
    return twin
