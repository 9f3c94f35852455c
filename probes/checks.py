"""One line of a self-test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was expected, what was found, whether that passes.

    Attributes:
        name: what was checked.
        expected: the nominal level or the planted answer.
        found: what was measured.
        passed: whether it agrees.
        n: simulations, or models and heads tried; 0 where one measurement decides.
    """

    name: str
    expected: str
    found: str
    passed: bool
    n: int = 0
