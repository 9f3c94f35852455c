"""What became of a rule: met, broken or undecided, and by what. No torch."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from byrote.probes.gate.grammar import Rule
from byrote.probes.wording import visible

Outcome = Literal["pass", "fail", "undecided"]
PASS: Outcome = "pass"
FAIL: Outcome = "fail"
UNDECIDED: Outcome = "undecided"
_WORDS = {PASS: "pass", FAIL: "FAIL", UNDECIDED: "undecided"}


@dataclass(frozen=True)
class Judged:
    """A rule held against one run, or against the runs of an arm.

    Attributes:
        outcome: "pass", "fail" or "undecided".
        what: the number or fact, such as ``induction/verdict any at step 20``.
        found: what decided, in words.
        value, lo, hi: the number that decided and its interval, in the unit of the bounds; NaN where there is none.
    """

    outcome: Outcome
    what: str
    found: str
    value: float = math.nan
    lo: float = math.nan
    hi: float = math.nan


@dataclass(frozen=True)
class Checked:
    """A rule and what became of it.

    Attributes:
        rule: of the gate.
        run: name of the run, or of the arm and its runs.
        expected: the bounds, in words.
        judged: outcome and what decided.
    """

    rule: Rule
    run: str
    expected: str
    judged: Judged

    @property
    def outcome(self) -> Outcome:
        """ "pass", "fail" or "undecided"; only the first two are sure."""
        return self.judged.outcome

    @property
    def broken(self) -> bool:
        """Whether it is clearly not satisfied: what a training run may be stopped for."""
        return self.outcome == FAIL

    @property
    def passed(self) -> bool:
        """Whether it counts as passed: satisfied, or undecided where the rule lets that pass."""
        return self.outcome == PASS or (self.outcome == UNDECIDED and self.rule.undecided == PASS)

    @property
    def what(self) -> str:
        """What was looked at."""
        return self.judged.what

    @property
    def found(self) -> str:
        """What decided."""
        return self.judged.found

    @property
    def line(self) -> str:
        """One line for a person."""
        name = f"{self.rule.name}: " if self.rule.name else ""
        text = f"{name}{self.what}: expected {self.expected}, found {self.found}"
        return visible(f"{_WORDS[self.outcome]}  {self.run}: {text}")


def within(lo: float, hi: float, least: float, most: float) -> Outcome:
    """Whether an interval lies inside two bounds, outside of one of them, or across one.

    Args:
        lo, hi: its ends; NaN decides nothing.
        least, most: the bounds, both included.
    """
    if lo >= least and hi <= most:
        return PASS
    return FAIL if hi < least or lo > most else UNDECIDED


def all_of(outcomes: Collection[Outcome]) -> Outcome:
    """Of several that are all required; of none, undecided."""
    if FAIL in outcomes:
        return FAIL
    return PASS if outcomes and set(outcomes) == {PASS} else UNDECIDED


def enough_of(outcomes: Collection[Outcome], least: int) -> Outcome:
    """Of several of which some number is required: broken where even the undecided ones would not be enough."""
    n_pass = sum(one == PASS for one in outcomes)
    if n_pass >= least:
        return PASS
    return FAIL if n_pass + sum(one == UNDECIDED for one in outcomes) < least else UNDECIDED
