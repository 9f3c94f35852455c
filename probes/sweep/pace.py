"""How long a sweep has still to go, counted in work alone.

Start-up happens once, and steps whose units are stored take next to nothing: neither says how long the next step takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable


class Pace:
    """Seconds that checkpoints take, those with stored units apart from the others.

    Args:
        steps: all that are gone through.
        stored: steps that had units when the sweep began.
    """

    def __init__(self, steps: Iterable[int], stored: Collection[int]) -> None:
        self._stored = frozenset(stored)
        self._left = Counter(step in self._stored for step in steps)
        self._took: dict[bool, list[float]] = {False: [], True: []}
        self._worked: list[float] = []

    def done(self, step: int, seconds: float, *, worked: bool) -> None:
        """Note a checkpoint.

        Args:
            step: its step.
            seconds: it took, without what is done once for all of them.
            worked: whether anything was measured.
        """
        kind = step in self._stored
        self._left[kind] -= 1
        self._took[kind].append(seconds)
        if worked:
            self._worked.append(seconds)

    @property
    def s_per_checkpoint(self) -> float:
        """Mean seconds of the checkpoints that were measured; 0 where none was yet."""
        return _mean(self._worked)

    @property
    def eta_s(self) -> float | None:
        """Seconds of what is left; None before the first checkpoint without stored units, if there are such."""
        if self._left[False] and not self._took[False]:
            return None
        return sum(self._left[kind] * _mean(self._took[kind]) for kind in (False, True))


def _mean(seconds: list[float]) -> float:
    return sum(seconds) / len(seconds) if seconds else 0.0
