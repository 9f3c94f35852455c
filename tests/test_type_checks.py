"""Annotations are enforced in tests, and just where jaxtyping itself enforces them."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from source_trees import SOURCES, name_of
from type_checks import checked, with_axes

from byrote.checkpoints.series import Gap
from byrote.probes.statistics import bootstrap_mean
from byrote.probes.wording import sentence_case

Table = Float[np.ndarray, "n k"]


def counted(n: int, *, name: str = "x") -> str:
    return n * name if n < 9 else n


def weighed(rows: Table, weights: Float[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
    return rows @ weights if rows.shape != (2, 2) else np.zeros(5)


def of_several(parts: Sequence[Float[np.ndarray, " k"]], first: Float[np.ndarray, " k"]) -> float:
    return float(sum(part.sum() for part in parts)) + first[0]


def walked(n: int) -> Iterator[int]:
    yield from range(n)


def of_what_is_not_there(n: Nowhere, k: int) -> None:
    assert isinstance(k, int)


class Shelf:
    def __init__(self, n: int) -> None:
        self.n = n

    @property
    def size(self) -> int:
        return self.n if self.n < 9 else str(self.n)

    @classmethod
    def of(cls, n: int) -> Shelf:
        return cls(n)


def pair(decorate: Callable[[Any], Any]) -> type:
    @decorate
    @dataclass(frozen=True)
    class Pair:
        n: int
        rows: Table | None = None

    return Pair


def plain_pair(decorate: Callable[[Any], Any]) -> type:
    @decorate
    @dataclass
    class Pair:
        n: int
        names: tuple[str, ...] = ()

    return Pair


def array(*shape: int) -> np.ndarray:
    return np.ones(shape)


CASES: dict[str, tuple[Callable[[Callable], Any], bool]] = {
    "a call that fits": (lambda d: d(counted)(2, name="y"), True),
    "an argument": (lambda d: d(counted)("2"), False),
    "an argument by name": (lambda d: d(counted)(2, name=3), False),
    "a result": (lambda d: d(counted)(9), False),
    "an argument too many": (lambda d: d(counted)(1, 2), False),
    "axes that fit": (lambda d: d(weighed)(array(3, 4), array(4)), True),
    "an axis that differs": (lambda d: d(weighed)(array(3, 4), array(3)), False),
    "an axis too many": (lambda d: d(weighed)(array(3, 4, 1), array(4)), False),
    "whole numbers": (lambda d: d(weighed)(np.ones((3, 4), int), array(4)), False),
    "an axis of the result": (lambda d: d(weighed)(array(2, 2), array(2)), False),
    "arrays in a list": (lambda d: d(of_several)([array(3), array(3)], array(3)), True),
    "an axis inside a list": (lambda d: d(of_several)([array(3)], array(2)), False),
    "a generator": (lambda d: list(d(walked)(3)), True),
    "an argument of a generator": (lambda d: list(d(walked)(3.0)), False),
    "a context": (lambda d: contextmanager(d(walked))(1).__enter__(), True),
    "a name that is not there": (lambda d: d(of_what_is_not_there)(3, 4), True),
    "beside such a name": (lambda d: d(of_what_is_not_there)(3, "4"), False),
    "a property": (lambda d: d(Shelf.size.fget)(Shelf(3)), True),
    "what a property gives": (lambda d: d(Shelf.size.fget)(Shelf(9)), False),
    "a method of the class": (lambda d: d(Shelf.of.__func__)(Shelf, 3), True),
    "its argument": (lambda d: d(Shelf.of.__func__)(Shelf, "3"), False),
    "a field": (lambda d: plain_pair(d)("3"), False),
    "fields that fit": (lambda d: plain_pair(d)(3, ("a",)), True),
    "a field with an array": (lambda d: pair(d)(3, array(2, 2)), True),
    "an axis of a field": (lambda d: pair(d)(3, array(2)), False),
}


def accepts(call: Callable[[Callable], Any], decorator: Callable) -> bool:
    try:
        call(lambda fn: decorator(fn, typechecker=beartype))
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_what_is_refused_is_what_jaxtyping_refuses(name):
    call, fits = CASES[name]
    assert accepts(call, checked) == accepts(call, with_axes) == fits


@pytest.mark.parametrize(
    "call",
    [
        lambda: sentence_case(3),
        lambda: Gap(path="p", reason="r"),
        lambda: bootstrap_mean(np.ones((3, 2, 2), dtype=int)),
    ],
    ids=["a function", "a dataclass", "an array"],
)
def test_the_packages_are_checked(call):
    with pytest.raises(TypeCheckError, match=r"(?i)violates type hint"):
        call()


def _inner(n: int) -> int:
    return n


def _inner_of_arrays(row: Float[np.ndarray, " n"]) -> int:
    return len(row)


class _Inner:
    def of(self, n: int) -> int:
        return n

    def __call__(self, rows: list[Table]) -> int:
        return len(rows)


@pytest.mark.parametrize(
    ("fn", "left"), [(_inner, True), (_Inner.of, True), (_inner_of_arrays, False), (_Inner.__call__, False), (counted, False)],
)  # fmt: skip
def test_what_no_other_module_calls_is_checked_where_it_has_arrays(fn, left, monkeypatch):
    assert (checked(fn, typechecker=beartype) is fn) == left
    monkeypatch.setattr("type_checks._ALL", True)
    assert checked(fn, typechecker=beartype) is not fn


def adding(k: int) -> tuple[Callable[[Any], Any], ...]:
    """Functions that are new at every call."""

    def to_number(n: int) -> int:
        return n + k if n < 9 else str(n)

    def to_array(row: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return row + k if row[0] < 9 else np.zeros(len(row) + 1)

    def one_by_one(n: int) -> Iterator[Float[np.ndarray, " n"]]:
        yield np.full(n, k)

    return to_number, to_array, one_by_one


def test_a_function_made_anew_at_every_call_is_checked_every_time():
    made = [tuple(checked(fn, typechecker=beartype) for fn in adding(k)) for k in (1, 2, 3)]
    for k, (to_number, to_array, one_by_one) in enumerate(made, 1):
        assert to_number(3) == 3 + k and to_array(np.ones(2)).tolist() == [1 + k] * 2
        assert next(one_by_one(2)).tolist() == [k, k]
        for wrong in (
            lambda to_number=to_number: to_number("x"),
            lambda to_number=to_number: to_number(9),
            lambda to_array=to_array: to_array(np.ones((2, 2))),
            lambda to_array=to_array: to_array(np.full(2, 9.0)),
            lambda one_by_one=one_by_one: list(one_by_one("x")),
        ):
            with pytest.raises(TypeError):
                wrong()


def test_what_such_a_function_closes_over_is_not_held():
    class Model: ...

    def use(model: Model) -> Callable[[int], int]:
        def one(n: int) -> int:
            return n if model else 0

        return checked(one, typechecker=beartype)

    model = Model()
    gone = weakref.ref(model)
    assert use(model)(3) == 3
    del model
    gc.collect()
    assert gone() is None


def test_no_axis_reads_an_argument():
    """`"{n}"` would: the scopes of `type_checks` hold no arguments."""
    axes = re.compile(r"\b(Float|Int|Num|Bool|Shaped|UInt|Integer|Real|Complex)\[[\w.]+, f?\"[^\"]*\{")
    assert axes.search('x: Float[np.ndarray, "{n}"]')
    assert [name_of(file) for file in SOURCES if axes.search(file.read_text(encoding="utf-8"))] == []
