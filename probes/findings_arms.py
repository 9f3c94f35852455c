"""How titles name runs by their arms, and what they say of many, beside `findings`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from byrote.checkpoints.series import STEP_UNKNOWN
from byrote.probes.wording import all_of, clean, listed

if TYPE_CHECKING:
    from byrote.probes.results.table import Table

MAX_COUNTS_NAMED = 4
MAX_ARMS_NAMED = 3


def names_in_title(results: Sequence[Table]) -> dict[str, str]:
    """Run -> what a title calls it: its arm, where several runs declare one each and that is the shorter name."""
    arms = [r.facts.arm for r in results]
    own = len(arms) > 1 and None not in arms and len(set(arms)) == len(arms)
    return {r.run: min(r.run, str(r.facts.arm), key=len) if own else r.run for r in results}


def of_unknown_step(results: Sequence[Table]) -> list[str]:
    """Runs whose single checkpoint does not say at which step it was saved."""
    return [r.run for r in results if STEP_UNKNOWN in (r.meta.get("notes") or ())]


def formed_by_arm(seeds: Sequence[tuple[str | None, bool]]) -> str:
    """`formed_in_arms` of single runs; "" where one declares no arm, or no arm has several.

    Args:
        seeds: (arm, whether it forms lasting induction heads) of each run.
    """
    all_of = Counter(arm for arm, _ in seeds)
    if None in all_of or len(all_of) == len(seeds):
        return ""
    return formed_in_arms({str(arm): (seeds.count((arm, True)), n) for arm, n in all_of.items()})


def formed_in_arms(counts: Mapping[str, tuple[int, int]]) -> str:
    """``Lasting induction heads in all 5 seeds of a and b, 3 of 5 of c, 0 of 5 each of d and e``; arms with most of them first.

    Args:
        counts: arm -> (seeds that form lasting induction heads, seeds).
    """
    arms_of: dict[tuple[int, int], list[str]] = {}
    for arm, count in sorted(counts.items(), key=lambda one: -one[1][0] / one[1][1]):
        arms_of.setdefault(count, []).append(clean(arm))
    parts = []
    for (yes, n), arms in arms_of.items():
        noun = " seed" if n == 1 else " seeds"
        if yes == n > 1:
            parts.append(f"{'both' if n == 2 else f'all {n}'}{noun} of {named_arms(arms)}")
        else:
            parts.append(
                f"{yes} of {n}{'' if parts else noun}{' each' * (len(arms) > 1)} of {named_arms(arms)}"
            )
    return f"Lasting induction heads in {listed(parts, most=MAX_COUNTS_NAMED)}"


def named_arms(arms: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c and 4 more``."""
    return all_of(arms) if len(arms) <= MAX_ARMS_NAMED else listed(arms, most=MAX_ARMS_NAMED)
