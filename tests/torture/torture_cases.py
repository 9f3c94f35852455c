"""Cases of a check: as many as the time allows, each drawn from the seed, the check's name and its number."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
SECONDS, SEED, CASE = "TORTURE_S", "TORTURE_SEED", "TORTURE_CASE"
DEFAULT_S = 120.0
MOST_PROBLEMS, _SHOWN_CHARACTERS = 5, 3000


def seed() -> int:
    """Of everything that is drawn."""
    return int(os.environ.get(SEED) or 0)


@dataclass
class Cases:
    """The cases of one check: as many as its share of the time allows.

    Attributes:
        name: of the check; with the seed and a number it decides a case.
        seconds: its share.
        done: how many cases there were, and of how many.
        only: the one case wanted, if only one is.
        problems: what was found; the check goes on to `MOST_PROBLEMS` of them before it fails.
    """

    name: str
    seconds: float
    done: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds
        self.only = os.environ.get(CASE) or None

    def rng(self, case: int) -> random.Random:
        """What a case draws from."""
        return random.Random(f"{seed()} {self.name} {case}")

    @contextmanager
    def case(self, number: int, what: str = "") -> Iterator[None]:
        """One case: what it raises is noted, with how to have it again."""
        try:
            yield
        except Exception as error:
            self.found(number, what, "".join(traceback.format_exception(error, limit=-6)))

    def found(self, number: int, what: str, problem: str) -> None:
        """Note a problem."""
        again = f"make torture seed={seed()} only='{self.name}' case={number}"
        self.problems.append(f"case {number}, {what}\n{problem[-_SHOWN_CHARACTERS:]}\nagain: {again}")

    def _end_of_cases(self, done: str) -> None:
        self.done.append(done)
        assert not self.problems, f"{len(self.problems)} problems:\n\n" + "\n\n".join(self.problems)

    @property
    def _enough(self) -> bool:
        return len(self.problems) >= MOST_PROBLEMS

    def drawn(self, *, least: int = 1) -> Iterator[tuple[int, random.Random]]:
        """Numbers of cases with what each draws from, until the time is over.

        Args:
            least: how many there are in any case.
        """
        case = int(self.only or 0)
        while True:
            yield case, self.rng(case)
            case += 1
            over = case >= least and time.monotonic() > self._end
            if self.only is not None or over or self._enough:
                break
        self._end_of_cases(f"{1 if self.only else case} drawn")

    def of(self, items: Sequence[T], what: str, *, share: float = 1.0) -> Iterator[tuple[int, T]]:
        """All items, or as many as the time allows, the seed deciding which.

        Args:
            items: to go through.
            what: they are, for the summary.
            share: of the whole time.
        """
        end = min(self._end, time.monotonic() + share * self.seconds)
        order = list(range(len(items)))
        self.rng(-1).shuffle(order)
        order = order if self.only is None else [int(self.only)]
        n = 0
        for n, i in enumerate(order, 1):
            yield i, items[i]
            if self._enough or (n < len(order) and time.monotonic() > end):
                break
        self._end_of_cases(f"{n} of {len(items)} {what}")
