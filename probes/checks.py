"""Checks: one line of a self-test, and how a simulated rate is judged. No torch.

A simulation of n tries is itself uncertain: a check fails when the 99% interval of what it measured lies outside what
was requested (Clopper and Pearson 1934; for a mean of shares, the normal interval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from byrote.probes.few import exact_ends

COVERAGE = (0.93, 0.97)
ALARM = 0.05
_Z = 2.576  # normal, 99% two-sided


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


def covers(name: str, covered: Sequence[bool]) -> Check:
    """A coverage that must lie within 93 to 97%."""
    lo, hi = exact(sum(covered), len(covered))
    passed = lo <= COVERAGE[1] and hi >= COVERAGE[0]
    return Check(name, f"{COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}", _rate(covered), passed, len(covered))


def holds(name: str, covered: Sequence[bool]) -> Check:
    """A coverage that must be at least 93%: an interval that the spacing of checkpoints widens may cover more."""
    passed = bool(covered) and exact(sum(covered), len(covered))[1] >= COVERAGE[0]
    return Check(name, f"at least {COVERAGE[0]:.0%}", _rate(covered), passed, len(covered))


def seldom(name: str, alarms: Sequence[bool]) -> Check:
    """A rate of false alarms that must be at most 5%."""
    passed = bool(alarms) and exact(sum(alarms), len(alarms))[0] <= ALARM
    return Check(name, f"at most {ALARM:.0%}", _rate(alarms), passed, len(alarms))


def low_share(name: str, shares: Sequence[float]) -> Check:
    """A mean share, such as that of false discoveries, that must be at most 5%."""
    mean, error = float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares)))
    return Check(name, f"at most {ALARM:.0%}", f"{mean:.1%}", mean - _Z * error <= ALARM, len(shares))


def trials(trial: Callable[[np.random.Generator], Any], tries: int, seed: Sequence[int]) -> list[Any]:
    """Outcomes of the tries that have one.

    Args:
        trial: of one simulated data set; None where there is nothing to count.
        tries: how many.
        seed: each try draws from a generator of its own.
    """
    found = (trial(np.random.default_rng([*seed, i])) for i in range(tries))
    return [outcome for outcome in found if outcome is not None]


def exact(count: int, tries: int, *, level: float = 0.99) -> tuple[float, float]:
    """Interval of a rate (Clopper and Pearson)."""
    lo, hi = exact_ends(np.array(count), np.array(tries), level=level)
    return float(lo), float(hi)


def _rate(outcomes: Sequence[bool]) -> str:
    return f"{np.mean(outcomes):.1%}" if len(outcomes) else "nothing found"
