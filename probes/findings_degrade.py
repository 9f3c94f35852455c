"""Sentences on degradation: claims judged over seeds, doses, sizes. Command line, report and pages. No torch.

Plain text, like `byrote.probes.findings`. What is said below `MIN_SEEDS` seeds a side is said of the runs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from byrote.probes.rules import MIN_SEEDS, UNDECIDED
from byrote.probes.wording import counted, interval, number, p_value

if TYPE_CHECKING:
    from byrote.probes.degrade.verdicts import Claimed, Verdict

_EXPECTED = {"rises": "a rise", "falls": "a fall", "stays": "a change"}


def verdict_sentence(found: Verdict, unit: str) -> str:
    """``reproduced: +0.42 [+0.30, +0.54] nats over 5 pairs of seeds (expected a rise of more than 0.05, q = 0.001)``.

    Args:
        found: the verdict.
        unit: of the effect.
    """
    value = _effect(found, unit)
    expected = _EXPECTED[found.rule.direction]
    if found.rule.smallest:
        expected += (
            f" of {'less' if found.rule.direction == 'stays' else 'more'} than {found.rule.smallest:g}"
        )
    text = f"{found.word}: {value} over {_seeds(found)} (expected {expected}, q = {p_value(found.q)})"
    return f"{text}; {seen_words(found, unit)}" if found.word == UNDECIDED else text


def claim_sentence(claim: Claimed, unit: str, onset_unit: str = "e-folds of steps") -> str:
    """The verdict that decides, and the other one beside it.

    Args:
        claim: judged.
        unit, onset_unit: of the effect on the final value, and on the onset.
    """
    units = {"final": unit, "onset": onset_unit}
    other = "onset" if claim.primary == "final" else "final"
    beside = getattr(claim, other)
    text = (
        f"{claim.name}, by its {claim.primary} value, {verdict_sentence(claim.verdict, units[claim.primary])}"
    )
    if beside is None:
        return f"{text}; {other} value not measured"
    return f"{text}; by its {other} value {verdict_sentence(beside, units[other])}"


def seen_words(found: Verdict, unit: str) -> str:
    """What an undecided verdict could have decided, or why it could decide nothing."""
    if found.seeds < MIN_SEEDS:
        return f"{counted(found.seeds, 'seed')} a side decide nothing, it takes {MIN_SEEDS}"
    if not math.isfinite(found.seen):
        return "so few seeds cannot decide it, whatever they show"
    word = "a margin" if found.rule.direction == "stays" else "an effect"
    return f"{word} of {number(found.seen)} {unit} would have been decided in 80% of repetitions"


def _effect(found: Verdict, unit: str) -> str:
    """The effect with its unit and interval; "never" on one side is no number."""
    if math.isinf(found.value):
        return f"only the {'control' if found.value > 0 else 'arm'} gets there in most seeds"
    ends = [_end(end) for end in (found.lo, found.hi)]
    if all(map(math.isfinite, (found.lo, found.hi))):
        return f"{interval(found.value, found.lo, found.hi, sign=True)} {unit}"
    around = "no interval" if math.isnan(found.lo) else f"[{ends[0]}, {ends[1]}]"
    return f"{number(found.value, sign=True)} {unit}, {around}"


def _end(end: float) -> str:
    if math.isinf(end):
        return "only the control gets there" if end > 0 else "only the arm gets there"
    return number(end, sign=True)


def _seeds(found: Verdict) -> str:
    if found.how in ("paired by seed", "signed ranks"):
        return counted(found.seeds, "seed")
    return f"{found.seeds_a} and {counted(found.seeds_b, 'seed')}"
