"""What is said of an arm, from what a series' manifest says of it. No numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.arm import Arm
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.arms.registry import arms

_SHARES = ("share", "noise_frac", "rate", "included")


def describe_arm(arm: Mapping[str, Any]) -> str:
    """What a run was trained on, as far as `arm` of its series' manifest says; "" where it says nothing."""
    name, share, pool = str(arm.get("kind") or ""), arm.get("repeat_frac"), arm.get("pool_size")
    parts = arm.get("parts")
    if isinstance(parts, list):
        try:
            return _sentence(Arm.from_table({"parts": parts}).made_of)
        except ByroteError:
            return name
    kind = arms().get(name)
    if kind is None or not kind.by_repeat_frac:
        return name
    if kind.repeats and not (isinstance(share, int | float) and isinstance(pool, int)):
        return "repeated data"
    rest = 1 - float(share) if isinstance(share, int | float) else 1
    return kind.words.format(share=f"{share or 0:.0%}", rest=f"{rest:.0%}", pool_size=f"{pool or 0:,}")


def _sentence(parts: tuple[Part, ...]) -> str:
    return "; ".join(_words(part) for part in parts)


def _words(part: Part) -> str:
    settings = {name: getattr(part, name) for name in part.settings()}
    words_of = {name: _value(name, value) for name, value in settings.items()}
    words_of |= {name: _run_name(settings[name]) for name in part.runs}
    return part.words.format(**words_of, rest=f"{1 - part.fresh_frac_taken:.0%}")


def _value(name: str, value: Any) -> str:
    if name in _SHARES:
        return f"{value:.0%}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _run_name(place: str) -> str:
    """What a run is called that is named by its place: the arm where it is one of the same grid, else the folder."""
    parts = [one for one in PurePosixPath(place).parts if one not in ("..", ".", "/")]
    if not parts:
        return place
    return parts[0] if place.startswith("../../../") else parts[-1]


def unequal_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs between two arms apart from repeats: how many different sequences they see; "" where that is equal.

    Args:
        one, other: `arm` of the series' manifests; where one is not described by a share and a pool nothing is said.
    """
    kinds = [str(arm.get("kind") or "") for arm in (one, other)]
    rules = [arms().get(kind) for kind in kinds]
    if not all(rule is not None and rule.by_repeat_frac for rule in rules):
        return ""
    if not any(rule is not None and rule.repeats for rule in rules):
        return ""
    unique = [1 - float(arm.get("repeat_frac") or 0) for arm in (one, other)]
    if unique[0] == unique[1]:
        return ""
    fewer = unique.index(min(unique))
    times = f"{unique[fewer] / unique[1 - fewer]:.0%}"
    frac = 1 - min(unique)
    return (
        f"the {kinds[fewer]} arm sees {times} as many different sequences as the {kinds[1 - fewer]} arm, beside any repeats; "
        f"the control arm sees the same ones and repeats none: byrote lab train OUT --arm control --repeat-frac {frac:g}"
    )


def arm_rank(kind: str) -> int:
    """Where runs of an arm stand in a list: those with repeated or synthetic data before their controls."""
    ranks = [arms()[name].rank for name in kind.split("+") if name in arms()]
    return min(ranks, default=1)
