"""Step specifications a person types: ``0,512,1k..8k,log:12,last,nearest:3000``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from byrote.checkpoints.errors import CheckpointError

_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000}


def parse_steps(spec: str, steps: Sequence[int], *, where: str) -> frozenset[int]:
    """Steps of the series that a specification names.

    Terms, separated by commas: a step (``512``, ``1k``), a range with both ends included (``1k..8k``,
    either end may be left out), ``log:N`` (N steps spread evenly on a log axis, ends included), ``every:N``
    (each N-th checkpoint), ``first``, ``last``, ``all``, ``nearest:STEP``.

    Args:
        spec: what the person typed.
        steps: the steps there are, ascending, not empty.
        where: the series' path, for the message.

    Raises:
        CheckpointError: a term that cannot be read, or one that matches no step.
    """
    wanted: set[int] = set()
    for raw in spec.split(","):
        term = raw.strip().lower()
        found = _term(term, steps, where)
        if not found:
            raise CheckpointError(
                f"--steps {term!r} matches no step in {where} ({len(steps)} checkpoints, {steps[0]}-{steps[-1]})",
                help=f"`byrote scan {where}` lists them; or use nearest:STEP",
            )
        wanted |= found
    return frozenset(wanted)


def _term(term: str, steps: Sequence[int], where: str) -> set[int]:
    if term == "all":
        return set(steps)
    if term in ("first", "last"):
        return {steps[0] if term == "first" else steps[-1]}
    if term.startswith("nearest:"):
        target = _number(term[8:], term)
        return {min(steps, key=lambda s: (abs(s - target), s))}
    if term.startswith("every:"):
        return set(steps[:: max(1, _number(term[6:], term))])
    if term.startswith("log:"):
        return _log_spaced(steps, max(1, _number(term[4:], term)))
    if ".." in term:
        low_text, high_text = term.split("..", 1)
        low = _number(low_text, term) if low_text else steps[0]
        high = _number(high_text, term) if high_text else steps[-1]
        return {s for s in steps if low <= s <= high}
    step = _number(term, term)
    if step in steps:
        return {step}
    near = sorted(steps, key=lambda s: (abs(s - step), s))[:2]
    raise CheckpointError(
        f"step {step} is not in {where} ({len(steps)} checkpoints, {steps[0]}-{steps[-1]})",
        help=f"nearest are {' and '.join(str(s) for s in sorted(near))}; or use nearest:{step}",
    )


def span_of(steps: Sequence[int]) -> str:
    """Steps in words: ``steps 0-1,000``, ``step 5,000`` or ``no steps``."""
    if len(steps) < 2:
        return f"step {steps[0]:,}" if steps else "no steps"
    return f"steps {steps[0]:,}-{steps[-1]:,}"


def step_of(step: Any) -> int:
    """A step as a number: 512, or "512" and "1k" as in a specification.

    Raises:
        CheckpointError: it is not one.
    """
    found: int | None
    if isinstance(step, str):
        found = _parsed(step.strip().lower())
    else:
        try:
            found = None if isinstance(step, bool) or step != int(step) else int(step)
        except (TypeError, ValueError, OverflowError):
            found = None
    if found is None:
        raise CheckpointError(
            f"{repr(step)[:40]} is not a training step",
            help="give a whole number, such as 512 or '1k'; for 'last' and 'log:12' there is series.select",
        )
    return found


def _number(text: str, term: str) -> int:
    number = _parsed(text)
    if number is None:
        raise CheckpointError(
            f"--steps {term[:40]!r} is not a step specification",
            help="examples: 0,512  1k..8k  log:12  every:5  first  last  nearest:3000",
        )
    return number


def _parsed(text: str) -> int | None:
    """None for what is not a number, has more digits than any training has steps, or is a part of a step."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([km]?)", text, re.ASCII)
    number = Decimal(match[1]) * _SUFFIX[match[2]] if match else None
    return None if number is None or number != int(number) else int(number)


def _log_spaced(steps: Sequence[int], count: int) -> set[int]:
    if count >= len(steps):
        return set(steps)
    if count == 1:
        return {steps[-1]}
    low, high = math.log1p(steps[0]), math.log1p(steps[-1])
    targets = [low + (high - low) * i / (count - 1) for i in range(count)]
    return {min(steps, key=partial(_log_distance, target)) for target in targets}


def _log_distance(target: float, step: int) -> float:
    return abs(math.log1p(step) - target)
